"""What a run learns, from what, for how long. How the hardware does it stands in the DeepSpeed file.

Fields are documented where they are declared; ``launch/configs/*.yaml`` are examples. Numbers of steps are optimizer
steps, budgets are tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autoscale_ds.config import IDENTITY, check_range
from autoscale_ds.controllers import Budget, MixtureConfig
from autoscale_ds.errors import ConfigError
from autoscale_ds.models import ModelSpec, family
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.spec import WhenExhausted
from autoscale_ds.training.loggers.registry import check_names

LARGEST = 2**63 - 1  # counts of tokens, steps and windows are int64
FINITE = sys.float_info.max
# Least and most of each number; null is not checked. Where the most is infinite, it means for ever.
_RANGES: Mapping[str, tuple[float, float]] = {
    "budget_tokens": (0, LARGEST),
    "data.sequence_length": (1, LARGEST),
    "data.global_batch": (1, LARGEST),
    "data.workers": (0, LARGEST),
    "data.prefetch": (1, LARGEST),
    "parallel.tensor": (1, LARGEST),
    "parallel.pipeline": (1, LARGEST),
    "parallel.sequence": (1, LARGEST),
    "mixture.poll_seconds": (0, math.inf),
    "optimizer.learning_rate": (0, FINITE),
    "optimizer.epsilon": (0, FINITE),
    "optimizer.weight_decay": (0, FINITE),
    "optimizer.clip_norm": (0, math.inf),
    "schedule.warmup_tokens": (0, LARGEST),
    "schedule.cooldown_tokens": (0, LARGEST),
    "schedule.final_fraction": (0, FINITE),
    "evaluation.every_steps": (1, LARGEST),
    "evaluation.windows_per_domain": (1, LARGEST),
    "evaluation.items_per_task": (1, LARGEST),
    "evaluation.tasks_every_steps": (1, LARGEST),
    "evaluation.tasks_limit": (1, LARGEST),
    "checkpoints.every_steps": (1, LARGEST),
    "checkpoints.keep": (1, LARGEST),
    "faults.loss_limit": (0, math.inf),
    "faults.max_skips": (0, LARGEST),
    "faults.stall_seconds": (1, math.inf),
    "logging.every_steps": (1, LARGEST),
    "logging.peak_flops": (1, math.inf),
}


@dataclass(frozen=True)
class DataConfig:
    """Which tokens, in what portions."""

    corpus: str
    """Folder with ``corpus.json``."""
    sequence_length: int = field(default=1024, metadata=IDENTITY)
    global_batch: int = 80
    """Sequences an optimizer step, over all ranks and micro-batches. May change between starts: the stream goes on
    where it was, tokens and the schedule are counted exactly, a step stays an optimizer step."""
    max_epochs: float | Mapping[str, float] | None = None
    """Passes allowed over a domain (a number for all, or by name); null is without limit. The optimum of a law that
    a controller follows stays within; other weights may reach the limit, see ``when_exhausted``."""
    when_exhausted: WhenExhausted = "stop"
    window_share: float = field(default=1.0, metadata=IDENTITY)
    """Share of its windows that every domain is drawn from, above 0 and at most 1; seed and domain choose which. With
    budget / larger budget, a small run repeats its text as often as the larger run would under the same weights."""
    workers: int = 0
    """Reader processes a rank. 0 reads in the training process, which suits a local disk."""
    prefetch: int = 2
    """Steps each worker reads ahead; new weights wait for them."""
    log_samples: bool = False
    """Write what each rank consumed to ``RUN/samples/``, as ``tools/replay_stream.py`` prints it."""


@dataclass(frozen=True)
class ModelConfig:
    """A preset and what differs from it; see ``ModelSpec``."""

    family: str = field(default="gpt2", metadata=IDENTITY)
    """Which kind of model, see ``models.registry``."""
    preset: str | None = field(default=None, metadata=IDENTITY)
    """A shape of the family by name."""
    layers: int | None = field(default=None, metadata=IDENTITY)
    heads: int | None = field(default=None, metadata=IDENTITY)
    width: int | None = field(default=None, metadata=IDENTITY)
    context: int | None = field(default=None, metadata=IDENTITY)
    """null: the sequence length."""
    vocabulary: int | None = field(default=None, metadata=IDENTITY)
    """null: the tokenizer's."""
    dropout: float = field(default=0.0, metadata=IDENTITY)
    activation_checkpointing: bool = False
    loss_chunk_tokens: int = 4096
    initial_weights: str | None = None
    """Hugging Face folder (or hub name) of the family to start from; null draws its random initial weights. Its
    tokenizer must be the corpus's. Read once: a run that has a checkpoint goes on from that."""
    compile: bool = False
    """torch.compile: slower to start, faster after."""

    def build(self, sequence_length: int, vocabulary: int) -> ModelSpec:
        """Return the model's spec; raises ConfigError when the corpus does not fit it."""
        spec_class = family(self.family)
        presets = spec_class.presets
        if self.preset is not None and self.preset not in presets:
            raise ConfigError(f"model.preset is {self.preset!r}, expected one of {', '.join(presets)}")
        shape: dict[str, Any] = {
            "context": sequence_length,
            "vocabulary": vocabulary,
            **presets.get(self.preset or "", {}),
        }
        names = [f.name for f in dataclasses.fields(spec_class)]
        shape.update({name: getattr(self, name) for name in names if getattr(self, name, None) is not None})
        missing = [name for name in ("layers", "heads", "width") if name not in shape]
        if missing:
            raise ConfigError(f"model.{missing[0]} is missing: give it, or a model.preset ({', '.join(presets)})")
        spec = spec_class(**shape)
        if spec.context < sequence_length:
            raise ConfigError(f"model.context {spec.context} is shorter than data.sequence_length {sequence_length}")
        if spec.vocabulary < vocabulary:
            raise ConfigError(f"model.vocabulary {spec.vocabulary} is smaller than the tokenizer's {vocabulary}")
        return spec


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the model predicts, and how much each domain counts in the loss."""

    kind: str = field(default="causal", metadata=IDENTITY)
    """See ``objectives.registry``."""
    domain_weights: Mapping[str, float] | None = None
    """Weight of each domain's loss; domains left out have 1, null is 1 for all. The sampling weights decide how often
    a domain is read, these how much a token of it counts. They are scaled so that their mean over the sampled tokens
    is 1 (``objectives.normalised_weights``); logged losses are not weighted. May change between starts."""

    def __post_init__(self) -> None:
        for name, weight in (self.domain_weights or {}).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(
                    f"objective.domain_weights.{name} is {weight}, expected a finite number of at least 0"
                )

    def check_domains(self, domains: Sequence[str]) -> None:
        """Raise ConfigError for a weight of a domain that is not in the corpus, or when none counts."""
        given = self.domain_weights or {}
        unknown = sorted(set(given) - set(domains))
        if unknown:
            raise ConfigError(f"objective.domain_weights names {unknown[0]!r}; the domains are: {', '.join(domains)}")
        if all(given.get(name, 1.0) == 0 for name in domains):
            raise ConfigError("objective.domain_weights is 0 for every domain, so nothing would be learned; raise one")


@dataclass(frozen=True)
class ParallelConfig:
    """How the ranks share one model; what is left of the world size is data parallel. See ``parallel_rules.check``."""

    tensor: int = 1
    """Ranks that share every matrix (Megatron's split: attention heads, inner width)."""
    pipeline: int = 1
    """Stages of layers, one after the other."""
    sequence: int = 1
    """Ranks that share every sequence (Ulysses)."""

    @property
    def ranks_per_model(self) -> int:
        """Ranks that hold one copy of the model, or of its batch, between them."""
        return self.tensor * self.pipeline * self.sequence


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; weight decay on matrices and embeddings, none on biases and norms."""

    learning_rate: float = 2e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    """Largest gradient norm; null is off."""


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over tokens: linear warm-up, then one of three shapes. See ``schedule.learning_rate``."""

    kind: Literal["cosine", "linear", "constant_with_cooldown"] = "cosine"
    warmup_tokens: float = 0.0
    cooldown_tokens: float = 0.0
    """For ``constant_with_cooldown``: how long the final linear descent is."""
    final_fraction: float = 0.1
    """Learning rate at the end, as a fraction of the peak."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Loss by domain and by target, on the same windows and items every time."""

    every_steps: int | None = 500
    windows_per_domain: int = 64
    items_per_task: int | None = 512
    """Completions of each task target that are measured, evenly spread over its file; null is all."""
    tasks: tuple[str, ...] = ()
    """Downstream tasks whose scores are taken in training: names, or task files. They need the extra ``eval``."""
    tasks_data: str | None = None
    """Folder with their documents; null takes lm-eval's own tasks, with documents from the hub."""
    tasks_every_steps: int | None = None
    """How often; null is only at the end."""
    tasks_limit: int | None = None
    """Only the first items of each task; null is all."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save. The last step, a signal and Ctrl-C always save."""

    every_steps: int | None = 1000
    keep: int = 3
    """Newest checkpoints kept; null would fill the disk, so there is always a number. One more stays while it is the
    newest whose weights are known to give a finite validation loss."""
    verify: bool = True
    """Check the checksum of every file while loading; a damaged checkpoint is passed over for the one before."""
    keep_before_cooldown: bool = False
    """With ``schedule.kind: constant_with_cooldown``: save where the cooldown begins, and keep that checkpoint. A
    larger budget then goes on from there, without a jump of the learning rate."""


@dataclass(frozen=True)
class FaultConfig:
    """What to do with a step whose loss is not finite, or above ``loss_limit``."""

    policy: Literal["skip", "rollback", "stop"] = "skip"
    """``skip`` leaves out the update; ``rollback`` returns to the last checkpoint and leaves it out there."""
    loss_limit: float | None = None
    """Nats a token; null only catches losses that are not finite."""
    max_skips: int = 10
    """More than this many in one run stop it: the fault is not an accident."""
    stall_seconds: float | None = 300.0
    """A rank that keeps the others waiting this long is named and the job ended; null waits for ever. Steps, and the
    evaluation of one batch, must take less."""


@dataclass(frozen=True)
class LoggingConfig:
    """What is written how often."""

    every_steps: int = 10
    tensorboard: bool = True
    loggers: tuple[str, ...] = ()
    """Services that get the same metrics as TensorBoard: ``wandb``, ``mlflow``; see ``loggers.registry``."""
    peak_flops: float | None = None
    """Peak of one device in FLOP/s, for MFU; null takes the figure of known GPUs."""

    def __post_init__(self) -> None:
        check_names(self.loggers)


@dataclass(frozen=True)
class RunConfig:
    """The whole of ``launch/configs/*.yaml``."""

    run: str
    """Run folder: configuration, metrics, journal and checkpoints of this run."""
    budget_tokens: float
    """Training stops after this many tokens, rounded down to whole steps."""
    data: DataConfig
    model: ModelConfig
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    seed: int = field(default=0, metadata=IDENTITY)
    start_from: str | None = None
    """Another run's checkpoint to begin with, ``RUN`` or ``RUN@STEP``: its weights, in any layout. Read once."""
    start_with: tuple[Literal["optimizer", "stream"], ...] = ()
    """What else of it to take: the ``optimizer``'s moments; the ``stream``, which reads on where that run stopped, in
    every domain of the same text."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    faults: FaultConfig = field(default_factory=FaultConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            check_range(name, _lookup(self, name), least, most)
        for name, epochs in _by_name("data.max_epochs", self.data.max_epochs).items():
            check_range(name, epochs, 0, LARGEST)
        if not 0 < self.data.window_share <= 1:
            raise ConfigError(f"data.window_share is {self.data.window_share}, expected above 0 and at most 1")
        if len(self.optimizer.betas) != 2:
            raise ConfigError(f"optimizer.betas is {list(self.optimizer.betas)}, expected two numbers")
        for beta in self.optimizer.betas:
            if not 0 <= beta < 1:
                raise ConfigError(f"optimizer.betas has {beta}, expected numbers of at least 0 and below 1")
        if self.start_from is not None and self.model.initial_weights is not None:
            raise ConfigError("start_from and model.initial_weights both give the first weights; leave one out")
        self.mixture.controller.check_run(self.schedule.kind, self.evaluation.every_steps)
        if self.total_steps < 1:
            raise ConfigError(
                f"budget_tokens {self.budget_tokens:g} is less than one step of {self.tokens_per_step} tokens "
                "(data.global_batch x data.sequence_length)"
            )

    @property
    def tokens_per_step(self) -> int:
        """Tokens an optimizer step."""
        return self.data.global_batch * self.data.sequence_length

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the budget."""
        return int(self.budget_tokens // self.tokens_per_step)

    def budget_on(self, clock: Clock) -> Budget:
        """Return the length of the run as controllers see it, by the batches of its starts."""
        return Budget(clock.tokens_per_step, clock.steps(self.budget_tokens), clock)


def _lookup(config: RunConfig, name: str) -> float | None:
    return functools.reduce(getattr, name.split("."), config)  # type: ignore[return-value]


def _by_name(name: str, value: float | Mapping[str, float] | None) -> dict[str, float | None]:
    """Return numbers by the key that gives each: one for all domains, or one a domain."""
    if isinstance(value, Mapping):
        return {f"{name}.{domain}": number for domain, number in value.items()}
    return {name: value}

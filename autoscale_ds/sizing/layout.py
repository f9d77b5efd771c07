"""Layouts of ranks, and the rules that make one impossible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscale_ds.errors import ConfigError
from autoscale_ds.training.parallel_rules import Rule, split_rules

if TYPE_CHECKING:
    from autoscale_ds.models import ModelSpec

LARGEST_MICRO_BATCH = 64


@dataclass(frozen=True)
class Training:
    """Model, batch and precision of a run; the hardware is in ``Cluster`` and ``Layout``.

    Attributes
    ----------
    model : ModelSpec
        Shape of the model.
    sequence_length : int
        Tokens of one sample.
    global_batch : int
        Sequences a step.
    bf16 : bool
        bf16 weights with fp32 master weights and fp32 accumulation of gradients; False is fp32 throughout.
    """

    model: ModelSpec
    sequence_length: int
    global_batch: int
    bf16: bool = True

    @property
    def bytes_per_value(self) -> int:
        """Bytes of a weight, an activation, a gradient in backward."""
        return 2 if self.bf16 else 4


@dataclass(frozen=True)
class Layout:
    """How ranks share the work: ``tensor * pipeline * data`` of them.

    Attributes
    ----------
    tensor, pipeline, data : int
        Ranks that share every matrix; stages of layers; copies of the model that read different samples.
    zero : int
        ZeRO stage 0 to 3.
    micro : int
        Sequences a forward pass of one copy.
    checkpointing : bool
        Keep only each block's input and compute the rest again.
    """

    tensor: int
    pipeline: int
    data: int
    zero: int
    micro: int
    checkpointing: bool = False

    @property
    def gpus(self) -> int:
        """Ranks in all."""
        return self.tensor * self.pipeline * self.data

    def accumulation(self, training: Training) -> int:
        """Return the micro-batches a step of each copy."""
        return training.global_batch // (self.micro * self.data)

    def check(self, training: Training) -> None:
        """Raise ConfigError with the first rule the layout breaks; the trainer's own where it has one."""
        unit = self.micro * self.data
        if min(self.tensor, self.pipeline, self.data, self.micro) < 1 or not 0 <= self.zero <= 3:
            raise ConfigError(f"{self.name}: every part of a layout is at least 1, and zero is 0 to 3")
        for rule in [
            *split_rules(training.model, self.zero, self.tensor, self.pipeline),
            Rule(training.bf16 and self.zero == 0, "bf16 at ZeRO 0 has no fp32 master weights; use zero=1"),
            Rule(
                training.global_batch % unit > 0,
                f"the global batch {training.global_batch} is not a multiple of micro-batch {self.micro} x data "
                f"{self.data} = {unit}",
            ),
        ]:
            if rule.broken:
                raise ConfigError(rule.message)

    @property
    def name(self) -> str:
        """Return the layout as ``--layout`` takes it."""
        parts = f"t={self.tensor},p={self.pipeline},d={self.data},zero={self.zero},micro={self.micro}"
        return parts + (",checkpointing" if self.checkpointing else "")


def parse(text: str, gpus: int) -> Layout:
    """Read ``t=2,p=1,zero=1,micro=8,checkpointing``; what is not given is 1 (zero, micro) or follows from ``gpus``."""
    names = {"t": "tensor", "p": "pipeline", "d": "data", "zero": "zero", "micro": "micro"}
    given: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if part.strip() == "checkpointing":
            continue
        if key not in names or not (value.isdecimal() and len(value) < 10):
            raise ConfigError(f"--layout has {part!r}, expected t=2,p=1,zero=1,micro=8 or checkpointing")
        if names[key] in given:
            raise ConfigError(f"--layout gives {key} twice; leave one out")
        given[names[key]] = int(value)
    split = given.get("tensor", 1) * given.get("pipeline", 1)
    if split < 1 or gpus % split or given.get("data", gpus // split) * split != gpus:
        raise ConfigError(f"--layout {text} does not make up {gpus} GPUs: tensor x pipeline x data must")
    given.setdefault("data", gpus // split)
    whole: dict[str, int] = {"tensor": 1, "pipeline": 1, "zero": 1, "micro": 1, **given}
    return Layout(**whole, checkpointing="checkpointing" in text.split(","))


def layouts(training: Training, gpus: int) -> Iterator[Layout]:
    """Yield every possible layout of all GPUs, with every micro-batch that divides the samples of a copy."""
    for tensor in range(1, gpus + 1):
        for pipeline in range(1, gpus // tensor + 1):
            if gpus % (tensor * pipeline):
                continue
            for zero in range(4):
                for micro in range(1, LARGEST_MICRO_BATCH + 1):
                    for checkpointing in (False, True):
                        layout = Layout(tensor, pipeline, gpus // (tensor * pipeline), zero, micro, checkpointing)
                        if _is_possible(layout, training):
                            yield layout


def _is_possible(layout: Layout, training: Training) -> bool:
    try:
        layout.check(training)
    except ConfigError:
        return False
    return True

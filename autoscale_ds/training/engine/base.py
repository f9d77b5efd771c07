"""What the training loop asks of an engine, and what both engines do in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from autoscale_ds.models import ModelSpec
from autoscale_ds.objectives import Batch, Objective
from autoscale_ds.training import parallel_rules
from autoscale_ds.training.checksums import archive_checksum
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.portable import PortableState
from autoscale_ds.training.engine.reading import read_file
from autoscale_ds.training.engine.restoring import restore


class TokenLosses(NamedTuple):
    """Losses of a batch, or of this rank's part of every sequence.

    Attributes
    ----------
    losses : Tensor, shape (samples, time)
        Nats.
    counted : BoolTensor, shape (samples, time), or None
        Positions that count; None when all do.
    likeliest : Tensor, shape (samples, time), or None
        1 where the target is the likeliest token, else 0; None where it was not asked for.
    """

    losses: Tensor
    counted: Tensor | None
    likeliest: Tensor | None = None


CountLosses = Callable[[TokenLosses, Tensor], None]
"""Given the losses of a micro-batch and the domains (samples,), on exactly one of the ranks that compute them."""


@dataclass(frozen=True)
class Job:
    """What an engine is built for.

    Attributes
    ----------
    run : RunConfig
        What is learned.
    ds_config : mapping
        Resolved, see ``ds_config.resolve``.
    ranks : Ranks
        Place of this process.
    spec : ModelSpec
        The model.
    objective : Objective
        What it predicts.
    """

    run: RunConfig
    ds_config: Mapping[str, Any]
    ranks: Ranks
    spec: ModelSpec
    objective: Objective

    @property
    def micro_batch(self) -> int:
        """Samples a forward pass on one data-parallel rank."""
        return int(self.ds_config["train_micro_batch_size_per_gpu"])

    @property
    def accumulation(self) -> int:
        """Forward passes a step on one data-parallel rank."""
        return int(self.ds_config["gradient_accumulation_steps"])


class Engine(Protocol):
    """A model on some ranks, with the operations the training loop and evaluations need. All are collective.

    Attributes
    ----------
    module : nn.Module
        This rank's part of the model.
    spec : ModelSpec
        The whole model.
    layout : dict
        What its checkpoints' files depend on besides the model, see ``parallel_rules.record``.
    micro_batch : int
        Samples a forward pass on one data-parallel rank.
    """

    module: Any
    spec: ModelSpec
    layout: dict[str, Any]
    micro_batch: int

    def train_step(
        self,
        batch: Sequence[Batch],
        count: CountLosses,
        decide: Callable[[], bool],
        domain_weights: Tensor | None = None,
    ) -> None:
        """Do one optimizer step.

        Parameters
        ----------
        batch : sequence of Batch
            One micro-batch for each forward pass of the step.
        count : callable
            See ``CountLosses``.
        decide : callable
            Called on every rank when all losses are counted: whether to update the weights.
        domain_weights : Tensor, shape (domains,), optional
            Loss weights, already normalised.
        """

    def losses(self, batch: Batch, likeliest: bool = False) -> TokenLosses | None:
        """Return losses without gradients; None on ranks other than the one that counts them.

        With ``likeliest`` also whether each target is the likeliest token.
        """

    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """Return logits of the token that follows, fp32, on every rank.

        Parameters
        ----------
        tokens : LongTensor, shape (samples, time)
            The same on ranks that share a model. Other data-parallel ranks may pass other tokens of the same shape.

        Returns
        -------
        Tensor, shape (samples, vocabulary)
        """

    @property
    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping."""

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the coming update."""

    def save(self, folder: Path, tag: str) -> str | None:
        """Write model and optimizer under ``folder/tag``; return why this rank could not."""

    @property
    def checksums(self) -> dict[str, str]:
        """Checksums of the files that this rank wrote in the last save, by name."""

    def load(self, folder: Path, tag: str) -> None:
        """Read what ``save`` wrote, in the same layout."""

    def load_portable(self, path: Path, updates: int, moments: bool = True) -> None:
        """Continue from a checkpoint of any layout, see ``portable``; without its moments, take its weights only."""

    @property
    def updates(self) -> int:
        """Updates done; left-out ones do not count."""

    @property
    def updated(self) -> bool:
        """Whether the last step changed the weights; the same on every rank."""

    def close(self) -> None:
        """Take the engine's hooks off the model, so that another engine can train it."""


_SETTINGS = ("betas", "eps", "weight_decay")  # of a parameter group; the learning rate is set at every step


class DeepSpeedEngine:
    """What both engines do in the same way: learning rate, files, counting of positions.

    Parameters
    ----------
    job : Job
        What it is built for.
    module : nn.Module
        This rank's part of the model.
    initialised : tuple
        DeepSpeed's engine and optimizer, as ``deepspeed.initialize`` returns them first.
    guard : GuardedAdamW
        The optimizer inside DeepSpeed's.
    """

    def __init__(self, job: Job, module: Any, initialised: tuple[Any, Any], guard: Any) -> None:
        self.module = module
        self.spec = job.spec
        self.layout = parallel_rules.record(job.run, job.ds_config, job.ranks.world_size)
        self.micro_batch = job.micro_batch
        self._job = job
        self._engine, self._optimizer = initialised
        self._guard = guard
        self._configured = [{name: group[name] for name in _SETTINGS} for group in guard.param_groups]
        self._files = self._engine.checkpoint_engine = _Files(self._engine.checkpoint_engine)
        self._engine._copy_recovery_script = lambda path: None  # writes past _files; tools/export_hf.py does its job

    def _counted_scale(self, batch: Sequence[Batch]) -> float:
        """Return positions / counted positions of the whole step. Collective, unless all positions always count."""
        if self._job.objective.counts_all:
            return 1.0
        totals = torch.zeros(2, dtype=torch.float64, device=batch[0].tokens.device)
        for micro in batch:
            _, targets, mask = self._job.objective.prepare(micro)
            totals[0] += targets.numel()
            totals[1] += targets.numel() if mask is None else mask.sum()
        dist.all_reduce(totals)  # ranks that share a slice add the same figures: the ratio stays
        positions, counted = totals.tolist()
        return positions / counted if counted else 0.0

    @property
    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping."""
        if self._guard.last_norm is not None:
            return float(self._guard.last_norm)
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the coming update."""
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def save(self, folder: Path, tag: str) -> str | None:
        """Write model and optimizer under ``folder/tag``; return why this rank could not. Collective.

        DeepSpeed's ranks wait for each other while saving: a rank that cannot write goes on and reports it here.
        """
        self._files.problem = None
        self._files.checksums = {}
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
        return self._files.problem

    @property
    def checksums(self) -> dict[str, str]:
        """Checksums of the files that this rank wrote in the last save, by name."""
        return self._files.checksums

    def load(self, folder: Path, tag: str) -> None:
        """Read what ``save`` wrote, in the same layout. Collective."""
        self._engine.load_checkpoint(str(folder), tag=tag)
        self._configure()

    def _configure(self) -> None:
        """Set what the configuration says; a checkpoint brings the settings it was saved with."""
        for groups in (self._guard.param_groups, self._optimizer.param_groups):
            for group, settings in zip(groups, self._configured, strict=True):
                group.update(settings)

    @property
    def updates(self) -> int:
        """Updates done; left-out ones do not count."""
        states = self._guard.state.values()
        return max((int(state["step"]) for state in states if "step" in state), default=0)

    @property
    def updated(self) -> bool:
        """Whether the last step changed the weights: ZeRO leaves out an update of a gradient that is not finite."""
        return bool(self._guard.updated)

    def load_portable(self, path: Path, updates: int, moments: bool = True) -> None:
        """Continue from a checkpoint of any layout, see ``portable``; without its moments, take its weights only."""
        state, rank, size = PortableState(path), self._job.ranks.tensor_rank, self._job.ranks.parallel.tensor

        def part(name: str, kind: str) -> Tensor:
            whole = state(name, kind)
            return self.spec.cut(name, whole if moments or kind == "fp32" else torch.zeros_like(whole), rank, size)

        named = {self._whole_name(name): parameter for name, parameter in self.module.named_parameters()}
        with torch.no_grad():
            restore(self._engine, self._guard, named, part, updates if moments else 0)
        self._configure()

    def _whole_name(self, name: str) -> str:
        """Return the name that a parameter of this rank's module has in the whole model."""
        return name

    def close(self) -> None:
        """Take the engine's hooks off the model, so that another engine can train it."""
        self._engine.destroy()


class _Files:
    """DeepSpeed's writer and reader of files, remembering an error of writing, and reading data only."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.problem: str | None = None
        self.checksums: dict[str, str] = {}  # of the files of the last save, by name

    def save(self, state_dict: Any, path: str) -> None:
        self._attempt(self._write, state_dict, path)

    def _write(self, state: Any, path: str) -> None:
        torch.save(state, path)  # a zip archive, whatever the DeepSpeed file says: its records have checksums
        self.checksums[Path(path).name] = archive_checksum(path)

    def makedirs(self, *arguments: Any, **options: Any) -> None:
        self._attempt(self._plain.makedirs, *arguments, **options)

    def load(self, path: str, map_location: Any = None) -> Any:
        return read_file(path, map_location)

    def _attempt(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        try:
            method(*arguments, **options)
        except (OSError, RuntimeError) as error:
            self.problem = self.problem or str(error).splitlines()[0]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def allow_conversion(module: nn.Module, more: Mapping[str, Any]) -> None:
    """Leave in every checkpoint what DeepSpeed's universal converter asks for; AutoTP has done so already."""
    from deepspeed.checkpoint.constants import (
        UNIVERSAL_CHECKPOINT_INFO,
        UNIVERSAL_CHECKPOINT_VERSION_KEY,
        UNIVERSAL_CHECKPOINT_VERSION_VALUE,
    )

    if not hasattr(module, UNIVERSAL_CHECKPOINT_INFO):
        info = {UNIVERSAL_CHECKPOINT_VERSION_KEY: UNIVERSAL_CHECKPOINT_VERSION_VALUE, **more}
        setattr(module, UNIVERSAL_CHECKPOINT_INFO, info)

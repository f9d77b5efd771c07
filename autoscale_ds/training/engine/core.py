"""A model on DeepSpeed: data parallel with ZeRO, and tensor or sequence parallel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoscale_ds.models import GPT2
from autoscale_ds.training import parallel_rules
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.optimizer import build_optimizer
from autoscale_ds.training.engine.portable import PortableState
from autoscale_ds.training.engine.reading import read_file
from autoscale_ds.training.engine.restoring import restore
from autoscale_ds.training.engine.splitting import (
    loss_share,
    make_groups,
    model_parallel,
    share_sequences,
    split_config,
    tensor_part,
)
from autoscale_ds.training.engine.vocabulary import describe_vocabulary, share_vocabulary

MicroBatch = tuple[Tensor, Tensor]
"""Tokens (samples, time + 1), and the samples' domains (samples,)."""


class _Files:
    """DeepSpeed's writer and reader of files, remembering an error of writing, and reading data only."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.problem: str | None = None

    def save(self, *arguments: Any, **options: Any) -> None:
        self._attempt(self._plain.save, *arguments, **options)

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


class Engine:
    """A model on DeepSpeed, with the few operations the training loop needs.

    Parameters
    ----------
    model : GPT2
        Whole, or made sharded by ``zero.Init``.
    run : RunConfig
    ds_config : mapping
        Resolved, see ``ds_config.resolve``.
    ranks : Ranks

    Attributes
    ----------
    module : nn.Module
        The model as given; tensor and sequence parallelism change it in place.
    shape : GPT2Config
    layout : dict
        What its checkpoints' files depend on besides the model, see ``parallel_rules.record``.
    micro_batch, accumulation : int
        Samples a forward pass and forward passes a step, on one data-parallel rank.
    """

    def __init__(self, model: GPT2, run: RunConfig, ds_config: Mapping[str, Any], ranks: Ranks) -> None:
        import deepspeed

        self.module: Any = model
        self.shape = model.config
        self._describe(run, ds_config, ranks)
        mpu = make_groups(ranks)
        if ranks.parallel.sequence > 1:
            share_sequences(model, mpu)
        shared = ranks.parallel.tensor > 1 and share_vocabulary(model, mpu.get_tensor_model_parallel_group())
        self._guard, optimizer = build_optimizer(model, run.optimizer, ds_config)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=split_config(ds_config, ranks),
            mpu=mpu,
            dist_init_required=False,
        )
        self._guard.model_parallel = model_parallel(ranks, mpu)
        self._loss_share = loss_share(ds_config, ranks)
        self._guard_files()
        allow_conversion(self.module, {})
        if shared:
            describe_vocabulary(self.module)

    def _describe(self, run: RunConfig, ds_config: Mapping[str, Any], ranks: Ranks) -> None:
        self._ranks = ranks
        self.layout = parallel_rules.record(run, ds_config, ranks.world_size)
        self.micro_batch = int(ds_config["train_micro_batch_size_per_gpu"])
        self.accumulation = int(ds_config["gradient_accumulation_steps"])

    def train_step(
        self, batch: Sequence[MicroBatch], count: Callable[[Tensor, Tensor], None], decide: Callable[[], bool]
    ) -> None:
        """Do one optimizer step.

        Parameters
        ----------
        batch : sequence of MicroBatch
            ``accumulation`` of them.
        count : callable
            Given per-token losses (samples, time) and domains, on the ranks that speak for them.
        decide : callable
            Called on every rank when all losses are counted: whether to update the weights.
        """
        if not self.module.training:
            self._engine.train()
        for tokens, domains in batch[:-1]:
            self._forward_backward(tokens, domains, count)
            self._engine.step()
        self._forward_backward(*batch[-1], count)
        self._guard.frozen = not decide()
        self._engine.step()
        self._guard.frozen = False

    def evaluate(self, tokens: Tensor) -> Tensor | None:
        """Return the losses of tokens (samples, time + 1), or of this rank's part; None where others speak for them."""
        self._engine.eval()
        with torch.no_grad():
            losses = self.losses(*self._own_part(tokens))
        return losses if self._ranks.tensor_rank == 0 else None

    def _forward_backward(self, tokens: Tensor, domains: Tensor, count: Callable[[Tensor, Tensor], None]) -> None:
        losses = self.losses(*self._own_part(tokens))
        if self._ranks.tensor_rank == 0:
            count(losses, domains)
        self.backward(losses.mean() * self._loss_share)

    def _own_part(self, tokens: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return inputs, targets and first position of this rank's part of every sequence."""
        length = (tokens.shape[1] - 1) // self._ranks.parallel.sequence
        first = self._ranks.sequence_rank * length
        part = tokens[:, first : first + length + 1]
        return part[:, :-1], part[:, 1:], first

    def losses(self, token_ids: Tensor, targets: Tensor, first_position: int = 0) -> Tensor:
        """Return the loss of every token, shape (batch, time), nats."""
        return self._engine(token_ids, targets, first_position)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one micro-batch's mean loss."""
        self._engine.backward(loss)

    @property
    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping."""
        if self._guard.last_norm is not None:
            return self._guard.last_norm
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the coming update."""
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def _guard_files(self) -> None:
        self._files = self._engine.checkpoint_engine = _Files(self._engine.checkpoint_engine)
        self._engine._copy_recovery_script = lambda path: None  # goes past the guard; tools/export_hf.py does its job

    def save(self, folder: Path, tag: str) -> str | None:
        """Write model and optimizer under ``folder/tag``; return why this rank could not. Collective.

        DeepSpeed's ranks wait for each other while saving: a rank that cannot write must not leave them there.
        """
        self._files.problem = None
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
        return self._files.problem

    def load(self, folder: Path, tag: str) -> None:
        """Read what ``save`` wrote, in the same layout. Collective."""
        self._engine.load_checkpoint(str(folder), tag=tag)

    @property
    def updates(self) -> int:
        """Updates done; left-out ones do not count."""
        states = self._guard.state.values()
        return max((int(state["step"]) for state in states if "step" in state), default=0)

    def load_portable(self, path: Path, updates: int) -> None:
        """Continue from a checkpoint of any layout, see ``portable``."""
        state, rank, size = PortableState(path), self._ranks.tensor_rank, self._ranks.parallel.tensor

        def part(name: str, kind: str) -> Tensor:
            return tensor_part(name, state(name, kind), rank, size, self.shape)

        named = {self.whole_name(name): parameter for name, parameter in self.module.named_parameters()}
        with torch.no_grad():
            restore(self._engine, self._guard, named, part, updates)

    def whole_name(self, name: str) -> str:
        """Return the name that a parameter of this rank's module has in ``GPT2``."""
        return name

    def close(self) -> None:
        """Take the engine's hooks off the model, so that another engine can train it."""
        self._engine.destroy()


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

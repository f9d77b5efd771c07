"""A model on DeepSpeed: data parallel with ZeRO, and tensor or sequence parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from autoscale_ds.errors import TrainingError
from autoscale_ds.objectives import Batch, Prepared
from autoscale_ds.training.engine.base import CountLosses, DeepSpeedEngine, Job, TokenLosses, allow_conversion
from autoscale_ds.training.engine.optimizer import build_optimizer
from autoscale_ds.training.engine.splitting import (
    loss_share,
    make_groups,
    model_parallel,
    share_sequences,
    split_config,
)
from autoscale_ds.training.engine.vocabulary import describe_vocabulary, share_vocabulary
from autoscale_ds.training.hardware import zero_stage


class ZeroEngine(DeepSpeedEngine):
    """A model on DeepSpeed's ZeRO engine; see ``base.Engine`` for what it does.

    Parameters
    ----------
    model : nn.Module
        Whole, or made sharded by ``zero.Init``; tensor and sequence parallelism change it in place.
    job : Job
        What it is built for.
    """

    def __init__(self, model: nn.Module, job: Job) -> None:
        import deepspeed

        ranks, ds_config = job.ranks, job.ds_config
        mpu = make_groups(ranks)
        if ranks.parallel.sequence > 1:
            share_sequences(model, mpu)
        shared = ranks.parallel.tensor > 1 and share_vocabulary(model, job.spec, mpu.get_tensor_model_parallel_group())
        if zero_stage(ds_config) == 3:
            # Weights are gathered a block at a time: hooks on every layer cost several times the arithmetic.
            deepspeed.utils.set_z3_leaf_modules(model, [job.spec.block])
        guard, optimizer = build_optimizer(model, job.run.optimizer, ds_config)
        engine, wrapped, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=split_config(ds_config, ranks, job.spec),
            mpu=mpu,
            dist_init_required=False,
        )
        guard.model_parallel = model_parallel(ranks, mpu)
        super().__init__(job, model, (engine, wrapped), guard)
        self._mpu = mpu
        self._loss_share = loss_share(ds_config, ranks)
        allow_conversion(model, {})
        if shared:
            describe_vocabulary(model, job.spec)

    def train_step(
        self,
        batch: Sequence[Batch],
        count: CountLosses,
        decide: Callable[[], bool],
        domain_weights: Tensor | None = None,
    ) -> None:
        """Do one optimizer step, see ``Engine.train_step``."""
        if not self.module.training:
            self._engine.train()
        self._guard.updated = False
        scale = self._counted_scale(batch) * self._loss_share
        for number, micro in enumerate(batch, start=1):
            self._forward_backward(micro, count, domain_weights, scale)
            if number == len(batch):
                self._guard.frozen = not decide()
            self._engine.step()
        self._guard.frozen = False

    def _forward_backward(self, batch: Batch, count: CountLosses, domain_weights: Tensor | None, scale: float) -> None:
        part, first = self._own_part(batch)
        losses = self._engine(part.inputs, part.targets, first)
        if self._counts:
            count(TokenLosses(losses, part.counted), batch.domains)
        loss = self._job.objective.reduce(losses, part.counted, batch.domains, domain_weights)
        self._engine.backward(loss * scale)

    @torch.no_grad()
    def losses(self, batch: Batch, likeliest: bool = False) -> TokenLosses | None:
        """Return losses of this rank's part of every sequence; None on tensor ranks other than 0."""
        self._engine.eval()
        part, first = self._own_part(batch)
        if not likeliest:
            losses = self._engine(part.inputs, part.targets, first)
            return TokenLosses(losses, part.counted) if self._counts else None
        losses, tops = self._engine(part.inputs, part.targets, first, likeliest=True)
        return TokenLosses(losses, part.counted, tops) if self._counts else None

    @property
    def _counts(self) -> bool:
        """Whether this rank's losses are counted: all tensor ranks compute the same ones."""
        return self._job.ranks.tensor_rank == 0

    def _own_part(self, batch: Batch) -> tuple[Prepared, int]:
        """Return this rank's part of every prepared sequence, and the position it begins at."""
        prepared = self._job.objective.prepare(batch)
        length = prepared.inputs.shape[1] // self._job.ranks.parallel.sequence
        first = self._job.ranks.sequence_rank * length
        columns = slice(first, first + length)
        counted = None if prepared.counted is None else prepared.counted[:, columns]
        return Prepared(prepared.inputs[:, columns], prepared.targets[:, columns], counted), first

    @torch.no_grad()
    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """Return logits of the token that follows, see ``Engine.next_token_logits``.

        Ranks that share sequences pad them to a multiple of their number: causal attention keeps padding at the end
        from changing what lies before it.
        """
        self._engine.eval()
        size, time = self._job.ranks.parallel.sequence, tokens.shape[1]
        length = -(-time // size)
        if time < 1 or length * size > self.spec.context:
            raise TrainingError(
                f"the next token after {time} tokens was asked for; expected 1 to {self.spec.context // size * size}, "
                "the model's context"
            )
        first = self._job.ranks.sequence_rank * length
        part = F.pad(tokens, (0, length * size - time))[:, first : first + length]
        last = min(max(time - 1 - first, 0), length - 1)
        # Contiguous: they are columns of a wider matrix, whose memory a collective would take row after row.
        logits: Tensor = self._engine(part, None, first, last).float().contiguous()
        if size > 1:
            if not first <= time - 1 < first + length:
                logits = torch.zeros_like(logits)
            dist.all_reduce(logits, group=self._mpu.get_sequence_parallel_group())
        return logits

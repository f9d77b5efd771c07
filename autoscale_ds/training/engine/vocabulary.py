"""Embedding and head shared out by rows of the vocabulary among tensor-parallel ranks (Megatron, arXiv 1909.08053).

Where the ranks divide its rows, none trains the whole embedding or computes the logits of the whole vocabulary.
DeepSpeed 0.19.8 has the same for Hugging Face models with a Linear called ``lm_head``; its loss waits for the device in
every call, and keeps the logits of all tokens. Ours is the chunked loss of ``LanguageModelHead`` over a part of the
columns.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from autoscale_ds.models import ModelSpec
from autoscale_ds.models.layers import LanguageModelHead


def share_vocabulary(model: nn.Module, spec: ModelSpec, group: Any) -> bool:
    """Leave this rank its rows of the tied embedding; return False, and do nothing, where they do not divide.

    Parameters
    ----------
    model : nn.Module
        Whole; changed in place.
    spec : ModelSpec
        Its spec, which names embedding and head.
    group : ProcessGroup
        The tensor-parallel ranks.
    """
    if spec.vocabulary_rows(dist.get_world_size(group)) == spec.padded_vocabulary:
        return False
    head = _Head(getattr(model, spec.head), group)
    setattr(model, spec.head, head)
    setattr(model, spec.embedding, _Embedding(head, group))
    return True


def describe_vocabulary(module: nn.Module, spec: ModelSpec) -> None:
    """Correct what checkpoints tell DeepSpeed's converter: AutoTP takes what it did not split itself for copies."""
    from deepspeed.checkpoint import constants

    info = getattr(module, constants.UNIVERSAL_CHECKPOINT_INFO)
    pattern = rf"^{re.escape(spec.vocabulary_parameter)}$"
    info[constants.TP_REPLICATED_PARAMETER_PATTERNS].remove(pattern)  # what it knows nothing of is joined row by row
    info[constants.AFFINE_MAP][constants.AFFINE_MAP_PARAMS].pop(pattern)


class _Embedding(nn.Module):
    """Looks up the tokens of this rank's rows, 0 for those of other ranks; the outputs are added up over the ranks."""

    def __init__(self, head: _Head, group: Any) -> None:
        super().__init__()
        self.weight = head.weight
        self._first = head.first
        self._group = group

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map (batch, time) to (batch, time, width)."""
        rows, held = _own(token_ids, self._first, len(self.weight))
        return _SumOfOutputs.apply(F.embedding(rows, self.weight).masked_fill(~held[..., None], 0.0), self._group)


class _Head(LanguageModelHead):
    """The loss over this rank's columns of the logits; maxima and sums go over all ranks."""

    def __init__(self, whole: LanguageModelHead, group: Any) -> None:
        nn.Module.__init__(self)
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        part = whole.weight.detach().chunk(size)[rank].clone()
        self.weight = nn.Parameter(part)
        self.weight.tensor_model_parallel = True  # type: ignore[attr-defined]  # its norm is no copy of another rank's
        self.vocabulary = whole.vocabulary
        self.chunk_tokens = whole.chunk_tokens
        self.first = rank * len(part)
        self._group = group

    def forward(self, hidden: Tensor, targets: Tensor | None = None, likeliest: bool = False) -> Tensor:
        """Return what ``LanguageModelHead`` does, the same on all ranks."""
        if targets is None:
            logits = F.linear(hidden, self.weight)
            parts = [torch.empty_like(logits) for _ in range(dist.get_world_size(self._group))]
            dist.all_gather(parts, logits.contiguous(), group=self._group)
            return torch.cat(parts, dim=-1)[..., : self.vocabulary]
        return super().forward(_SumOfGradients.apply(hidden, self._group), targets, likeliest)

    def _logits(self, rows: Tensor, weight: Tensor) -> Tensor:
        logits = F.linear(rows, weight).float()
        used = self.vocabulary - self.first
        if used < len(weight):  # padding, perhaps all of this rank's rows
            padding = torch.arange(len(weight), device=logits.device) >= used
            logits = logits.masked_fill(padding, -math.inf)
        return logits

    def _of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses: Tensor = _CrossEntropy.apply(logits, labels, self.first, self._group)
        return losses

    def _argmax(self, logits: Tensor) -> Tensor:
        """Return the first of the likeliest tokens of all ranks."""
        largest, column = logits.max(-1)
        of_all = largest.clone()
        dist.all_reduce(of_all, op=dist.ReduceOp.MAX, group=self._group)
        token = torch.where(largest == of_all, self.first + column, self.vocabulary)
        dist.all_reduce(token, op=dist.ReduceOp.MIN, group=self._group)
        return token


def _own(token_ids: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Return tokens as rows of this rank, any where they are another's, and whether they are its own."""
    rows = token_ids - first
    held = (rows >= 0) & (rows < count)
    return rows.clamp(0, count - 1), held


class _SumOfOutputs(torch.autograd.Function):
    """Adds up outputs over the ranks; each rank gets the whole gradient (Megatron's ``g``)."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        whole = part.clone()
        dist.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _SumOfGradients(torch.autograd.Function):
    """Passes on what every rank has; adds up the gradients of its uses (Megatron's ``f``)."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy of logits (tokens, columns of this rank), fp32, whose first column is token ``first``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, first: int, group: Any) -> Tensor:
        columns, held = _own(labels, first, logits.shape[1])
        largest = logits.amax(1)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        shifted = logits - largest[:, None]
        at_label = shifted.gather(1, columns[:, None])[:, 0].masked_fill(~held, 0.0)
        shares = shifted.exp_()
        sums = torch.stack([shares.sum(1), at_label])
        dist.all_reduce(sums, group=group)
        total, at_label = sums
        ctx.save_for_backward(shares.div_(total[:, None]), columns, held)
        return total.log() - at_label

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        softmax, columns, held = ctx.saved_tensors
        gradient = softmax * gradients[0][:, None]
        gradient.scatter_add_(1, columns[:, None], -(gradients[0] * held)[:, None])
        return gradient, None, None, None

"""What is predicted, which tokens count, and how a step's losses become one number to minimise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Samples of one forward pass.

    Attributes
    ----------
    tokens : LongTensor, shape (samples, time + 1)
        Windows as the stream reads them; neighbours share one token.
    domains : LongTensor, shape (samples,)
        Index of each sample's domain.
    counted : BoolTensor, shape (samples, time), or None
        Positions of which the loss is asked for; None is all. Training asks for all.
    """

    tokens: Tensor
    domains: Tensor
    counted: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


class Prepared(NamedTuple):
    """A batch as the model sees it.

    Attributes
    ----------
    inputs, targets : LongTensor, shape (samples, time)
        Tokens the model reads, and what it is to predict at each position.
    counted : BoolTensor, shape (samples, time), or None
        Positions whose loss counts; None when all do.
    """

    inputs: Tensor
    targets: Tensor
    counted: Tensor | None


class Objective(ABC):
    """How a model learns from windows of tokens.

    Attributes
    ----------
    counts_all : bool
        Whether ``counted`` is None for every batch of training. Otherwise ranks add up in each step how many
        positions count.
    """

    counts_all: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, batch: Batch) -> Prepared:
        """Return inputs, targets and the positions that count, which ``batch.counted`` can make fewer.

        A function of the batch alone.
        """

    def reduce(self, losses: Tensor, counted: Tensor | None, domains: Tensor, weights: Tensor | None) -> Tensor:
        """Return the mean over positions of ``weight of the domain x loss``, uncounted positions as 0.

        The engine multiplies it by positions / counted positions of the whole step, which is the same number for every
        micro-batch and rank. So the step's gradient is that of ``sum(w_d(i) l_i) / counted`` over its counted tokens,
        whatever the accumulation and layout.

        Parameters
        ----------
        losses : Tensor, shape (samples, time)
            Nats.
        counted : BoolTensor, shape (samples, time), or None
            None counts all.
        domains : LongTensor, shape (samples,)
            Index of each sample's domain.
        weights : Tensor, shape (domains,), or None
            See ``normalised_weights``; None is 1 for all.
        """
        if counted is not None:
            losses = losses.masked_fill(~counted, 0.0)
        if weights is not None:
            losses = losses * weights[domains][:, None]
        return losses.mean()


def sample_sums(losses: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the summed losses and the number of counted positions of each sample, both (samples,) in float64.

    Parameters
    ----------
    losses : Tensor, shape (samples, time)
        Nats.
    counted : BoolTensor, shape (samples, time), or None
        None counts all.
    """
    values = losses.detach().double()
    if counted is None:
        sums = values.sum(dim=1)
        return sums, torch.full_like(sums, losses.shape[1])
    return values.masked_fill(~counted, 0.0).sum(dim=1), counted.double().sum(dim=1)


def normalised_weights(weights: Mapping[str, float], sampling: Mapping[str, float]) -> dict[str, float]:
    """Return loss weights scaled so that the expected loss scale is that without them.

    ``w'_d = w_d / sum_e p_e w_e``, where p are the sampling weights of the step: the mean of w' over the tokens that
    the stream draws is 1. A change of sampling weights changes the scaling at the same step. Domains that are absent
    from ``weights`` have weight 1. Where everything that is sampled has weight 0, all are 0.

    Parameters
    ----------
    weights : mapping of str to float
        Loss weight by domain, not negative.
    sampling : mapping of str to float
        Sampling weights of the step, summing to 1.
    """
    whole = {name: weights.get(name, 1.0) for name in sampling}
    scale = sum(share * whole[name] for name, share in sampling.items())
    return {name: weight / scale if scale > 0 else 0.0 for name, weight in whole.items()}

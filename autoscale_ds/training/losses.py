"""The loss of a step by domain, from the tokens of the step itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from autoscale_ds.objectives import sample_sums
from autoscale_ds.training.engine import TokenLosses


@dataclass(frozen=True)
class StepReport:
    """What all ranks know after a step's micro-batches.

    Attributes
    ----------
    sums, counts : list of float
        Loss in nats summed over counted tokens, and counted tokens, for each domain.
    stop : bool
        Whether some rank was told to stop.
    swap_due : bool
        Whether rank 0 has a proposal to check or a controller to ask, see ``HotSwap.waiting``.
    """

    sums: list[float]
    counts: list[float]
    stop: bool
    swap_due: bool

    @property
    def loss(self) -> float:
        """Mean loss in nats a counted token; not finite if any token's is not, or no token counts."""
        counted = sum(self.counts)
        return sum(self.sums) / counted if counted else math.nan


class LossTally:
    """Adds up per-token losses by domain over micro-batches, then over ranks in one small all-reduce.

    Float64, so that the order of additions is below what is printed. The reduction carries the two flags along: ranks
    agree every step on stopping and swapping without a message of its own.
    """

    def __init__(self, num_domains: int, device: torch.device) -> None:
        self._box = torch.zeros(2 * num_domains + 2, dtype=torch.float64, device=device)
        self._num_domains = num_domains

    def add(self, measured: TokenLosses, domains: Tensor) -> None:
        """Add the counted losses of samples whose domains are (samples,)."""
        sums, counts = sample_sums(measured.losses, measured.counted)
        self._box.index_add_(0, domains, sums)
        self._box.index_add_(0, domains + self._num_domains, counts)

    def reduce(self, stop: bool, swap_due: bool) -> StepReport:
        """Return the sums over all ranks and start again from zero. Collective."""
        self._box[-2], self._box[-1] = float(stop), float(swap_due)
        dist.all_reduce(self._box)
        values = self._box.tolist()
        self._box.zero_()
        m = self._num_domains
        return StepReport(values[:m], values[m : 2 * m], stop=values[-2] > 0, swap_due=values[-1] > 0)

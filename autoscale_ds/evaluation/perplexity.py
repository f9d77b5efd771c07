"""Validation loss by domain on windows fixed once for all: the same numbers for any world size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from autoscale_ds.corpus import Corpus
from autoscale_ds.stream.dataset import WindowDataset, count_windows, open_windows


@dataclass(frozen=True)
class DomainScore:
    """Validation figures of one domain: nats a token, its exponential, and bits a byte where text sizes are known."""

    loss: float
    perplexity: float
    bits_per_byte: float | None


class ValidationSet:
    """Evenly spaced validation windows of every domain that has any.

    Parameters
    ----------
    corpus : Corpus
    sequence_length : int
    windows_per_domain : int
        At most this many; fewer where the domain holds fewer.

    Attributes
    ----------
    names : list of str
        Domains with validation windows, sorted.
    """

    def __init__(self, corpus: Corpus, sequence_length: int, windows_per_domain: int) -> None:
        sizes = count_windows(corpus, sequence_length, "validation")
        self.names = sorted(name for name, size in sizes.items() if size)
        self._dataset: WindowDataset = open_windows(corpus, self.names, sequence_length, "validation")
        chosen = [_spread(sizes[name], windows_per_domain) for name in self.names]
        self._windows = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
        self._domains = np.repeat(np.arange(len(self.names)), [len(windows) for windows in chosen])
        self._bytes_per_token = {name: corpus.bytes_per_token(name, "validation") for name in self.names}

    def __len__(self) -> int:
        return len(self._windows)

    def batches(self, rank: int, world_size: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (tokens (k, T + 1), domains (k,), counted (k,)) of one rank.

        Every rank yields equally many batches of equal size, because under ZeRO-3 a forward pass is collective:
        short ranks repeat window 0 with ``counted`` zero.
        """
        rounds = -(-len(self) // (world_size * batch_size))
        for index in range(rounds):
            places = (index * world_size + rank) * batch_size + np.arange(batch_size)
            counted = places < len(self)
            places = np.where(counted, places, 0)
            tokens = self._dataset.read(self._domains[places], self._windows[places])
            yield tokens, torch.from_numpy(self._domains[places]), torch.from_numpy(counted)

    def score(self, sums: list[float], counts: list[float]) -> dict[str, DomainScore]:
        """Return figures from losses summed over tokens, and tokens, in the order of ``names``."""
        scores = {}
        for name, total, count in zip(self.names, sums, counts, strict=True):
            loss = total / count
            width = self._bytes_per_token[name]
            scores[name] = DomainScore(loss, _exp(loss), loss / math.log(2) / width if width else None)
        return scores


@torch.no_grad()
def evaluate(
    losses: Callable[[Tensor], Tensor | None],
    windows: ValidationSet,
    device: torch.device,
    rank: int,
    world_size: int,
    batch_size: int,
    interrupted: Callable[[], bool],
) -> dict[str, DomainScore] | None:
    """Return the figures of every domain, the same on all ranks; None when interrupted. Collective.

    Parameters
    ----------
    losses : callable
        Per-token losses (batch, time) of tokens (batch, time + 1), or of some of that time; None on a rank that does
        not speak for its losses because another does.
    interrupted : callable
        Asked before every batch, on every rank; must answer the same on all.
    """
    box = torch.zeros(2, len(windows.names), dtype=torch.float64, device=device)
    for tokens, domains, counted in windows.batches(rank, world_size, batch_size):
        if interrupted():
            return None
        found = losses(tokens.to(device))
        if found is not None:
            domains, counted = domains.to(device), counted.to(device).double()
            box[0].index_add_(0, domains, found.double().sum(dim=1) * counted)
            box[1].index_add_(0, domains, counted * found.shape[1])
    dist.all_reduce(box)
    sums, counts = box.tolist()
    return windows.score(sums, counts)


def validation_figures(scores: Mapping[str, DomainScore]) -> dict[str, Any]:
    """Return the scores as a metrics record: means over domains, then each figure by domain."""
    losses = [score.loss for score in scores.values()]
    return {
        "loss": sum(losses) / len(losses),
        "mean_perplexity": sum(score.perplexity for score in scores.values()) / len(scores),
        "domain_loss": {name: score.loss for name, score in scores.items()},
        "perplexity": {name: score.perplexity for name, score in scores.items()},
        "bits_per_byte": {name: s.bits_per_byte for name, s in scores.items() if s.bits_per_byte is not None},
    }


def _spread(size: int, wanted: int) -> np.ndarray:
    """Return ``wanted`` windows spread evenly over ``size``, or all of them."""
    count = min(size, wanted)
    return np.arange(count) * size // max(count, 1)


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf

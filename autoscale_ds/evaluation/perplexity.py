"""Loss by domain or target on windows fixed once for all: the same numbers for any world size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from autoscale_ds.corpus import Corpus
from autoscale_ds.evaluation.base import Evaluation, Site
from autoscale_ds.objectives import Batch, sample_sums
from autoscale_ds.stream.dataset import WindowDataset, open_windows, windows_in
from autoscale_ds.training.config import RunConfig


@dataclass(frozen=True)
class DomainScore:
    """Figures of one domain or target: nats a token, its exponential, and bits a byte where text sizes are known."""

    loss: float
    perplexity: float
    bits_per_byte: float | None


class MeasuredSet(ABC):
    """Sequences of several domains, targets or tasks whose loss is measured.

    Attributes
    ----------
    names : list of str
        Of the domains, targets or tasks.
    """

    names: list[str]

    @abstractmethod
    def batches(self, rank: int, world_size: int, micro_batch: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yield (batch, real (samples,)) of one rank; the batch's domains are places in ``names``.

        Every rank yields equally many batches of equal shapes, because under ZeRO-3 a forward pass is collective:
        samples that fill up have ``real`` false.
        """

    @abstractmethod
    def score(self, sums: list[float], counts: list[float]) -> dict[str, DomainScore]:
        """Return figures by name, without those that have no counted token.

        Parameters
        ----------
        sums, counts : list of float
            Losses summed over counted tokens, and counted tokens, in the order of ``names``.
        """


class ValidationSet(MeasuredSet):
    """Evenly spaced windows of the validation text of some domains or targets.

    Parameters
    ----------
    corpus : Corpus
        Corpus with a validation split.
    sequence_length : int
        T, tokens a window predicts.
    windows_per_domain : int
        At most this many of each; fewer where it holds fewer.
    names : sequence of str, optional
        Which domains or targets; None is every domain.

    Attributes
    ----------
    names : list of str
        Those that have windows, sorted.
    """

    def __init__(
        self, corpus: Corpus, sequence_length: int, windows_per_domain: int, names: Sequence[str] | None = None
    ) -> None:
        asked = corpus.domains if names is None else names
        sizes = {name: windows_in(corpus.tokens_of(name, "validation"), sequence_length) for name in asked}
        self.names = sorted(name for name, size in sizes.items() if size)
        self._dataset: WindowDataset = open_windows(corpus, self.names, sequence_length, "validation")
        chosen = [spread(sizes[name], windows_per_domain) for name in self.names]
        self._windows = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
        self._domains = np.repeat(np.arange(len(self.names)), [len(windows) for windows in chosen])
        self._bytes_per_token = {name: corpus.bytes_per_token(name, "validation") for name in self.names}

    def __len__(self) -> int:
        return len(self._windows)

    def batches(self, rank: int, world_size: int, micro_batch: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the batches of one rank, see ``MeasuredSet``; short ranks repeat window 0."""
        rounds = -(-len(self) // (world_size * micro_batch))
        for index in range(rounds):
            places = (index * world_size + rank) * micro_batch + np.arange(micro_batch)
            real = places < len(self)
            places = np.where(real, places, 0)
            tokens = self._dataset.read(self._domains[places], self._windows[places])
            yield Batch(tokens, torch.from_numpy(self._domains[places])), torch.from_numpy(real)

    def score(self, sums: list[float], counts: list[float]) -> dict[str, DomainScore]:
        """Return figures by name, see ``MeasuredSet``."""
        scores = {}
        for name, total, count in zip(self.names, sums, counts, strict=True):
            if not count:  # the objective counts no token of this domain's windows
                continue
            loss = total / count
            width = self._bytes_per_token[name]
            scores[name] = DomainScore(loss, perplexity(loss), loss / math.log(2) / width if width else None)
        return scores


class ValidationPerplexity(Evaluation):
    """Loss, perplexity and bits per byte by domain on the validation windows.

    Parameters
    ----------
    windows : ValidationSet
        What is measured.
    every_steps : int or None
        How often; None is only at the end.
    """

    name = "validation"
    needs = frozenset({"losses"})

    def __init__(self, windows: ValidationSet, every_steps: int | None) -> None:
        self.windows = windows
        self.every_steps = every_steps

    @classmethod
    def of_run(cls, run: RunConfig, corpus: Corpus) -> ValidationPerplexity:
        """Return the one a configuration asks for."""
        windows = ValidationSet(corpus, run.data.sequence_length, run.evaluation.windows_per_domain)
        return cls(windows, run.evaluation.every_steps)

    def is_empty(self) -> bool:
        """Return whether no domain has validation windows."""
        return not len(self.windows)

    def run(self, site: Site) -> dict[str, Any] | None:
        """Return the figures by domain; see ``Evaluation.run``."""
        scores = evaluate(site, self.windows)
        return None if scores is None else validation_figures(scores)


def evaluate(site: Site, measured: MeasuredSet) -> dict[str, DomainScore] | None:
    """Return the figures by name, the same on all ranks; None when interrupted. Collective."""
    found = totals(site, measured.batches(site.rank, site.world_size, site.engine.micro_batch), len(measured.names))
    return None if found is None else measured.score(*found.tolist())


def totals(
    site: Site, batches: Iterable[tuple[Batch, Tensor]], groups: int, *, likeliest: bool = False
) -> Tensor | None:
    """Return losses summed over counted tokens, and counted tokens, by the domain that samples name. Collective.

    Parameters
    ----------
    batches : iterable of (Batch, BoolTensor)
        This rank's, see ``MeasuredSet.batches``.
    groups : int
        Number of domains.
    likeliest : bool
        Also count the tokens that are the likeliest where they stand.

    Returns
    -------
    Tensor, shape (2, groups) or (3, groups), or None
        The same on all ranks, fp64; None when interrupted.
    """
    sums = torch.zeros(3 if likeliest else 2, groups, dtype=torch.float64, device=site.device)
    for batch, real in batches:
        if site.interrupted():
            return None
        moved = batch.to(site.device)
        found = site.engine.losses(moved, likeliest)
        if found is not None:  # exactly one of the ranks that compute the same losses counts them
            figures = [*sample_sums(found.losses, found.counted)]
            if likeliest:
                figures.append(sample_sums(found.likeliest, found.counted)[0])
            weight = real.to(site.device).double()
            for row, figure in zip(sums, figures, strict=True):
                row.index_add_(0, moved.domains, figure * weight)
    dist.all_reduce(sums)
    return sums


def validation_figures(scores: Mapping[str, DomainScore]) -> dict[str, Any]:
    """Return the scores as a metrics record: means over domains, then each figure by domain."""
    losses = [score.loss for score in scores.values()]
    count = len(losses) or math.nan
    return {
        "loss": sum(losses) / count,
        "mean_perplexity": sum(score.perplexity for score in scores.values()) / count,
        "domain_loss": {name: score.loss for name, score in scores.items()},
        "perplexity": {name: score.perplexity for name, score in scores.items()},
        "bits_per_byte": {name: s.bits_per_byte for name, s in scores.items() if s.bits_per_byte is not None},
    }


def spread(size: int, wanted: int) -> np.ndarray:
    """Return ``wanted`` numbers spread evenly over ``range(size)``, or all of them."""
    count = min(size, wanted)
    return np.arange(count) * size // max(count, 1)


def perplexity(loss: float) -> float:
    """Return e to the loss, infinity where that is no number any more."""
    return math.exp(loss) if loss < 700 else math.inf

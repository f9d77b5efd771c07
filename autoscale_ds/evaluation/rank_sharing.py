"""Data-parallel evaluation: rows divided among ranks that each have the whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from autoscale_ds.evaluation.scoring import Row, Score, Scorer


class SharedScorer:
    """A scorer whose rows are divided among data-parallel ranks; every rank gets all results. Collective.

    Parameters
    ----------
    scorer : Scorer
        This rank's model, the same on every rank.
    rank, world_size : int
        Data-parallel rank and size.
    gather : callable
        Collective; given this rank's object, returns those of all ranks in order.
    """

    def __init__(self, scorer: Scorer, rank: int, world_size: int, gather: Callable[[Any], list[Any]]) -> None:
        self._scorer = scorer
        self._rank = rank
        self._world_size = world_size
        self._gather = gather
        self.context = scorer.context

    @property
    def truncated(self) -> int:
        """Rows cut so far on all ranks. Collective."""
        return sum(self._gather(self._scorer.truncated))

    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        """Return the score of each row, see ``Scorer``; rows with the same context go to the same rank."""
        contexts = sorted({tuple(context) for context, _ in rows}, key=lambda context: (len(context), context))
        turn = {context: index % self._world_size for index, context in enumerate(contexts)}
        owners = [turn[tuple(context)] for context, _ in rows]
        mine = [row for row, owner in zip(rows, owners, strict=True) if owner == self._rank]
        return self._merged(owners, self._scorer.log_likelihoods(mine))

    def greedy(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, see ``Scorer``."""
        owners = [index % self._world_size for index in range(len(prompts))]
        mine = [prompt for prompt, owner in zip(prompts, owners, strict=True) if owner == self._rank]
        return self._merged(owners, self._scorer.greedy(mine, max_tokens, stop))

    def _merged(self, owners: Sequence[int], own: Sequence[Any]) -> list[Any]:
        """Return all ranks' results in the order of the rows."""
        waiting = [iter(results) for results in self._gather(list(own))]
        return [next(waiting[owner]) for owner in owners]

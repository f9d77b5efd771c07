"""A ``Scorer`` over the engine that trains: log-probabilities in every layout of ranks, without another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.base import Site
from autoscale_ds.evaluation.completions import Row as TokenRow
from autoscale_ds.evaluation.completions import row_batches
from autoscale_ds.evaluation.perplexity import totals
from autoscale_ds.evaluation.scoring import Row, Score


class Interrupted(Exception):
    """The run is to stop; raised on all ranks before the same batch."""


class EngineScorer:
    """See ``Scorer``. Every rank is given all rows and gets all scores; the work is divided among them. Collective.

    Parameters
    ----------
    site : Site
        The engine, and which share of the rows is this rank's.
    length : int
        Tokens of a training sequence, which is how many the model reads here at once.
    """

    def __init__(self, site: Site, length: int) -> None:
        self.context = length
        self.truncated = 0
        self._site = site

    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        """Return the score of each row, see ``Scorer``.

        Raises
        ------
        Interrupted
            When the run is to stop.
        """
        site = self._site
        fitted = [self._fit(index, *row) for index, row in enumerate(rows)]
        batches = row_batches(fitted, self.context, site.rank, site.world_size, site.engine.micro_batch)
        found = totals(site, batches, len(rows), likeliest=True)
        if found is None:
            raise Interrupted
        return [Score(-loss, likeliest == count) for loss, count, likeliest in found.T.tolist()]

    def _fit(self, index: int, context: Sequence[int], continuation: Sequence[int]) -> TokenRow:
        if len(continuation) > self.context:
            raise ConfigError(
                f"a continuation has {len(continuation):,} tokens, the run reads {self.context:,} at once; leave the "
                "task out of evaluation.tasks"
            )
        kept = context[-(self.context + 1 - len(continuation)) :]
        self.truncated += len(kept) < len(context)
        return TokenRow(np.array([*kept, *continuation]), len(kept), index)

    def greedy(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        """Refuse: tasks that generate are refused before step 0, see ``TaskScores``."""
        raise NotImplementedError

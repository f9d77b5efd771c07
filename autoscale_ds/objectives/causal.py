"""Next-token prediction."""

from __future__ import annotations

from autoscale_ds.objectives.base import Batch, Objective, Prepared


class CausalObjective(Objective):
    """Predict every token from those before it."""

    counts_all = True

    def prepare(self, batch: Batch) -> Prepared:
        """Return tokens 0 .. T-1 as inputs and 1 .. T as targets; all count that are asked for."""
        return Prepared(batch.tokens[:, :-1], batch.tokens[:, 1:], batch.counted)

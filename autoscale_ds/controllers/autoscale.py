"""Following the predicted optimum: for the whole budget from the start, or for every budget on the way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoscale_ds.controllers.base import Budget, Suggestion, View, next_knot
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.simplex import nearest_above
from autoscale_ds.search.predictor import Predictor

# Weight of a domain that has had more than its share and waits. Not zero, which turns a domain off and spreads the
# fraction of a sample it is owed over the others: after a few such turns a domain was 3.3 samples off its path. This
# keeps the fraction, and adds one sample in 10^9.
RESTING = 1e-9


class AutoScaleTarget:
    """The optimum for the whole budget, from the first step to the last.

    Parameters
    ----------
    predictor : Predictor
    budget : Budget
    source : str
        The predictor's file, for the journal.
    """

    name, key = "autoscale", "mixture.predictor"
    knots: tuple[int, ...] = ()

    def __init__(self, predictor: Predictor, budget: Budget, source: str) -> None:
        self._predictor, self._budget, self._source = predictor, budget, source

    def initial(self) -> Suggestion:
        """Return the optimum for the budget."""
        tokens = self._budget.tokens
        return Suggestion(self._predictor.predict(tokens), f"optimum for {tokens:,} tokens by {self._source}")

    def propose(self, view: View) -> None:
        """Keep it."""


class AutoScaleAnytime:
    """Samples by dN*/dt, so that the tokens seen are near the optimum for their own number at every knot.

    Between two knots the weights are constant. At a knot with t tokens the path passes through the point nearest to
    ``t * predict(t)`` that can still be reached: no domain has fewer tokens than at the knot before.

    Parameters
    ----------
    predictor : Predictor
    budget : Budget
    source : str
        The predictor's file, for the journal.
    interval_tokens : float or None
        Distance of the knots.
    """

    name, key = "autoscale", "mixture.predictor"

    def __init__(self, predictor: Predictor, budget: Budget, source: str, interval_tokens: float | None = None) -> None:
        self._predictor, self._budget, self._source = predictor, budget, source
        self.knots = budget.knots(interval_tokens)

    def initial(self) -> Suggestion:
        """Return the optimum for the first knot's tokens."""
        return self._towards(0, dict.fromkeys(self._predictor.domains, 0.0))

    def propose(self, view: View) -> Suggestion | None:
        """Return weights that lead from the tokens planned so far to the next knot's."""
        found = self._towards(view.next_step, view.planned)
        now = view.current.weights
        # Smaller changes add up and are made later, since every interval starts from the tokens planned.
        if max(abs(weight - now.get(name, 0.0)) for name, weight in found.weights.items()) <= RESTING:
            return None
        return found

    def _towards(self, step: int, planned: Mapping[str, float]) -> Suggestion:
        knot = next_knot(self.knots, step, self._budget.total_steps)
        tokens = knot * self._budget.tokens_per_step
        wanted = self._predictor.predict(tokens)
        seen = np.array([planned[name] for name in wanted])
        reached = nearest_above(tokens * np.array(list(wanted.values())), seen, tokens)
        weights = (reached - seen) / (tokens - seen.sum())
        weights = np.where((seen > 0) & (weights < RESTING), RESTING, weights)
        resting = [name for name, weight in zip(wanted, weights, strict=True) if weight == RESTING]
        reason = f"towards the optimum for {tokens:,} tokens by {self._source}"
        if resting:
            reason += f"; ahead of it and waiting: {', '.join(resting[:3])}{' …' if len(resting) > 3 else ''}"
        return Suggestion(DomainWeights.normalised(dict(zip(wanted, map(float, weights), strict=True))), reason)

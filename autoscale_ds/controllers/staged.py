"""Stages of the user's choice, with sharp or gradual transitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscale_ds.controllers.base import Budget, Suggestion, View, next_knot
from autoscale_ds.controllers.config import Transition
from autoscale_ds.mixture import DomainWeights


@dataclass(frozen=True)
class Stage:
    """Weights of steps ``start`` up to ``end``, arrived at as ``transition`` says."""

    weights: DomainWeights
    start: int
    end: int
    transition: Transition


class Staged:
    """Follows stages; where they move gradually, each interval has the weights of its middle.

    Parameters
    ----------
    stages : sequence of (DomainWeights, until_tokens, transition)
        ``until_tokens`` None is the budget.
    budget : Budget
    interval_tokens : float or None
        How often a gradual transition changes the weights.
    """

    name, key = "staged", "mixture.stages"

    def __init__(
        self,
        stages: Sequence[tuple[DomainWeights, float | None, Transition]],
        budget: Budget,
        interval_tokens: float | None = None,
    ) -> None:
        self._budget = budget
        self._stages: list[Stage] = []
        for weights, until, transition in stages:
            start = self._stages[-1].end if self._stages else 0
            end = budget.total_steps if until is None else math.ceil(until / budget.tokens_per_step)
            self._stages.append(Stage(weights, start, end, transition))
        self.knots = self._knots(budget.knots(interval_tokens).step)

    def initial(self) -> Suggestion:
        """Return the first stage's weights."""
        return Suggestion(self._stages[0].weights, f"mixture.stages: {self._describe(0)}")

    def propose(self, view: View) -> Suggestion | None:
        """Return the weights of the stage, or of the part of a transition, that begins."""
        middle = (view.next_step + next_knot(self.knots, view.next_step, self._budget.total_steps)) / 2
        index = next((i for i, stage in enumerate(self._stages) if view.next_step < stage.end), len(self._stages) - 1)
        weights = self._weights(index, middle)
        return None if weights == view.current.weights else Suggestion(weights, self._describe(index))

    def _weights(self, index: int, step: float) -> DomainWeights:
        stage = self._stages[index]
        if stage.transition == "step" or step >= stage.end:
            return stage.weights
        before = self._stages[index - 1].weights
        share = (step - stage.start) / (stage.end - stage.start)
        if stage.transition == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return DomainWeights.normalised(
            {name: before[name] + share * (w - before[name]) for name, w in stage.weights.items()}
        )

    def _knots(self, every: int) -> tuple[int, ...]:
        found: set[int] = set()
        for stage in self._stages:
            found.update([stage.start] if stage.transition == "step" else range(stage.start, stage.end, every))
            found.add(stage.end)
        return tuple(sorted(step for step in found if 0 < step < self._budget.total_steps))

    def _describe(self, index: int) -> str:
        stage = self._stages[index]
        until = f"until {stage.end * self._budget.tokens_per_step:,} tokens"
        return f"stage {index + 1} of {len(self._stages)}, {stage.transition}, {until}"

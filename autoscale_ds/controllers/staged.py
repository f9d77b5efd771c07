"""Stages of the user's choice, with sharp or gradual transitions."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

from autoscale_ds.controllers.base import (
    Budget,
    ControllerConfig,
    RunFacts,
    Stateless,
    Suggestion,
    View,
    check_interval,
    next_knot,
)
from autoscale_ds.errors import AutoScaleError, ConfigError
from autoscale_ds.mixture import DomainWeights

log = logging.getLogger(__name__)
Transition = Literal["step", "linear", "cosine"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of ``mixture.stages``."""

    weights: str | Mapping[str, float]
    """As ``mixture.weights``."""
    until_tokens: float | None = None
    """Where the stage ends, tokens; null in the last stage is the budget."""
    transition: Transition = "step"
    """``step`` has these weights throughout; ``linear`` and ``cosine`` arrive at them at the stage's end."""


@dataclass(frozen=True)
class StagedConfig(ControllerConfig):
    """Which weights until when."""

    stages: tuple[StageConfig, ...] = ()
    """At least one, in order."""
    interval_tokens: float | None = None
    """Tokens between two changes of weights in a gradual transition, at least one step; null is a hundredth of the
    budget."""

    first_weights: ClassVar[str] = "stages"

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("mixture.controller is staged, which needs mixture.stages; give it")
        check_interval(self.interval_tokens)
        self._check_ends()
        if self.stages[0].transition != "step":
            raise ConfigError(
                f"mixture.stages[0].transition is {self.stages[0].transition}, but no stage is before it to move "
                "from; use step"
            )

    def _check_ends(self) -> None:
        ends = [stage.until_tokens for stage in self.stages]
        for i, end in enumerate(ends[:-1]):
            if end is None:
                raise ConfigError(f"mixture.stages[{i}].until_tokens is null, which only the last stage may be")
        known = [0.0, *(end for end in ends if end is not None)]
        for i, (before, after) in enumerate(pairwise(known)):
            if not after > before:
                raise ConfigError(f"mixture.stages[{i}].until_tokens is {after:g}, expected more than {before:g}")


@dataclass(frozen=True)
class Stage:
    """The weights of steps ``start`` up to ``end``, and the transition that leads to them."""

    weights: DomainWeights
    start: int
    end: int
    transition: Transition


class Staged(Stateless):
    """Follows stages; in a gradual transition, each interval has the weights of its middle.

    Parameters
    ----------
    stages : sequence of (DomainWeights, until_tokens, transition)
        ``until_tokens`` None is the budget.
    budget : Budget
        The length of the run.
    interval_tokens : float or None
        How often a gradual transition changes the weights.
    """

    name = "staged"

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
            end = budget.total_steps if until is None else budget.step_after(until)
            self._stages.append(Stage(weights, start, end, transition))
        late = [number for number, stage in enumerate(self._stages, start=1) if stage.start >= budget.total_steps]
        if late:
            log.warning(
                "stage %d of %d begins after the budget of %s tokens and is never reached; lower until_tokens of the "
                "stage before",
                late[0],
                len(self._stages),
                f"{budget.tokens:,}",
            )
        self.knots = self._knots(budget.every(interval_tokens))

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
        steps: set[int] = set()
        for stage in self._stages:
            steps.update([stage.start] if stage.transition == "step" else range(stage.start, stage.end, every))
            steps.add(stage.end)
        return tuple(sorted(step for step in steps if 0 < step < self._budget.total_steps))

    def _describe(self, index: int) -> str:
        stage = self._stages[index]
        until = f"until {self._budget.tokens_at(stage.end):,} tokens"
        return f"stage {index + 1} of {len(self._stages)}, {stage.transition}, {until}"


def build_staged(config: StagedConfig, run: RunFacts) -> Staged:
    """Return the controller of ``mixture.stages``; raises ConfigError for a stage whose weights do not fit."""
    stages = []
    for i, stage in enumerate(config.stages):
        try:
            stages.append((run.read_weights(stage.weights), stage.until_tokens, stage.transition))
        except AutoScaleError as error:
            raise ConfigError(f"mixture.stages[{i}].weights: {error}") from None
    return Staged(stages, run.budget, config.interval_tokens)

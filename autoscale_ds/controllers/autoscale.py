"""Following the predicted optimum: for the whole budget from the start, or for every budget on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from autoscale_ds.controllers.base import (
    Budget,
    Controller,
    ControllerConfig,
    RunFacts,
    Stateless,
    Suggestion,
    View,
    check_interval,
    next_knot,
)
from autoscale_ds.controllers.refit import RefitConfig, build_refit
from autoscale_ds.errors import AutoScaleError, ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.simplex import nearest_above
from autoscale_ds.search.predictor import LawOptimum, Predictor, read_predictor

# Weight of a domain that was read more than the optimum asks for and must wait. Not zero, because the planner turns a
# domain of weight zero off and spreads the fraction of a sample it is owed over the others: after a few such turns a
# domain was 3.3 samples off its path. This keeps the fraction, and adds one sample in 10^9.
RESTING = 1e-9


@dataclass(frozen=True)
class AutoScaleConfig(ControllerConfig):
    """Which predictor to follow, and whether to fit its law again on the way."""

    predictor: str
    """autoscale.json, law.json or weights.json of ``tools/fit_mixture.py``."""
    floor: float = 0.0
    """Smallest weight of a domain in the optimum of a law.json; the other predictors hold floors of their own."""
    mode: Literal["target", "anytime"] = "target"
    """``target``: the optimum for the whole budget from the first step. ``anytime``: the tokens seen so far are near
    the optimum at every moment, so that every checkpoint is near the best for its own budget."""
    interval_tokens: float | None = None
    """Tokens between two changes of weights, at least one step; null is a hundredth of the budget."""
    refit: RefitConfig | None = None
    """null follows the predictor's law as it is."""

    first_weights: ClassVar[str] = "predictor"

    def __post_init__(self) -> None:
        check_interval(self.interval_tokens)
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"mixture.floor is {self.floor:g}, expected between 0 and 1")
        if self.refit is not None and self.mode != "target":
            raise ConfigError("mixture.refit is given; it needs mixture.controller=autoscale and mixture.mode=target")

    def check_run(self, schedule: str, evaluation_steps: int | None) -> None:
        """Raise ConfigError when a refit could not learn from this run's validation losses."""
        if self.refit is not None:
            self.refit.check_run(schedule, evaluation_steps)


class AutoScaleTarget(Stateless):
    """The optimum for the whole budget, from the first step to the last.

    Parameters
    ----------
    predictor : Predictor
        From a training budget to optimal weights.
    budget : Budget
        The length of the run.
    source : str
        The predictor's file, for the journal.
    """

    name = "autoscale"
    knots: tuple[int, ...] = ()

    def __init__(self, predictor: Predictor, budget: Budget, source: str) -> None:
        self._predictor = predictor
        self._budget = budget
        self._source = source

    def initial(self) -> Suggestion:
        """Return the optimum for the budget."""
        tokens = self._budget.tokens
        return Suggestion(self._predictor.predict(tokens), f"optimum for {tokens:,} tokens by {self._source}")

    def propose(self, view: View) -> None:
        """Keep it."""

    def budget_changed(self, view: View) -> Suggestion:
        """Return weights for the rest, by which the whole run comes nearest to the optimum for its new budget."""
        tokens = self._budget.tokens
        wanted = self._predictor.predict(tokens)
        seen = np.array([view.planned.get(name, 0.0) for name in wanted])
        reached = nearest_above(tokens * np.array(list(wanted.values())), seen, tokens)
        rest = dict(zip(wanted, map(float, np.maximum(reached - seen, 0.0)), strict=True))
        reason = f"the rest of the optimum for {tokens:,} tokens by {self._source}"
        return Suggestion(DomainWeights.normalised(rest), reason)


class AutoScaleAnytime(Stateless):
    """Samples by dN*/dt, so that the tokens seen are near the optimum for their own number at every knot.

    Between two knots the weights are constant. At a knot with t tokens the path passes through the point nearest to
    ``t * predict(t)`` that can still be reached: no domain has fewer tokens than at the knot before.

    Parameters
    ----------
    predictor : Predictor
        From a training budget to optimal weights.
    budget : Budget
        The length of the run.
    source : str
        The predictor's file, for the journal.
    interval_tokens : float or None
        Tokens between two knots; None is a hundredth of the budget.
    """

    name = "autoscale"

    def __init__(self, predictor: Predictor, budget: Budget, source: str, interval_tokens: float | None = None) -> None:
        self._predictor = predictor
        self._budget = budget
        self._source = source
        self.knots = budget.knots(interval_tokens)

    def initial(self) -> Suggestion:
        """Return the optimum for the first knot's tokens."""
        return self._towards(0, dict.fromkeys(self._predictor.domains, 0.0))

    def propose(self, view: View) -> Suggestion | None:
        """Return weights that lead from the tokens planned so far to the next knot's."""
        suggestion = self._towards(view.next_step, view.planned)
        now = view.current.weights
        # Smaller changes add up and are made later, since every interval starts from the tokens planned.
        if max(abs(weight - now.get(name, 0.0)) for name, weight in suggestion.weights.items()) <= RESTING:
            return None
        return suggestion

    def _towards(self, step: int, planned: Mapping[str, float]) -> Suggestion:
        knot = next_knot(self.knots, step, self._budget.total_steps)
        tokens = self._budget.tokens_at(knot)
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


def build_autoscale(config: AutoScaleConfig, run: RunFacts) -> Controller:
    """Return the controller that follows ``mixture.predictor``.

    Raises
    ------
    ConfigError, MixtureError
        For a predictor or run tables that do not fit the corpus.
    """
    predictor = read_predictor(
        run.own_copy(config.predictor),
        budget_tokens=run.budget.tokens,
        parameters=run.parameters,
        floor=config.floor,
        limits=run.limits,
        unique=run.unique,
    )
    _check_predictor(predictor, config, run)
    source = Path(config.predictor).name
    if config.mode == "anytime":
        return AutoScaleAnytime(predictor, run.budget, source, config.interval_tokens)
    target = AutoScaleTarget(predictor, run.budget, source)
    return target if config.refit is None else build_refit(config.refit, run, target, predictor, source)


def _check_predictor(predictor: Predictor, config: AutoScaleConfig, run: RunFacts) -> None:
    """Raise ConfigError for a predictor of other domains, or if no mixture is within its bounds."""
    budget = run.budget
    try:
        run.read_weights(DomainWeights.uniform(list(predictor.domains)))
    except AutoScaleError as error:
        raise ConfigError(
            f"mixture.predictor {config.predictor} is for other domains than the corpus: {error}"
        ) from None
    if isinstance(predictor, LawOptimum):
        try:
            predictor.bounds(budget.tokens)
        except AutoScaleError as error:
            raise ConfigError(
                f"data.max_epochs and mixture.floor leave no mixture for {budget.tokens:,} tokens: {error}"
            ) from None
    elif config.floor > 0:
        raise ConfigError(
            f"mixture.floor is {config.floor:g}, but mixture.predictor {config.predictor} is no law.json and holds a "
            "floor of its own; leave mixture.floor out, and give --floor when you make that file"
        )

"""Fitting the predictor's law again while the run goes on, to more runs and to the run itself."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoscale_ds.controllers.base import Budget, Controller, RunFacts, Stateless, Suggestion, View
from autoscale_ds.errors import ConfigError, MixtureError
from autoscale_ds.laws import LossModel, registry
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, Objective, RunTable
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.simplex import Bounds, nearest_above
from autoscale_ds.search.predictor import LawOptimum, Predictor
from autoscale_ds.search.solver import Goal, minimum
from autoscale_ds.search.uncertainty import ends_of_90
from autoscale_ds.stream.journal import Event

log = logging.getLogger(__name__)
# Members of the law's ensemble; half of what a fit for people draws, since only the 5 % point of one number is read.
DRAWS = 24
# A proposal that would move less than this share of the weights is not worth an event.
LEAST_DISTANCE = 1e-3


@dataclass(frozen=True)
class RefitConfig:
    """Fitting the predictor's law again, to more runs and to this one."""

    runs: tuple[str, ...]
    """Run tables; only rows of a constant learning rate are used (column ``phase``)."""
    every_tokens: float
    """Tokens between two fits."""
    max_distance: float = 0.1
    """Weight that one proposal moves at most, as a share of the whole (half the L1 distance)."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("mixture.refit.runs is empty; name at least one run table")
        if not self.every_tokens > 0:
            raise ConfigError(f"mixture.refit.every_tokens is {self.every_tokens:g}, expected more than 0")
        if not 0 < self.max_distance <= 1:
            raise ConfigError(f"mixture.refit.max_distance is {self.max_distance:g}, expected more than 0, at most 1")

    def check_run(self, schedule: str, evaluation_steps: int | None) -> None:
        """Raise ConfigError unless the run validates, at a learning rate that is constant for a while."""
        if schedule != "constant_with_cooldown":
            raise ConfigError(
                f"mixture.refit is given and schedule.kind is {schedule}: losses in mid-schedule lie above "
                "those of finished runs and would be blamed on the mixture; set schedule.kind=constant_with_cooldown"
            )
        if evaluation_steps is None:
            raise ConfigError("mixture.refit learns from validation losses; give evaluation.every_steps")


@dataclass(frozen=True)
class Evidence:
    """What a law is fitted to.

    Attributes
    ----------
    runs : RunTable
        Rows of a constant learning rate.
    law : str
        Name of the law in ``laws.registry``.
    parameters : float
        Parameters of this run's model, NaN if the table gives none for its runs.
    constant_tokens : (float, float)
        Between these numbers of tokens this run's learning rate is constant. Only validation losses from there are
        used: in mid-schedule, losses are above those of finished runs, and the fit would blame the mixture for it.
    unique : mapping of str to float, optional
        Tokens of text that this run can draw from each domain.
    """

    runs: RunTable
    law: str
    parameters: float
    constant_tokens: tuple[float, float]
    unique: Mapping[str, float] | None = None

    def with_own(self, view: View) -> RunTable | None:
        """Return the table with this run's validation losses as rows; None as long as there are none."""
        # No run of the table is shorter than this, so the law was never fitted to losses so early in training.
        first, last = max(self.constant_tokens[0], float(self.runs.tokens.min())), self.constant_tokens[1]
        records = [record for record in view.validation() if first <= record["tokens"] <= last]
        return self._joined(records, view) if records else None

    def _joined(self, records: Sequence[Mapping[str, Any]], view: View) -> RunTable:
        table = self.runs
        shares = [
            shares_until(view.events, view.budget.step_after(record["tokens"]), view.budget) for record in records
        ]
        measured = [{**record["domain_loss"], **record.get("target_loss", {})} for record in records]
        losses = [[_number(each.get(name)) for name in table.targets] for each in measured]
        weights = [[share.get(name, 0.0) for name in table.domains] for share in shares]
        unique = None
        if table.unique is not None and self.unique is not None:
            own = [float(self.unique[name]) for name in table.domains]
            unique = np.vstack([table.unique, np.tile(own, (len(records), 1))])
        return replace(
            table,
            runs=(*table.runs, *(f"this run at {record['tokens']:,} tokens" for record in records)),
            weights=np.vstack([table.weights, weights]),
            tokens=np.append(table.tokens, [float(record["tokens"]) for record in records]),
            parameters=np.append(table.parameters, np.full(len(records), self.parameters)),
            losses=np.vstack([table.losses, losses]),
            unique=unique,
        )


class Refit(Stateless):
    """Starts with another controller's weights and changes them when a law that was fitted again predicts a gain.

    At every knot the law is fitted to the run table and to this run so far. The tokens of the budget's optimum that
    are still missing give the weights of the rest. They are proposed, by a bounded distance at a time, when the 5 %
    point of the gain they bring at the end of the budget is above zero.

    Parameters
    ----------
    start : Controller
        Its first weights are those of step 0.
    evidence : Evidence
        What the law is fitted to, besides this run.
    budget : Budget
        The length of the run.
    every_tokens : float
        Tokens between two fits.
    max_distance : float
        Half the L1 distance one proposal may move.
    bounds : Bounds, optional
        Of the optimum for the budget; None is without.
    """

    name = "autoscale"

    def __init__(
        self,
        start: Controller,
        evidence: Evidence,
        budget: Budget,
        every_tokens: float,
        max_distance: float,
        bounds: Bounds | None = None,
    ) -> None:
        self._bounds = bounds
        self._start = start
        self._evidence = evidence
        self._max_distance = max_distance
        self.knots = budget.knots(every_tokens)

    def initial(self) -> Suggestion:
        """Return the weights to start with."""
        return self._start.initial()

    def propose(self, view: View) -> Suggestion | None:
        """Fit again and return better weights for the rest, or None; deterministic."""
        table = self._evidence.with_own(view)
        if table is None:
            return None
        began = time.perf_counter()
        try:
            law = fit_law(table, self._evidence.law, draws=DRAWS)
            if law.needs_unique and self._evidence.unique is not None:
                law = law.with_unique(self._evidence.unique)
            verdict = self._judge(view, law)
        except (ValueError, ArithmeticError) as error:  # numerical trouble in a fit must not end a training run
            raise MixtureError(f"the law cannot be fitted at {view.tokens:,} tokens: {error}") from None
        what = f"refit at {view.tokens:,} tokens with {len(table)} rows"
        log.info("%s took %.1f s", what, time.perf_counter() - began)
        if isinstance(verdict, str):
            log.info("no change of weights: %s", verdict)
            return None
        return replace(verdict, reason=f"{what}: {verdict.reason}")

    def _judge(self, view: View, law: LossModel) -> Suggestion | str:
        """Return better weights for the rest of the run, or why there are none."""
        end = Ending(law, view, self._evidence.parameters, self._bounds)
        now = np.array([view.current.weights.get(name, 0.0) for name in law.domains])
        aim = end.weights_towards_optimum()
        distance = float(np.abs(aim - now).sum() / 2)
        if distance < LEAST_DISTANCE:
            return f"the optimum is {distance:.4f} away"
        moved = min(distance, self._max_distance)
        proposed = now + (moved / distance) * (aim - now)
        gain, low, high = end.gain(now, proposed)
        said = f"predicted gain {gain:.3g} nats (90 % {low:.3g} to {high:.3g})"
        if not low > 0:
            return f"{said} for moving {moved:.2f} of {distance:.2f}"
        weights = DomainWeights.normalised(dict(zip(law.domains, map(float, np.maximum(proposed, 0.0)), strict=True)))
        return Suggestion(weights, f"{said}; moved {moved:.2f} of {distance:.2f}")


def build_refit(config: RefitConfig, run: RunFacts, start: Controller, predictor: Predictor, source: str) -> Refit:
    """Return the controller of ``mixture.refit``.

    Parameters
    ----------
    config : RefitConfig
        The section.
    run : RunFacts
        The run it is for.
    start : Controller
        Its first weights are those of step 0.
    predictor : Predictor
        What ``mixture.predictor`` holds; it must be the optimum of a law.
    source : str
        The predictor's file, for messages.

    Raises
    ------
    ConfigError, MixtureError
        For a predictor without a law, or run tables that do not fit it.
    """
    if not isinstance(predictor, LawOptimum) or predictor.model.law not in registry.NAMES:
        raise ConfigError(
            f"mixture.refit needs the law.json of one law as mixture.predictor, and {source} is none; make one with "
            "fit_mixture.py fit --law NAME"
        )
    evidence = _evidence(config, predictor.model, source, run)
    bounds = predictor.bounds(run.budget.tokens)
    return Refit(start, evidence, run.budget, config.every_tokens, config.max_distance, bounds)


def _evidence(config: RefitConfig, law: LossModel, source: str, run: RunFacts) -> Evidence:
    tables = [run.own_copy(path) for path in config.runs]
    runs = RunTable.read(tables, phase="constant").with_domains(law.domains).with_targets(list(law.targets))
    if not set(runs.targets) & set(law.domains):
        raise ConfigError(f"mixture.refit needs targets this run measures, its domains; {source} has none of them")
    parameters = math.nan if np.isnan(runs.parameters).all() else run.parameters
    return Evidence(runs, law.law, parameters, run.constant_tokens, run.unique)


class Ending:
    """The losses at the end of the budget as a function of the weights of the tokens that are left.

    Parameters
    ----------
    law : LossModel
        Predicts the losses at the end of the budget.
    view : View
        The run so far.
    parameters : float
        Parameters of the run's model, for laws that depend on it.
    bounds : Bounds, optional
        Of the optimum; None is without.
    """

    def __init__(self, law: LossModel, view: View, parameters: float, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds.of(law.domains)
        self._law = law
        self._total = float(view.budget.tokens)
        self._left = float(view.budget.tokens - view.tokens)
        self._seen = np.array([view.planned.get(name, 0.0) for name in law.domains])
        self._goal = Goal(law, Objective.of_kind("mean-loss", tuple(law.targets)), self._total, parameters)

    def weights_towards_optimum(self) -> Array:
        """Return the weights (m,) of the rest that end nearest to the law's optimum for the budget."""
        best = minimum(self._goal, self._bounds)
        wanted = self._total * np.array(list(best.values()))
        return np.asarray((nearest_above(wanted, self._seen, self._total) - self._seen) / self._left)

    def gain(self, now: Array, proposed: Array) -> tuple[float, float, float]:
        """Return how much lower the objective ends with ``proposed``: expected, and the ends of its 90 % interval."""
        ends = (self._seen + self._left * np.stack([now, proposed])) / self._total
        goals = [self._goal, *(replace(self._goal, model=member) for member in self._law.members())]
        gains = [float(-np.diff(goal.value(ends))[0]) for goal in goals]
        low, high = ends_of_90(np.array(gains))
        return gains[0], float(low), float(high)


def shares_until(events: Sequence[Event], step: int, budget: Budget) -> dict[str, float]:
    """Return each domain's share of the tokens before ``step``, by the journal: within a sample of what was read."""
    ends = [*(event.effective_step for event in events[1:]), step]
    whole = budget.tokens_at(step)
    shares: dict[str, float] = {}
    for event, end in zip(events, ends, strict=True):
        tokens = budget.tokens_at(min(end, step)) - budget.tokens_at(min(event.effective_step, step))
        for name, weight in event.weights.items():
            shares[name] = shares.get(name, 0.0) + weight * tokens / whole
    return shares


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

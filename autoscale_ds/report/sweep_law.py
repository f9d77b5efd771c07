"""The law of a sweep: its ``law.json`` or the best on held-out runs, and its optimum at any scale."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import LossModel, selection
from autoscale_ds.laws.stability import stability
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.mixture.repeats import averaged
from autoscale_ds.report.sweep_analysis import OBJECTIVE, floor_of
from autoscale_ds.report.sweep_reading import Scale, Sweep
from autoscale_ds.search.decision import Belief, Decision, decide
from autoscale_ds.search.solver import Goal, Optimum, optimize, seen_bounds

log = logging.getLogger(__name__)
# A page shows intervals to two digits; fit_mixture.py draws four times as many.
LAW_DRAWS = 12


@dataclass(frozen=True)
class LawFit:
    """A law, its source, and its optimum at each scale where one could be computed.

    Attributes
    ----------
    model : LossModel or None
        The law; None where none could be fitted.
    origin : str
        ``law.json``, or that it was fitted for this page, or why there is none.
    optima : mapping of Scale to Optimum
        Best mixture at each scale.
    warnings : tuple of str
        What a user of the optimum at the target should know.
    decision : Decision or None
        Whether to train the law's mixture at the target, or at the largest scale; None where that is not known.
    undecided : str
        Why there is no decision.
    """

    model: LossModel | None
    origin: str
    optima: Mapping[Scale, Optimum]
    warnings: tuple[str, ...] = ()
    decision: Decision | None = None
    undecided: str = ""


def fit_law(sweep: Sweep, against: DomainWeights, *, draws: int = LAW_DRAWS) -> LawFit:
    """Return the law of a sweep with its optima at every scale and at the target, and a decision there.

    Parameters
    ----------
    against : DomainWeights
        What would be trained otherwise.
    """
    model, origin = _model(sweep, draws)
    if model is None:
        return LawFit(None, origin, {}, undecided=origin)
    scales = [*sweep.scales, *([sweep.target] if sweep.target else [])]
    optima: dict[Scale, Optimum] = {}
    warnings: tuple[str, ...] = ()
    for scale in scales:
        try:
            optima[scale] = _optimum(_asked_at(scale, model, sweep), scale)
        except MixtureError as error:
            warnings = (*warnings, f"at {scale.name()}: {error}")
    if sweep.target in optima:
        weights = optima[sweep.target].weights
        warnings = (
            *warnings,
            *_asked_at(sweep.target, model, sweep).warnings(
                weights, sweep.target.tokens, sweep.target.parameters or None, optimum=True
            ),
        )
    found, reason = _decision(_asked_at(scales[-1], model, sweep), scales[-1], against)
    return LawFit(model, origin, optima, warnings, found, reason)


def rank_stability(sweep: Sweep) -> tuple[dict[str, Any] | None, str]:
    """Return how the ranking of mixtures agrees between scales, or why that is not known."""
    # A perturbation has its own token count; here it belongs to the scale of its base.
    tokens = [np.full(len(design.rows), design.scale.tokens) for design in sweep.designs]
    try:
        return stability(replace(sweep.runs(), tokens=np.concatenate(tokens))), ""
    except MixtureError as error:
        return None, str(error)


def _model(sweep: Sweep, draws: int) -> tuple[LossModel | None, str]:
    if sweep.law is not None:
        if set(sweep.law.domains) == set(sweep.domains):
            return sweep.law, "law.json beside the sweep"
        return None, "law.json beside the sweep is of other domains; fit it again"
    log.info("comparing laws on %d designs, which takes some seconds …", len(sweep.designs))
    table = averaged(sweep.runs())
    try:
        model = selection.fit(table, draws=draws)
    except MixtureError as error:
        return None, str(error)
    return model, "fitted for this page to means over seeds"


def _asked_at(scale: Scale, model: LossModel, sweep: Sweep) -> LossModel:
    """Return the model for runs of a scale: with the text they draw from, where it counts how often that is read."""
    unique = sweep.unique_tokens(scale) if model.needs_unique else None
    return model if unique is None else model.with_unique(unique)


def _optimum(model: LossModel, scale: Scale) -> Optimum:
    return optimize(_goal(model, scale), seen_bounds(model, floor_of(model.domains)))


def _decision(model: LossModel, scale: Scale, against: DomainWeights) -> tuple[Decision | None, str]:
    try:
        bounds = seen_bounds(model, floor_of(model.domains))
        return decide(Belief((_goal(model, scale),)), against, bounds), ""
    except MixtureError as error:
        return None, str(error)


def _goal(model: LossModel, scale: Scale) -> Goal:
    objective = Objective.of_kind(OBJECTIVE, tuple(model.targets))
    return Goal(model, objective, scale.tokens, scale.parameters or math.nan)

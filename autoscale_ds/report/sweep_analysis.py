"""Analysis of a sweep: noise and effects at each scale, DDO curves and optima with intervals, the AutoScale path.

Runs of one seed share initial weights and data order, so an effect is the mean over seeds of the difference from the
base run of the same seed, and its spread is that of the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student_t

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DomainWeights, Objective, WeightsFile
from autoscale_ds.report.sweep_reading import Design, Scale, Sweep
from autoscale_ds.search import AutoScale
from autoscale_ds.search.ddo import Curve
from autoscale_ds.search.ddo_sweep import DDOSweep
from autoscale_ds.search.uncertainty import Intervals, Prediction, intervals, path_draws

# Everything on the page is about the mean loss: effects, curves, optima and laws can be compared.
OBJECTIVE = "mean-loss"
# A page shows intervals to two digits; fit_mixture.py draws more than twice as many.
DRAWS = 80


@dataclass(frozen=True)
class Effect:
    """What changing one domain's tokens does to the mean loss.

    Attributes
    ----------
    domain : str
        Domain whose tokens were changed.
    factor : float
        Multiple of the base run's tokens of the domain.
    change : float
        Mean loss minus the base's, nats per token.
    error, half : float or None
        Its standard error, and half the width of its 90 % interval; None where no run was repeated.
    ratio : float or None
        Signal to noise: the size of the change in standard errors.
    count : int
        Seeds behind it.
    """

    domain: str
    factor: float
    change: float
    error: float | None
    half: float | None
    ratio: float | None
    count: int


@dataclass(frozen=True)
class ScaleFit:
    """One scale: its base, its noise, effects, and the curves through them.

    Attributes
    ----------
    scale : Scale
        Budget and size of the base.
    base : Design
        The unperturbed mixture, with all its seeds.
    noise : float or None
        Standard deviation of the mean loss over seeds of the base, nats per token.
    effects : sequence of Effect
        Empty where the scale has no perturbations.
    curves : mapping of str to Curve
        ``y(x)`` in multiples of the base's mean loss; a domain whose loss does not fall has none.
    bands : mapping of str to list of Curve
        Refits with noise drawn anew.
    optimum : DomainWeights or None
        Best weights at this scale; None where no curve could be fitted.
    intervals : mapping of str to (low, high)
        90 % interval of each optimal weight; empty without repeats.
    note : str
        Why there is no optimum.
    """

    scale: Scale
    base: Design
    noise: float | None
    effects: Sequence[Effect]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    bands: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    optimum: DomainWeights | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    note: str = ""


def floor_of(domains: Sequence[str]) -> float:
    """Return the least weight of a domain: a tenth of its uniform share, as paths need every domain's ratio."""
    return 0.1 / len(domains)


def fit_scale(sweep: Sweep, scale: Scale, *, draws: int = DRAWS) -> ScaleFit | None:
    """Return noise, effects, curves and optimum of one scale; None where it has no base run."""
    bases = [design for design in sweep.at(scale) if design.is_base]
    if not bases:
        return None
    base = bases[0]
    noise = float(np.std(base.values, ddof=1)) if len(base.values) > 1 else None
    try:
        ddo = DDOSweep.of(sweep.runs(scale), base.name, Objective.of_kind(OBJECTIVE, sweep.targets))
    except MixtureError as error:
        return ScaleFit(scale, base, noise, (), note=str(error))
    effects = _effects(ddo)
    if not effects:
        return ScaleFit(scale, base, noise, effects, note="It has no run with one domain's tokens changed.")
    try:
        redrawn = ddo.redrawn(draws=draws)
        optimum, ranges = ddo.optimum(redrawn, floor=floor_of(sweep.domains))
    except MixtureError as error:
        return ScaleFit(scale, base, noise, effects, ddo.curves(), note=f"No optimum: {error}.")
    curves = ddo.fitted.curves
    bands = {name: [each.curves[name] for each in redrawn] for name in curves}
    return ScaleFit(scale, base, noise, effects, curves, bands, optimum, ranges)


@dataclass(frozen=True)
class PathFit:
    """The AutoScale path through the optima of the scales.

    Attributes
    ----------
    path : AutoScale or None
        The fitted path; None where it could not be fitted.
    draws : sequence of callables
        Paths through optima drawn from their intervals; empty where these are not known.
    note : str
        Why there is no path.
    """

    path: AutoScale | None
    draws: Sequence[Prediction] = ()
    note: str = ""

    def predict(self, tokens: float) -> tuple[DomainWeights, Intervals] | None:
        """Return the weights at a budget and their 90 % intervals; None where the path has no such budget."""
        if self.path is None:
            return None
        try:
            weights = self.path.predict(tokens)
        except MixtureError:
            return None
        return weights, intervals([draw(tokens) for draw in self.draws], weights)


def fit_path(fits: Sequence[ScaleFit], floor: float) -> PathFit:
    """Return the AutoScale path through the optima, or why there is none."""
    known = [(fit.scale.tokens, fit.optimum, fit.intervals) for fit in fits if fit.optimum is not None]
    try:
        path = AutoScale.fit([(tokens, optimum) for tokens, optimum, _ in known], floor=floor)
    except MixtureError as error:
        return PathFit(None, note=str(error))
    files = [(tokens, WeightsFile(optimum, intervals=ranges)) for tokens, optimum, ranges in known]
    return PathFit(path, path_draws(files, floor=floor, draws=DRAWS))


def _effects(ddo: DDOSweep) -> list[Effect]:
    """Return the effect of every perturbation of a base, by domain and factor."""
    freedom = sum(effect.seeds - 1 for effect in ddo.effects)
    effects = []
    for each in ddo.effects:
        error = each.standard_error if freedom else None
        half = error * float(student_t.ppf(0.95, freedom)) if error else None
        ratio = each.ratio if error else None
        effects.append(Effect(*ddo.changed[each.design], each.difference, error, half, ratio, each.seeds))
    return sorted(effects, key=lambda effect: (effect.domain, effect.factor))

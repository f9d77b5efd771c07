"""What a sweep tells: noise and effects at each scale, DDO curves and optima with intervals, the AutoScale path.

Runs of one seed share initial weights and data order, so an effect is the mean over seeds of the difference from the
base run of the same seed, and its spread is that of the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DDO, AutoScale, DomainWeights, Objective, repeats
from autoscale_ds.mixture.ddo import Curve, fit_curve, perturbations
from autoscale_ds.mixture.repeats import averaged
from autoscale_ds.report.sweep_reading import Design, Scale, Sweep

Array = npt.NDArray[np.float64]
# Refits of all curves behind the intervals: 40 give their ends within about a tenth of their width.
DRAWS = 40


@dataclass(frozen=True)
class Effect:
    """What changing one domain's tokens does to the mean loss.

    Attributes
    ----------
    domain : str
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
    base : Design
    noise : float or None
        Standard deviation of the mean loss over seeds of the base, nats per token.
    effects : sequence of Effect
        Empty where the scale has no perturbations.
    curves : mapping of str to Curve
        ``y(x)`` in multiples of the base's mean loss; a domain whose loss does not fall has none.
    bands : mapping of str to list of Curve
        Refits with noise drawn anew.
    optimum : DomainWeights or None
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
    """Return what one scale tells; None where it has no base run."""
    bases = [design for design in sweep.at(scale) if design.is_base]
    if not bases:
        return None
    base = bases[0]
    noise = float(np.std(base.values, ddof=1)) if len(base.values) > 1 else None
    try:
        effects = _effects(sweep, base)
    except MixtureError as error:
        return ScaleFit(scale, base, noise, (), note=str(error))
    if not effects:
        return ScaleFit(scale, base, noise, effects, note="It has no run with one domain's tokens changed.")
    points, unit = _points(base, effects), float(base.values.mean())
    curves, failed = _curves(points, unit)
    missing = [name for name in sweep.domains if name not in points]
    failed = failed or (f"{missing[0]} has no run with its tokens changed" if missing else "")
    if failed:
        return ScaleFit(scale, base, noise, effects, curves, note=f"No optimum: {failed}.")
    weights = DomainWeights.normalised(dict(zip(sweep.domains, map(float, base.weights), strict=True)))
    floor = floor_of(sweep.domains)
    optimum = DDO(weights, base.tokens, curves).optimum(floor=floor)
    redrawn = _redrawn(points, unit, draws)
    intervals = _intervals([DDO(weights, base.tokens, each).optimum(floor=floor) for each in redrawn], optimum)
    bands = {name: [each[name] for each in redrawn] for name in curves}
    return ScaleFit(scale, base, noise, effects, curves, bands, optimum, intervals)


def autoscale_path(fits: Sequence[ScaleFit], floor: float) -> tuple[AutoScale | None, str]:
    """Return the AutoScale path through the optima, or why there is none."""
    optima = [(fit.scale.tokens, fit.optimum) for fit in fits if fit.optimum is not None]
    try:
        return AutoScale.fit(optima, floor=floor), ""
    except MixtureError as error:
        return None, str(error)


def _effects(sweep: Sweep, base: Design) -> list[Effect]:
    """Return the effect of every perturbation of a base, by domain and factor."""
    table = sweep.runs(base.scale)
    means = averaged(table)
    changed = {means.runs[row]: (domain, factor) for row, domain, factor in perturbations(means, base.name)}
    objective = Objective.of_kind("mean-loss", sweep.targets)
    found = repeats.effects(table, base.name, objective, list(changed)) if changed else []
    freedom = sum(effect.seeds - 1 for effect in found)
    effects = []
    for each in found:
        error = each.standard_error if freedom else None
        half = error * float(student_t.ppf(0.95, freedom)) if error else None
        ratio = each.ratio if error else None
        effects.append(Effect(*changed[each.design], each.difference, error, half, ratio, each.seeds))
    return sorted(effects, key=lambda effect: (effect.domain, effect.factor))


# (factor, mean loss, standard error) of each run along a domain; effects are against the base, which has no error.
Points = Mapping[str, Sequence[tuple[float, float, float]]]


def _points(base: Design, effects: Sequence[Effect]) -> Points:
    centre = float(base.values.mean())
    points: dict[str, list[tuple[float, float, float]]] = {}
    for effect in effects:
        runs = points.setdefault(effect.domain, [(1.0, centre, 0.0)])
        runs.append((effect.factor, centre + effect.change, effect.error or 0.0))
    return points


def _curves(points: Points, unit: float) -> tuple[dict[str, Curve], str]:
    """Return the curve of each domain, in units of the base's loss, and why others have none."""
    curves, failed = {}, []
    for name, runs in points.items():
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # the search may try absurd curves; they lose
                curves[name] = fit_curve([x for x, *_ in runs], [y / unit for _, y, _ in runs])
        except MixtureError as error:
            failed.append(f"{name}: {error}")
    return curves, "; ".join(failed)


def _redrawn(points: Points, unit: float, draws: int) -> list[dict[str, Curve]]:
    """Return refits with the noise of the points drawn anew; those that fail are left out, all without noise."""
    rng = np.random.default_rng(len(points))
    known = any(error > 0 for runs in points.values() for *_, error in runs)
    found = []
    for _ in range(draws if known else 0):
        moved = {name: [(x, y + e * rng.normal(), e) for x, y, e in runs] for name, runs in points.items()}
        curves, failed = _curves(moved, unit)
        if not failed:
            found.append(curves)
    return found


def _intervals(drawn: Sequence[DomainWeights], optimum: DomainWeights) -> dict[str, tuple[float, float]]:
    """Return the 5 % and 95 % points of each weight; nothing when most refits failed."""
    if len(drawn) < DRAWS // 4:
        return {}
    rows = np.array([[weights[name] for name in optimum] for weights in drawn])
    ends = np.quantile(rows, [0.05, 0.95], axis=0, method="weibull")
    return {n: (min(float(a), w), max(float(b), w)) for (n, w), a, b in zip(optimum.items(), *ends, strict=True)}

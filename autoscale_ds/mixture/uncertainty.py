"""How sure the weights of DDO and AutoScale are, from the noise between seeds.

Three points leave a curve of three parameters no error of its own; repeated runs do. Every perturbation's value is
drawn anew with its measured noise, the curves are fitted and solved again, and the spread of the optima is the
interval. What the form of the curve gets wrong is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.autoscale import AutoScale
from autoscale_ds.mixture.ddo import DDO, Curve, fit_curve, perturbations
from autoscale_ds.mixture.model import GAUSSIAN_90
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.repeats import Effect, averaged, design_of
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile

Array = npt.NDArray[np.float64]
Intervals = dict[str, tuple[float, float]]
# 200 draws give the ends of a 90 % interval within about a tenth of its width.
DRAWS = 200
# A curve that hardly falls: the allocation leaves its domain on the floor.
FLAT = Curve(a=1.0, b=1e-9, c=0.0)


def ddo_draws(
    fitted: DDO,
    table: RunTable,
    base: str,
    objective: Objective,
    found: Sequence[Effect],
    *,
    floor: float = 0.0,
    caps: Mapping[str, float] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[DomainWeights]:
    """Return optima of tables as they might have come out with other seeds.

    Parameters
    ----------
    fitted : DDO
        Fit of the averaged table.
    table : RunTable
        Runs with their seeds.
    found : sequence of Effect
        Effects of the perturbations around ``base`` with known standard errors.

    Notes
    -----
    All effects are differences from one base, whose noise they share: half of each variance is drawn once for all.
    The level of the base itself, the unit of the curves, is drawn too.
    A domain that a draw shows as useless (the objective rises with it) falls to the floor in that draw.
    """
    means = averaged(table)
    values = objective.of_table(means)
    error = {effect.design: effect.standard_error / np.sqrt(2) for effect in found}
    places = perturbations(means, base)
    base_value = float(values[means.runs.index(base)])
    level_error = _standard_error(
        [v for run, v in zip(table.runs, objective.of_table(table), strict=True) if design_of(run) == base]
    )
    rng = np.random.default_rng([seed, 5])
    optima = []
    for _ in range(draws):
        shared, level = rng.normal(), base_value + level_error * rng.normal()
        points: dict[str, list[tuple[float, float]]] = {name: [(1.0, 1.0)] for name in fitted.base}
        for row, domain, factor in places:
            noise = error[means.runs[row]] * (rng.normal() - shared)
            points[domain].append((factor, float(level + values[row] - base_value + noise) / level))
        curves = {name: _curve_or_flat(points[name], fitted.curves[name]) for name in fitted.base}
        optima.append(DDO(fitted.base, fitted.tokens, curves).optimum(floor=floor, caps=caps))
    return optima


def _standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean over seeds; 0 for one seed, which tells none."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def intervals(draws: Sequence[DomainWeights]) -> Intervals:
    """Return 90 % intervals of each weight over draws."""
    rows = np.array([list(each.values()) for each in draws])
    low, high = np.quantile(rows, [0.05, 0.95], axis=0, method="weibull")
    return {name: (float(a), float(b)) for name, a, b in zip(draws[0], low, high, strict=True)}


def path_intervals(
    optima: Sequence[tuple[float, WeightsFile]], tokens: float, *, floor: float = 0.0, draws: int = DRAWS, seed: int = 0
) -> Intervals:
    """Return 90 % intervals of AutoScale's weights at a budget, from the intervals of the optima it is fitted to.

    Empty unless every optimum has intervals. Each weight is drawn log-normal between its interval's ends; a draw whose
    path has no such budget counts as the weights of its last scale.
    """
    if not all(file.intervals for _, file in optima):
        return {}
    rng = np.random.default_rng([seed, 6])
    found = []
    for _ in range(draws):
        drawn = sorted(((scale, _draw(file, floor, rng)) for scale, file in optima), key=lambda pair: pair[0])
        try:
            found.append(AutoScale.fit(drawn, floor=floor).predict(tokens))
        except MixtureError:
            found.append(drawn[-1][1])
    return intervals(found)


def _draw(file: WeightsFile, floor: float, rng: np.random.Generator) -> DomainWeights:
    amounts = {}
    for name, weight in file.weights.items():
        low, high = file.intervals[name]
        spread = np.log(max(high, 1e-9) / max(low, 1e-9)) / (2 * GAUSSIAN_90)
        amounts[name] = max(weight * float(np.exp(spread * rng.normal())), floor)
    return DomainWeights.normalised(amounts)


def _curve_or_flat(points: Sequence[tuple[float, float]], near: Curve) -> Curve:
    try:
        return fit_curve(*zip(*points, strict=True), starts=[(near.a, near.b)], tolerance=1e-9)
    except MixtureError:
        return FLAT

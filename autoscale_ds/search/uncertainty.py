"""Intervals of weights from draws, and of AutoScale's weights from the intervals of the optima it goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.model import GAUSSIAN_90
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile
from autoscale_ds.search.autoscale import AutoScale

Intervals = dict[str, tuple[float, float]]
# A function from a budget in tokens to weights.
Prediction = Callable[[float], DomainWeights]
# How far the path is off where it leads to a larger budget, as a share of the distance it moved there (root mean square
# over domains of log weights): 1.0 on Data Mixing Laws' runs, median of 24 cases (docs/mixtures.md).
PATH_WRONG = 1.0
# 200 draws give the ends of a 90 % interval within about a tenth of its width.
DRAWS = 200


def ends_of_90(draws: Array) -> Array:
    """Return the ends of the 90 % interval of each column of draws (n, m), shape (2, m).

    By Weibull's plotting positions: with a few dozen draws the ends of plain quantiles lie too far inside.
    """
    return np.asarray(np.quantile(draws, [0.05, 0.95], axis=0, method="weibull"))


def intervals(draws: Sequence[DomainWeights], estimate: DomainWeights | None = None) -> Intervals:
    """Return 90 % intervals of each weight over draws, empty for none.

    An interval is widened where it would leave out the estimate it is shown beside.
    """
    if not draws:
        return {}
    rows = np.array([[each[name] for name in draws[0]] for each in draws])
    low, high = ends_of_90(rows)
    if estimate is not None:
        point = np.array([estimate[name] for name in draws[0]])
        low, high = np.minimum(low, point), np.maximum(high, point)
    return {name: (float(a), float(b)) for name, a, b in zip(draws[0], low, high, strict=True)}


def path_draws(
    optima: Sequence[tuple[float, WeightsFile]],
    *,
    floor: float = 0.0,
    draws: int = DRAWS,
    seed: int = 0,
    wrong: float = PATH_WRONG,
) -> list[Prediction]:
    """Return AutoScale paths through optima drawn from their intervals; none unless every optimum has intervals.

    Each weight is drawn log-normal between its interval's ends. Where a path has no such budget, it gives the weights
    of its last scale. Beyond that scale the path itself may be wrong: each weight is multiplied by a log-normal factor
    of standard deviation ``wrong`` times what the path moves from there; 0 leaves that out.
    """
    if not all(file.intervals for _, file in optima):
        return []
    rng, off = np.random.default_rng([seed, 6]), np.random.default_rng([seed, 8])
    paths = []
    for _ in range(draws):
        drawn = sorted(((scale, _draw(file, floor, rng)) for scale, file in optima), key=lambda pair: pair[0])
        paths.append(_prediction(drawn, floor, wrong * off.standard_normal(len(drawn[0][1]))))
    return paths


def path_intervals(
    optima: Sequence[tuple[float, WeightsFile]],
    tokens: float,
    estimate: DomainWeights | None = None,
    *,
    floor: float = 0.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Intervals:
    """Return 90 % intervals of AutoScale's weights at a budget, see ``path_draws``."""
    return intervals([predict(tokens) for predict in path_draws(optima, floor=floor, draws=draws, seed=seed)], estimate)


def _prediction(optima: Sequence[tuple[float, DomainWeights]], floor: float, off: Array) -> Prediction:
    largest, last = optima[-1]
    try:
        path = AutoScale.fit(optima, floor=floor)
    except MixtureError:
        return lambda tokens: last

    def predict(tokens: float) -> DomainWeights:
        try:
            weights = path.predict(tokens)
        except MixtureError:
            return last
        if tokens <= largest or not off.any():
            return weights
        logs, before = (np.log(np.maximum([each[name] for name in weights], 1e-9)) for each in (weights, last))
        moved = float(np.sqrt(np.mean((logs - before) ** 2)))
        return _above(floor, dict(zip(weights, map(float, np.exp(logs + moved * off)), strict=True)))

    return predict


def _draw(file: WeightsFile, floor: float, rng: np.random.Generator) -> DomainWeights:
    amounts = {}
    for name, weight in file.weights.items():
        low, high = file.intervals[name]
        spread = np.log(max(high, 1e-9) / max(low, 1e-9)) / (2 * GAUSSIAN_90)
        amounts[name] = weight * float(np.exp(spread * rng.normal()))
    return _above(floor, amounts)


def _above(floor: float, amounts: Mapping[str, float]) -> DomainWeights:
    """Return weights in proportion to amounts, none below the floor."""
    if floor == 0:
        return DomainWeights.normalised(amounts)
    weights = Bounds.of(list(amounts), floor).scale_in(np.array([list(amounts.values())]))[0]
    return DomainWeights(dict(zip(amounts, map(float, weights), strict=True)))

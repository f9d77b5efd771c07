"""Tokens that runs need to reach a value, and their ratio with an interval over seeds. NumPy and SciPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from autoscale_ds.mixture.arrays import Array


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the ends of its 90 % interval; ``low`` and ``high`` are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class SpeedUp:
    """How many times fewer tokens a run needs than its reference.

    Attributes
    ----------
    ratio : float or None
        Geometric mean over seeds of reference tokens / own tokens; None unless every seed reached the target.
    low, high : float or None
        90 % interval; None where one seed tells no spread.
    paired : bool
        Whether each seed was compared with the same seed of the reference.
    count : int
        Ratios (paired) or own seeds behind the mean.
    """

    ratio: float | None
    low: float | None
    high: float | None
    paired: bool
    count: int


def tokens_to_reach(tokens: Sequence[float], values: Sequence[float | None], target: float) -> float | None:
    """Return the tokens at which a falling figure first is at or below a target; None when it never is.

    Parameters
    ----------
    tokens : sequence of float
        Training tokens of each evaluation, increasing; the first may be 0.
    values : sequence of float or None
        Positive figures (perplexity or loss) at these points; None and NaN are left out.
    target : float
        Value to reach, from above.

    Notes
    -----
    Between two evaluations the logarithm of the value is taken as linear in the logarithm of the tokens, which is
    exact for a power law; after an evaluation at 0 tokens, as linear in the tokens.
    """
    points = [(float(t), float(v)) for t, v in zip(tokens, values, strict=True) if v is not None and v == v]
    before: tuple[float, float] | None = None
    for point in points:
        if point[1] <= target:
            return point[0] if before is None else _crossing(before, point, target)
        before = point
    return None


def _crossing(before: tuple[float, float], after: tuple[float, float], target: float) -> float:
    """Return where the line between two points, the first above the target, meets it."""
    if math.isinf(before[1]):
        return after[0]
    share = math.log(before[1] / target) / math.log(before[1] / after[1])
    if before[0] <= 0:
        return before[0] + share * (after[0] - before[0])
    return float(before[0] * (after[0] / before[0]) ** share)


def speed_up(reference: Mapping[int, float | None], other: Mapping[int, float | None]) -> SpeedUp:
    """Return reference tokens / other tokens, with its 90 % interval over seeds.

    Parameters
    ----------
    reference, other : mapping of seed to float or None
        Tokens each seed needed to reach one target, None where it was not reached.

    Notes
    -----
    Student's t on logarithms: of the ratios seed by seed where both have the same two seeds or more, else Welch's
    interval of two independent means. With one seed on either side there is a ratio and no interval.
    """
    shared = sorted(set(reference) & set(other))
    paired = len(shared) > 1 or (bool(shared) and set(reference) == set(other))
    if paired:
        reference, other = ({seed: side[seed] for seed in shared} for side in (reference, other))
    a, b = _logs(reference), _logs(other)
    if a is None or b is None:
        return SpeedUp(None, None, None, paired, len(other))
    log_ratio = _interval_of(a - b) if paired else _welch(a, b)
    low, high = (None if end is None else math.exp(end) for end in (log_ratio.low, log_ratio.high))
    return SpeedUp(math.exp(log_ratio.mean), low, high, paired, len(b))


def interval(values: Sequence[float]) -> Interval:
    """Return the mean with its 90 % t-interval; raises ValueError when there is no value."""
    return _interval_of(np.asarray(values, float))


def geometric(values: Sequence[float]) -> Interval:
    """Return the geometric mean with its 90 % t-interval, taken on logarithms."""
    log_mean = _interval_of(np.log(np.asarray(values, float)))
    low, high = (None if end is None else math.exp(end) for end in (log_mean.low, log_mean.high))
    return Interval(math.exp(log_mean.mean), low, high, log_mean.count)


def mean_curve(curves: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]) -> tuple[Array, Array, Array, Array]:
    """Return tokens, mean, least and largest value over several curves of (tokens, values).

    On the points of all curves within the range that every curve covers; between its own points a curve is taken as
    linear in tokens.
    """
    places = [np.asarray(tokens, float) for tokens, _ in curves]
    grid = np.unique(np.concatenate(places))
    grid = grid[(grid >= max(x.min() for x in places)) & (grid <= min(x.max() for x in places))]
    rows = np.array([np.interp(grid, np.asarray(x, float), np.asarray(y, float)) for x, y in curves])
    return grid, rows.mean(0), rows.min(0), rows.max(0)


def _logs(tokens: Mapping[int, float | None]) -> Array | None:
    """Return logarithms by seed; None when a seed did not reach the target, or reached it before any training."""
    known = [tokens[seed] for seed in sorted(tokens)]
    if not known or any(value is None or value <= 0 for value in known):
        return None
    return np.log(np.array(known, float))


def _interval_of(values: Array) -> Interval:
    if not len(values):
        raise ValueError("a mean over no values")
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, None, None, 1)
    half = float(student_t.ppf(0.95, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half, len(values))


def _welch(a: Array, b: Array) -> Interval:
    """Return the difference of two independent means with Welch's interval."""
    mean = float(a.mean() - b.mean())
    if min(len(a), len(b)) < 2:
        return Interval(mean, None, None, len(b))
    parts = [float(side.var(ddof=1)) / len(side) for side in (a, b)]
    if sum(parts) == 0:
        return Interval(mean, mean, mean, len(b))
    freedom = sum(parts) ** 2 / sum(v**2 / (len(s) - 1) for v, s in zip(parts, (a, b), strict=True))
    half = float(student_t.ppf(0.95, freedom)) * math.sqrt(sum(parts))
    return Interval(mean, mean - half, mean + half, len(b))

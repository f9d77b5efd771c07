"""When a curve comes to a threshold and stays, how wide its rise is, and the area under it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import CurveError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.speed.curve import Curve

CROSSED, NEVER, BEFORE = "crossed", "never", "before"
# Ends of a rise, as shares of the way from its floor to its plateau.
RISE = (0.1, 0.9)
# A rise below this many standard errors of a value is none.
CLEAR = 3.0


@dataclass(frozen=True)
class Crossing:
    """When a curve came to stay beyond a threshold.

    Attributes
    ----------
    state : str
        ``crossed``; ``never`` (right-censored: not by the last evaluation, or not confirmed by then); ``before``
        (left-censored: beyond it at the first evaluation already).
    at : mapping of str to float
        Time by axis. Crossed: interpolated. Never: the last evaluation that was not beyond, so that the time is later.
        Before: the first evaluation, so that the time is no later.
    low, high : mapping of str to float, or None
        The evaluations around a crossing: the last before it, the first beyond. None on the side that is not known.
    lost : bool
        Whether a later evaluation was not beyond the threshold.
    unconfirmed : int
        Evaluations at the end that are beyond, too few for the window; 0 unless ``never``.
    """

    state: str
    at: Mapping[str, float]
    low: Mapping[str, float] | None
    high: Mapping[str, float] | None
    lost: bool = False
    unconfirmed: int = 0


@dataclass(frozen=True)
class Transition:
    """The rise of a curve from its floor to its plateau.

    Attributes
    ----------
    floor, plateau : float
        Ends of its monotone fit.
    begin, end : float
        Positions at 10 % and at 90 % of the way.
    decades : float
        ``log10(end / begin)``: 1 is a rise that takes from 1 B to 10 B tokens.
    """

    floor: float
    plateau: float
    begin: float
    end: float
    decades: float


def crossing(
    curve: Curve, threshold: float, *, window: int = 2, falling: bool = False, for_good: bool = False
) -> Crossing:
    """Return when a curve comes to a threshold and stays beyond it for some evaluations.

    Parameters
    ----------
    threshold : float
        Level, in the metric's unit; a value equal to it is beyond.
    window : int
        Consecutive evaluations that have to be beyond, the first of them included.
    falling : bool
        Whether beyond means below.
    for_good : bool
        Count only the last time it comes there, after which no evaluation falls back.

    Raises
    ------
    CurveError
        For a curve of one evaluation, or of fewer than the window.

    Notes
    -----
    The value is taken as linear in the logarithm of the position between the evaluation before and the first of the
    window; in the position itself after an evaluation at 0. ``report.compare.tokens_to_reach`` takes logarithms of the
    value as well, as is right for a loss that follows a power law, and asks for one evaluation only.
    """
    count = len(curve)
    if count < max(2, window):
        raise CurveError(
            f"{curve.name} has {count} evaluation{'s' if count != 1 else ''}, a time to a threshold with a window of "
            f"{window} needs at least {max(2, window)}; evaluate more often, or leave it out"
        )
    beyond = curve.values <= threshold if falling else curve.values >= threshold
    trailing = count - 1 - int(np.flatnonzero(~beyond)[-1]) if not beyond.all() else count
    first = _start(beyond, trailing, window, for_good)
    if first is None:
        last = count - 1 - trailing
        return Crossing(NEVER, _at(curve, last), _at(curve, last), None, unconfirmed=trailing)
    lost = not bool(beyond[first:].all())
    if first == 0:
        return Crossing(BEFORE, _at(curve, 0), None, _at(curve, 0), lost)
    before, after = curve.values[first - 1], curve.values[first]
    share = float((threshold - before) / (after - before))
    at = {name: between(x[first - 1], x[first], share) for name, x in curve.axes.items()}
    return Crossing(CROSSED, at, _at(curve, first - 1), _at(curve, first), lost)


def _start(beyond: npt.NDArray[np.bool_], trailing: int, window: int, for_good: bool) -> int | None:
    """Return the first evaluation of the first window that lies beyond, or of the last stretch."""
    if for_good:
        return len(beyond) - trailing if trailing >= window else None
    sums = np.convolve(beyond, np.ones(window, int), "valid")
    return int(np.argmax(sums == window)) if (sums == window).any() else None


def _at(curve: Curve, index: int) -> dict[str, float]:
    return {name: float(x[index]) for name, x in curve.axes.items()}


def between(low: float, high: float, share: float) -> float:
    """Return the position a share of the way from one to another, in logarithms; linearly from 0."""
    if low <= 0:
        return float(low + share * (high - low))
    return float(low * (high / low) ** share)


def transition(curve: Curve, *, falling: bool = False) -> Transition | None:
    """Return how a curve rises from its floor to its plateau; None for one that does not rise clearly.

    Floor and plateau are the ends of its monotone least-squares fit (pool adjacent violators), which no single noisy
    evaluation decides; 10 % and 90 % of the way are found on that fit, in log position. Its plateau is the level it
    has come to: the width of a curve that still rises at its end is a lower bound. A rise below 3 standard errors of a
    value, where these are known, is none.
    """
    from scipy.optimize import isotonic_regression

    sign = -1.0 if falling else 1.0
    fit = isotonic_regression(sign * curve.values).x
    floor, plateau = float(fit[0]), float(fit[-1])
    rise = plateau - floor
    if rise <= CLEAR * (curve.error or 0.0) or rise <= 0:
        return None
    begin, end = (_reached(curve.position, fit, floor + share * rise) for share in RISE)
    return Transition(sign * floor, sign * plateau, begin, end, math.log10(end / begin))


def _reached(position: Array, fit: Array, level: float) -> float:
    """Return where a rising curve comes to a level above its first value."""
    after = int(np.argmax(fit >= level))
    share = (level - fit[after - 1]) / (fit[after] - fit[after - 1])
    return between(position[after - 1], position[after], float(share))


def area(curve: Curve, ends: tuple[float, float] | None = None) -> float | None:
    """Return the mean of a curve over log position: the area under it, divided by the width.

    Parameters
    ----------
    ends : (float, float), optional
        Positions to average between, held inside the curve's own; its first above 0 and its last by default. Curves are
        compared over ends that all of them have.

    Returns
    -------
    float or None
        In the unit of the metric, by trapezoids; None where the curve has no two positions in there.
    """
    positive = curve.position > 0
    x, y = np.log(curve.position[positive]), curve.values[positive]
    if not len(x):
        return None
    low, high = (x[0], x[-1]) if ends is None else (max(x[0], math.log(ends[0])), min(x[-1], math.log(ends[1])))
    if high <= low:
        return None
    grid = np.unique([low, *x[(x > low) & (x < high)], high])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))

"""The learning speed of curves: one entry a curve, and groups of runs compared series by series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscale_ds.errors import CurveError
from autoscale_ds.speed import crossing as crossings
from autoscale_ds.speed.crossing import Crossing, Transition
from autoscale_ds.speed.curve import Curve
from autoscale_ds.speed.survival import KaplanMeier, LogRank, kaplan_meier, log_rank
from autoscale_ds.speed.threshold import Threshold, floor_of, moving_mean


@dataclass(frozen=True)
class Settings:
    """What counts as learned.

    Attributes
    ----------
    threshold : Threshold
        Level to come to.
    window : int
        Consecutive evaluations that have to be beyond it.
    falling : bool or None
        Whether lower is better; None decides by the words of a curve's metric and series.
    for_good : bool
        Whether no later evaluation may fall back.
    floors : mapping of str to float
        Value that a model has which knows nothing, by series; under "" that of all others.
    reference : str or None
        Run whose curve of the same series sets relative thresholds; None for each curve its own.
    """

    threshold: Threshold
    window: int = 2
    falling: bool | None = None
    for_good: bool = False
    floors: Mapping[str, float] | None = None
    reference: str | None = None

    def falls(self, curve: Curve) -> bool:
        """Return whether lower is better for a curve."""
        return curve.falls if self.falling is None else self.falling


@dataclass(frozen=True)
class Speed:
    """The learning speed of one curve."""

    curve: Curve
    falling: bool
    level: float
    crossing: Crossing
    transition: Transition | None
    area: float | None
    best: float
    final: float


@dataclass(frozen=True)
class GroupSpeed:
    """One series in one group of runs.

    Attributes
    ----------
    group, series : str
        Names.
    runs, crossed : int
        Runs that have the series, and those that came to the threshold.
    estimate : KaplanMeier
        Over the runs, of times on the main axis.
    against_first : LogRank or None
        Test against the first group; None for that group itself, or without anything to compare.
    """

    group: str
    series: str
    runs: int
    crossed: int
    estimate: KaplanMeier
    against_first: LogRank | None


def measure(curves: Sequence[Curve], settings: Settings) -> list[Speed]:
    """Return the learning speed of each curve; areas of a series lie between positions that all of its curves have.

    Raises
    ------
    CurveError
        For a curve of too few evaluations, or a reference without the series.
    """
    ends = _common_ends(curves)
    return [_speed(curve, settings, _reference(curve, curves, settings), ends[curve.series]) for curve in curves]


def _speed(curve: Curve, settings: Settings, reference: Curve, ends: tuple[float, float] | None) -> Speed:
    falling, window = settings.falls(curve), settings.window
    floor = floor_of(settings.floors, curve.series)
    level = settings.threshold.level(reference, window=window, falling=falling, floor=floor)
    means = moving_mean(curve.values, window)
    return Speed(
        curve,
        falling,
        level,
        crossings.crossing(curve, level, window=window, falling=falling, for_good=settings.for_good),
        crossings.transition(curve, falling=falling),
        None if ends is None else crossings.area(curve, ends),
        float(means.min() if falling else means.max()),
        float(means[-1]),
    )


def _reference(curve: Curve, curves: Sequence[Curve], settings: Settings) -> Curve:
    if settings.reference is None:
        return curve
    for other in curves:
        if (other.run, other.series, other.metric) == (settings.reference, curve.series, curve.metric):
            return other
    raise CurveError(
        f"the reference {settings.reference!r} has no series {curve.series!r}, which sets the threshold of "
        f"{curve.name}; take another reference, or leave the series out"
    )


def _common_ends(curves: Sequence[Curve]) -> dict[str, tuple[float, float] | None]:
    """Return, by series, the positions between which all of its curves have evaluations; None where there are none."""
    ends: dict[str, tuple[float, float] | None] = {}
    for series in {curve.series for curve in curves}:
        positions = [curve.position[curve.position > 0] for curve in curves if curve.series == series]
        if not all(len(x) for x in positions) or len({c.axis for c in curves if c.series == series}) > 1:
            ends[series] = None
            continue
        low, high = max(float(x[0]) for x in positions), min(float(x[-1]) for x in positions)
        ends[series] = (low, high) if low < high else None
    return ends


def by_group(speeds: Sequence[Speed], groups: Mapping[str, Sequence[str]], confidence: float = 0.9) -> list[GroupSpeed]:
    """Return each series of each group of runs: Kaplan–Meier over its runs, and the log-rank test against the first.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Names of runs, by the name of their group.

    Notes
    -----
    Left-censored times count as crossings at the first evaluation, see ``survival``.
    """
    series = list(dict.fromkeys(speed.curve.series for speed in speeds))
    found = []
    for name in series:
        first: list[Speed] | None = None
        for group, runs in groups.items():
            own = [speed for speed in speeds if speed.curve.series == name and speed.curve.run in runs]
            if not own:
                continue
            times, crossed = times_of(own)
            test = None if first is None else log_rank(*times_of(first), times, crossed)
            first = own if first is None else first
            estimate = kaplan_meier(times, crossed, confidence)
            found.append(GroupSpeed(group, name, len(own), sum(crossed), estimate, test))
    return found


def times_of(speeds: Sequence[Speed]) -> tuple[list[float], list[bool]]:
    """Return the time of each crossing on the main axis, and whether it was seen."""
    return [speed.crossing.at[speed.curve.axis] for speed in speeds], [
        speed.crossing.state != crossings.NEVER for speed in speeds
    ]


def rank_position(speed: Speed) -> float:
    """Return the time of a crossing for putting series in order: inf where it never was, 0 where it was before."""
    if speed.crossing.state == crossings.NEVER:
        return math.inf
    return 0.0 if speed.crossing.state == crossings.BEFORE else speed.crossing.at[speed.curve.axis]

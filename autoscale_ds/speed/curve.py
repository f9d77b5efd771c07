"""A learning curve: one metric of one series of one run, at the evaluations of the run."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_ds.errors import CurveError
from autoscale_ds.mixture.arrays import Array

# The first of them that a curve has is the one it is interpolated in.
AXES = ("tokens", "step", "samples")
# Words in the name of a metric or series that is better when it is lower.
_FALLING = re.compile(r"loss|perplexity|ppl|bits|bpb|bpc|entropy|nll|error", re.IGNORECASE)
# Names that a message lists.
MOST_NAMES = 12


@dataclass(frozen=True)
class Curve:
    """Values of a metric at n evaluations, in the order in which they were made.

    Attributes
    ----------
    run, series, metric : str
        Whose it is: the run (or model), what was evaluated (a task, a domain), and the figure; "" where there is one.
    axes : mapping of str to array (n,)
        Where the evaluations lie, by names of ``AXES``, at least one; each strictly increasing and not negative.
    values : array (n,)
        Finite.
    errors : array (n,) or None
        Standard error of each value, in the same unit.
    """

    run: str
    series: str
    metric: str
    axes: Mapping[str, Array]
    values: Array
    errors: Array | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def name(self) -> str:
        """Run, series and metric in one."""
        return " ".join(filter(None, (self.run, self.series, self.metric)))

    @property
    def axis(self) -> str:
        """Name of the axis that it is interpolated in: tokens, where known."""
        return next(name for name in AXES if name in self.axes)

    @property
    def position(self) -> Array:
        """Values (n,) of that axis."""
        return self.axes[self.axis]

    @property
    def error(self) -> float | None:
        """Median standard error of its values; None where none is known."""
        return None if self.errors is None else float(np.median(self.errors))

    @property
    def falls(self) -> bool:
        """Whether lower is better, by the words of its metric and series."""
        return bool(_FALLING.search(f"{self.metric} {self.series}"))


def select(
    curves: Sequence[Curve], *, metric: str | None = None, series: Sequence[str] = (), runs: Sequence[str] = ()
) -> list[Curve]:
    """Return the curves of one metric, of some series and of some runs.

    Parameters
    ----------
    metric : str, optional
        May be left out where the curves have one metric.
    series, runs : sequence of str
        Names, or patterns with ``*``; all where empty.

    Raises
    ------
    CurveError
        For a name that no curve has, with the nearest that there is; when nothing is left; when several metrics are.
    """
    metrics = _names(curve.metric for curve in curves)
    if metric is not None:
        curves = [curve for curve in curves if curve.metric in matching([metric], metrics, "metric")]
    kept_series = matching(series, _names(curve.series for curve in curves), "series")
    kept_runs = matching(runs, _names(curve.run for curve in curves), "run")
    chosen = [curve for curve in curves if curve.series in kept_series and curve.run in kept_runs]
    if not chosen:
        raise CurveError("no curve has both the series and the run asked for; ask for fewer at once")
    if len(found := _names(curve.metric for curve in chosen)) > 1:
        raise CurveError(f"the curves have {len(found)} metrics, {_listed(found)}; choose one with --metric")
    return chosen


def matching(patterns: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    """Return the names that fit a name or pattern, all for no pattern; raises CurveError for one that fits none."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, 1, 0.4)
            nearest = f"the nearest is {near[0]!r}" if near else f"there are: {_listed(names)}"
            raise CurveError(f"no {what} {pattern!r}; {nearest}")
    return [name for name in names if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def _names(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(name or "(none)" for name in names[:MOST_NAMES]) + more


def mean_of(curves: Sequence[Curve], name: str) -> list[Curve]:
    """Return one curve a run, the mean of its series at the positions that all of them have; no errors.

    Raises
    ------
    CurveError
        When a run lacks a series that another has, which would be another mean, or shares no position between them.
    """
    series = set(_names(curve.series for curve in curves))
    means = []
    for run in _names(curve.run for curve in curves):
        own = [curve for curve in curves if curve.run == run]
        if missing := sorted(series - {curve.series for curve in own}):
            raise CurveError(
                f"{run} has no series {missing[0]!r}, which the mean of others holds; leave it out everywhere"
            )
        axis = own[0].axis
        shared = sorted(set.intersection(*(set(curve.axes.get(axis, ())) for curve in own)))
        if not shared:
            raise CurveError(
                f"{run}: its series share no evaluation ({axis}), so they have no mean; evaluate them together"
            )
        first = np.isin(own[0].position, shared)
        axes = {key: x[first] for key, x in own[0].axes.items()}
        values = np.mean([curve.values[np.isin(curve.axes[axis], shared)] for curve in own], axis=0)
        means.append(Curve(run, name, own[0].metric, axes, values))
    return means

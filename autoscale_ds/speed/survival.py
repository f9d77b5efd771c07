"""Times to a threshold over seeds, some of which never came to it: Kaplan–Meier median and log-rank test.

Times are taken as exact: those interpolated between two evaluations stand for their interval, so evaluate more often
than the spread over seeds. A time that is only known to be earlier (left-censored) counts as one at its upper end. An
estimator for intervals (Turnbull's) is not needed for either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoscale_ds.mixture.arrays import Array


@dataclass(frozen=True)
class KaplanMeier:
    """Share of runs that have not come to the threshold, after each of k distinct times.

    Attributes
    ----------
    times : array (k,)
        Distinct times of crossing, increasing.
    at_risk, events : array (k,)
        Runs not yet through just before, and runs that cross then.
    share : array (k,)
        Estimate just after.
    low, high : array (k,)
        Its interval, by Greenwood's variance of ``log(-log(share))``; NaN where the share is 0.
    count : int
        Runs in all.
    """

    times: Array
    at_risk: Array
    events: Array
    share: Array
    low: Array
    high: Array
    count: int

    @property
    def median(self) -> float:
        """First time at which at most half of the runs are left; inf when that never comes."""
        return self._first(self.share)

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of the median: where the ends of the share's interval come to a half (Brookmeyer and Crowley 1982).

        Either end may be inf; both are, when no run has crossed.
        """
        return self._first(self.low), self._first(np.where(np.isnan(self.high), math.inf, self.high))

    def _first(self, share: Array) -> float:
        there = np.flatnonzero(np.where(np.isnan(share), 0.0, share) <= 0.5)
        return float(self.times[there[0]]) if len(there) else math.inf


@dataclass(frozen=True)
class LogRank:
    """Whether two groups differ in their times: statistic, chi-square with one degree of freedom, and p-value."""

    chi2: float
    p: float


def kaplan_meier(times: Sequence[float], crossed: Sequence[bool], confidence: float = 0.9) -> KaplanMeier:
    """Return the Kaplan–Meier estimate of the share that has not crossed.

    Parameters
    ----------
    times : sequence of float
        Time of crossing of each run, or of the last evaluation that was not beyond.
    crossed : sequence of bool
        False for a run that had not crossed by its time.
    confidence : float
        Of the interval.

    Notes
    -----
    ``share = prod (1 - d_i / n_i)``; ``var log share = sum d_i / (n_i (n_i - d_i))`` (Greenwood); the interval is
    ``share ^ exp(+-z sqrt(var) / log share)`` (Kalbfleisch and Prentice 1980). A run censored at the time of a crossing
    counts as still there then.
    """
    from scipy.stats import norm

    when, event = _sorted(times, crossed)
    at = np.unique(when[event])
    at_risk = np.array([(when >= t).sum() for t in at], float)
    events = np.array([(event & (when == t)).sum() for t in at], float)
    share = np.cumprod(1 - events / at_risk)
    z = float(norm.ppf((1 + confidence) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(events / (at_risk * (at_risk - events)))
        half = z * np.sqrt(variance) / np.log(share)  # negative
        low, high = share ** np.exp(-half), share ** np.exp(half)
    none_left = share <= 0
    return KaplanMeier(
        at,
        at_risk,
        events,
        share,
        np.where(none_left, np.nan, low),
        np.where(none_left, np.nan, high),
        len(when),
    )


def log_rank(
    times_a: Sequence[float], crossed_a: Sequence[bool], times_b: Sequence[float], crossed_b: Sequence[bool]
) -> LogRank | None:
    """Return the log-rank test of two groups; None when no run crossed, or all that did leave nothing to compare.

    Notes
    -----
    At each time of crossing, d of n runs cross; of the n_a in group a, d n_a / n are expected to, with variance
    ``d n_a n_b (n - d) / (n^2 (n - 1))`` (Mantel 1966). The statistic is the squared sum of differences over the sum of
    variances. For a handful of seeds the chi-square distribution is rough: three against three cannot come below
    p = .02.
    """
    from scipy.stats import chi2 as chi_square

    a, event_a = _sorted(times_a, crossed_a)
    b, event_b = _sorted(times_b, crossed_b)
    difference = variance = 0.0
    for t in np.unique(np.concatenate([a[event_a], b[event_b]])):
        n_a, n_b = float((a >= t).sum()), float((b >= t).sum())
        d_a, d_b = float((event_a & (a == t)).sum()), float((event_b & (b == t)).sum())
        n, d = n_a + n_b, d_a + d_b
        difference += d_a - d * n_a / n
        if n > 1:
            variance += d * n_a * n_b * (n - d) / (n * n * (n - 1))
    if variance <= 0:
        return None
    statistic = difference**2 / variance
    return LogRank(statistic, float(chi_square.sf(statistic, 1)))


def _sorted(times: Sequence[float], crossed: Sequence[bool]) -> tuple[Array, npt.NDArray[np.bool_]]:
    when, event = np.asarray(times, float), np.asarray(crossed, bool)
    order = np.argsort(when, kind="stable")
    return when[order], event[order]

"""Whether what is learned sooner at one model size is so at another: rank correlation, and what noise leaves of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_ds.errors import CurveError
from autoscale_ds.laws.score import spearman
from autoscale_ds.laws.stability import FEWEST, STABLE
from autoscale_ds.mixture.arrays import Array

HOLDS, BREAKS, UNDECIDED = "holds", "breaks", "undecided"
# All orders of up to 8 series are gone through (40,320); of more, this many drawn ones.
EXACT, DRAWN = 8, 9_999
CHANCE = 0.05


@dataclass(frozen=True)
class Agreement:
    """How far two model sizes agree in the order of k series.

    Attributes
    ----------
    series : int
        Compared ones, k.
    spearman, kendall : float or None
        Rank correlations, ties counted half (tau-b); None where one side has a single rank.
    p : float or None
        Share of the orders of one side that agree at least as well (Spearman; one-sided).
    low, high : float or None
        90 % interval of Spearman's correlation over draws of the measurement noise; None without draws.
    attainable : float or None
        Correlation of a side with itself under that noise, the median over its draws; of the two sides, the smaller.
    swapped : list of (str, str)
        Pairs in opposite order, the one that is sooner on the first side first.
    verdict : str
        ``holds``: correlation at least .9 and p at most .05. ``breaks``: below .9, and the interval with it (or no
        interval at hand), while ``attainable`` is not below. ``undecided``: all else, too few series among it.
    """

    series: int
    spearman: float | None
    kendall: float | None
    p: float | None
    low: float | None
    high: float | None
    attainable: float | None
    swapped: list[tuple[str, str]]
    verdict: str


def agreement(
    names: Sequence[str], a: Array, b: Array, draws: tuple[Array, Array] | None = None, seed: int = 0
) -> Agreement:
    """Return how far two orders agree.

    Parameters
    ----------
    names : sequence of str
        The k series.
    a, b : array (k,)
        Time, or any figure, of each series on either side. Those that were never learned are inf, a tie at the end: of
        a pair of which one was learned it is known which was first.
    draws : pair of array (n, k), optional
        The same under n draws of the measurement noise. They add the noise a second time, so the interval lies lower
        than the correlation of noiseless figures; it is for telling what noise may have done.
    seed : int
        Of drawn orders.

    Raises
    ------
    CurveError
        For fewer than 2 series.
    """
    if len(names) < 2:
        raise CurveError(f"{len(names)} series have no order to compare; expected two or more that both sides have")
    ranks_a, ranks_b = _finite(a), _finite(b)
    rho = spearman(ranks_a, ranks_b)
    low = high = attainable = None
    if draws is not None:
        attainable = min((_with_itself(x, its) for x, its in zip((a, b), draws, strict=True)), key=lambda r: r or 0.0)
        pairs = zip(*draws, strict=True)
        drawn = [rho_ for x, y in pairs if (rho_ := spearman(_finite(x), _finite(y))) is not None]
        low, high = (float(end) for end in np.quantile(drawn, (0.05, 0.95))) if drawn else (None, None)
    p = None if rho is None else permutation_p(ranks_a, ranks_b, rho, seed)
    return Agreement(
        len(names),
        rho,
        _kendall(ranks_a, ranks_b),
        p,
        low,
        high,
        attainable,
        _swapped(names, a, b),
        _verdict(len(names), rho, p, high, attainable),
    )


def permutation_p(a: Array, b: Array, observed: float, seed: int = 0) -> float:
    """Return the share of orders of ``b`` with a rank correlation to ``a`` of at least the observed one."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    if len(x) <= EXACT:
        orders = np.array(list(itertools.permutations(range(len(x)))))
    else:
        rng = np.random.default_rng([seed, len(x)])
        orders = np.argsort(rng.random((DRAWN, len(x))), axis=1)
    scale = math.sqrt(float(x @ x) * float(y @ y))
    hits = int((y[orders] @ x / scale >= observed - 1e-12).sum())
    return hits / len(orders) if len(x) <= EXACT else (hits + 1) / (len(orders) + 1)


def first_break(agreements: Mapping[str, Agreement]) -> str | None:
    """Return the first of several larger sizes, in the order given, at which an order no longer holds; None if none."""
    return next((size for size, its in agreements.items() if its.verdict == BREAKS), None)


def _verdict(series: int, rho: float | None, p: float | None, high: float | None, attainable: float | None) -> str:
    if rho is None or p is None or series < FEWEST:
        return UNDECIDED
    if rho >= STABLE:
        return HOLDS if p <= CHANCE else UNDECIDED
    hidden = attainable is not None and attainable < STABLE
    return UNDECIDED if hidden or (high is not None and high >= STABLE) else BREAKS


def _with_itself(values: Array, draws: Array) -> float | None:
    found = [rho for drawn in draws if (rho := spearman(_finite(values), _finite(drawn))) is not None]
    return float(np.median(found)) if found else None


def _finite(times: Array) -> Array:
    """Return times with numbers in place of infinities, the order kept."""
    return np.nan_to_num(np.asarray(times, float), posinf=np.finfo(float).max, neginf=-np.finfo(float).max)


def _kendall(a: Array, b: Array) -> float | None:
    from scipy.stats import kendalltau

    tau = float(kendalltau(a, b).statistic)
    return None if math.isnan(tau) else tau


def _swapped(names: Sequence[str], a: Array, b: Array) -> list[tuple[str, str]]:
    first = np.argsort(_finite(a), kind="stable")
    return [(names[i], names[j]) for n, i in enumerate(first) for j in first[n + 1 :] if a[i] < a[j] and b[i] > b[j]]

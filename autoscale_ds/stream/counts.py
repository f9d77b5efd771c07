"""How many samples each domain gives to a step, so that running counts follow the weights within one sample.

The running count of a domain may lie on either side of its running target, never a whole sample away. Rounding each
step to the largest remainders does not achieve that: with 6 samples a step over 21 domains at 0.0006, 21 at 0.0077
and 7 at 0.118, small domains come due together and lag by 1.7. Serving the *earliest deadline* does: a domain is due
when its target reaches count + 1; a schedule that meets every deadline exists for all weights [1]_, and then the
earliest deadline first meets them [2]_.

A change of weights keeps each domain's lag. From then on the bound is an observation (smooth changes stay within one,
random ones stayed within 2.2), not a theorem: against weights chosen by an adversary who sees the counts, no way of
rounding stays within one sample.

References
----------
.. [1] Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980).
.. [2] Baruah et al., "Proportionate progress", Algorithmica 15 (1996).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def allocate(lag: Floats, quota: Floats) -> Counts:
    """Return how many samples each domain gives to the next step.

    Parameters
    ----------
    lag : ndarray of float, shape (m,)
        Target so far minus samples so far, summing to zero.
    quota : ndarray of float, shape (m,)
        Weight times global batch, summing to the global batch. A quota of zero is never served.

    Returns
    -------
    ndarray of int64, shape (m,)
        Sums to the global batch exactly.
    """
    batch = round(float(quota.sum()))
    target = lag + quota
    counts = np.maximum(np.floor(target), 0.0)
    counts[quota == 0] = 0.0
    short = batch - int(counts.sum())
    if short:
        wait = np.full(len(quota), np.inf)
        np.divide(counts + 1 - target, quota, out=wait, where=(target > counts) & (quota > 0))
        if 0 < short <= np.count_nonzero(wait < np.inf):
            counts[_earliest(wait, short)] += 1
        else:
            _settle(counts, target, quota, short)
    return counts.astype(np.int64)


def allocate_within(lag: Floats, quota: Floats, left: Counts) -> tuple[Floats, Floats, Counts] | None:
    """Return the lags, quotas and counts of a step in which no domain gives more than it has left.

    Domains that would have to give more give what is left. The others fill the batch in proportion to their quotas, and
    take over what the former were owed.

    Parameters
    ----------
    lag, quota : ndarray of float, shape (m,)
        As for ``allocate``.
    left : ndarray of int64, shape (m,)
        Samples that each domain may still give, not negative.

    Returns
    -------
    tuple of three arrays (m,), or None
        None when the domains together have less left than the batch.
    """
    counts = allocate(lag, quota)
    last = np.zeros(len(quota), bool)
    own_lag, own_quota = lag, quota
    while (counts > left).any():
        last |= counts > left
        rest, others = round(float(quota.sum())) - int(left[last].sum()), np.where(last, 0.0, quota)
        if not rest:
            own_lag, own_quota, counts = np.zeros(len(quota)), np.zeros(len(quota)), np.zeros(len(quota), np.int64)
        elif not others.any():
            return None
        else:
            own_quota = others * (rest / others.sum())
            own_quota[np.argmax(own_quota)] += rest - math.fsum(own_quota)
            own_lag = carry_over(lag, own_quota)
            counts = allocate(own_lag, own_quota)
        counts[last] = left[last]
    return own_lag, np.where(last, left, own_quota), counts


def _earliest(wait: Floats, number: int) -> npt.NDArray[np.intp]:
    """Return which deadlines are the earliest; equal ones fall to the first name, on every machine.

    A selection, not a sort: 0.09 against 0.62 ms for 10,000 domains.
    """
    last = np.partition(wait, number - 1)[number - 1]
    before, ties = np.flatnonzero(wait < last), np.flatnonzero(wait == last)
    return np.concatenate([before, ties[: number - len(before)]])


def carry_over(lag: Floats, quota: Floats) -> Floats:
    """Return the lags after a change of weights.

    A domain that is off can neither catch up nor give back, so what it was owed is spread over the others in
    proportion to their quotas; the lags sum to zero again.
    """
    on = quota > 0
    kept = np.where(on, lag, 0.0)
    return kept - quota * (kept.sum() / quota.sum())


def _settle(counts: Floats, target: Floats, quota: Floats, short: int) -> None:
    """Even out one sample at a time: reached only just after a change of weights, when old lags compete."""
    served = quota > 0
    while short > 0:
        counts[np.argmax(np.where(served, target - counts, -np.inf))] += 1
        short -= 1
    while short < 0:
        counts[np.argmin(np.where(counts > 0, target - counts, np.inf))] -= 1
        short += 1

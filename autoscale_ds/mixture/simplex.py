"""Points of the simplex within bounds: scaling into them, the nearest above a floor, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array

# A smaller weight is 0: no run is long enough to draw a window by it.
NOTHING = 1e-12


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest weight of each domain, (m,) each."""

    floors: Array
    caps: Array

    @classmethod
    def of(cls, domains: Sequence[str], floor: float = 0.0, caps: Mapping[str, float] | None = None) -> Bounds:
        """Build bounds from one floor and caps by name; raises MixtureError when no mixture fits between them."""
        m = len(domains)
        if not (np.isfinite(floor) and floor >= 0 and floor * m <= 1):
            raise MixtureError(f"floor {floor:g} for {m} domains, expected between 0 and 1/{m} = {1 / m:.4g}")
        for name in caps or {}:
            if name not in domains:
                raise MixtureError(f"a cap names domain {name!r}; the domains are: {', '.join(domains)}")
        limits = np.array([min((caps or {}).get(name, 1.0), 1.0) for name in domains])
        low = [name for name, cap in zip(domains, limits, strict=True) if cap < floor]
        if low:
            raise MixtureError(
                f"the cap of {low[0]!r} lies below the floor {floor:g}; lower the floor or raise the cap"
            )
        if limits.sum() < 1 - 1e-9:
            raise MixtureError(
                f"the caps sum to {limits.sum():.4g}, so the budget cannot be filled; allow more epochs or fewer tokens"
            )
        return cls(np.full(m, float(floor)), limits)

    def scale_in(self, points: Array) -> Array:
        """Return points (n, m) scaled by one factor each and clipped, so that they lie within and sum to 1.

        A domain whose floor is 0 and that gets less than ``NOTHING`` is off: exactly 0.
        """
        points = np.maximum(points, 1e-300)
        low, high = np.full(len(points), -750.0), np.full(len(points), 750.0)
        for _ in range(80):  # bisection on the logarithm of the factor: 1500 / 2^80 is below rounding
            middle = (low + high) / 2
            total = np.clip(points * np.exp(middle)[:, None], self.floors, self.caps).sum(1)
            low, high = np.where(total < 1, middle, low), np.where(total < 1, high, middle)
        scaled = points * np.exp(high)[:, None]
        return np.clip(np.where(scaled < NOTHING, 0.0, scaled), self.floors, self.caps)


def epoch_caps(max_epochs: Mapping[str, float], available: Mapping[str, float], tokens: float) -> dict[str, float]:
    """Return the largest weight that reads a domain no more often than allowed.

    Parameters
    ----------
    max_epochs : mapping of str to float
        Passes over a domain; one that is not named has no cap.
    available : mapping of str to float
        Tokens of each domain.
    tokens : float
        Training budget, tokens.
    """
    return {name: epochs * available[name] / tokens for name, epochs in max_epochs.items()}


def tightest(*caps: Mapping[str, float]) -> dict[str, float]:
    """Return the smallest cap of each domain."""
    smallest: dict[str, float] = {}
    for each in caps:
        smallest.update({name: min(cap, smallest.get(name, cap)) for name, cap in each.items()})
    return smallest


def dirichlet(concentration: Array, count: int, seed: int) -> Array:
    """Return ``count`` low-discrepancy Dirichlet samples, shape (count, m).

    Scrambled Sobol points through the inverse gamma distribution: the same law as independent draws, spread more
    evenly. Concentrations under 0.05 are raised to it, where the inverse would underflow to all zeros.
    """
    from scipy.stats import qmc  # takes 0.7 s to import: not in a job that draws nothing

    m = len(concentration)
    power = int(np.ceil(np.log2(max(count, 2))))
    uniform = qmc.Sobol(m, scramble=True, rng=np.random.default_rng([seed, 11])).random_base2(power)[:count]
    amounts = gammaincinv(np.maximum(concentration, 0.05), np.clip(uniform, 1e-12, 1 - 1e-12))
    amounts = np.maximum(amounts, 1e-300)
    return np.asarray(amounts / amounts.sum(1, keepdims=True))


def nearest_above(point: Array, floors: Array, total: float) -> Array:
    """Return the point (m,) nearest to ``point`` of those at or above ``floors`` (m,) that sum to ``total``.

    With the tokens already read as floors, it is the closest mixture that a run can still reach.

    Notes
    -----
    Euclidean projection onto a simplex by sorting; Duchi et al., "Efficient projections onto the l1-ball", ICML 2008,
    figure 1. ``total`` must be at least the sum of the floors.
    """
    room = total - floors.sum()
    wanted = np.sort(point - floors)[::-1]
    excess = (np.cumsum(wanted) - room) / np.arange(1, len(wanted) + 1)
    last = int(np.flatnonzero(wanted > excess)[-1]) if room > 0 else 0
    return np.asarray(floors + (np.maximum(point - floors - excess[last], 0.0) if room > 0 else 0.0))

"""The convex allocation: how to split a total over domains whose returns diminish."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array


def allocate(
    offsets: Array, exponents: Array, total: float, *, floors: Array, caps: Array, cost: Array | None = None
) -> Array:
    """Minimise ``sum_i (x_i + a_i)^-b_i`` subject to ``sum_i cost_i x_i = total`` and ``floor_i <= x_i <= cap_i``.

    Parameters
    ----------
    offsets, exponents : array (m,)
        ``a_i`` and ``b_i`` > 0, with ``floor_i + a_i >= 0``.
    total : float
        What is shared out, in units of ``cost * x``.
    floors, caps : array (m,)
        Bounds of x; a cap may be infinite.
    cost : array (m,), optional
        Price of one unit of x (the base mixture, when x counts multiples of it); 1 by default.

    Raises
    ------
    MixtureError
        When the floors need more than the total, or the caps hold less.

    Notes
    -----
    The KKT conditions give ``x_i(l) = clip((b_i / (l cost_i))^(1 / (b_i + 1)) - a_i, floor_i, cap_i)``, decreasing in
    the multiplier l, so its root is found on a logarithmic bracket. AutoScale (arXiv 2407.20177), Theorem 1.
    """
    cost = np.ones_like(exponents) if cost is None else cost
    _check_bounds(total, cost, floors, caps)

    def amounts(log_multiplier: float) -> Array:
        log_ratio = np.log(exponents) - np.log(cost) - log_multiplier
        return np.clip(np.exp(np.clip(log_ratio / (exponents + 1), -700, 700)) - offsets, floors, caps)

    def excess(log_multiplier: float) -> float:
        return float(cost @ amounts(log_multiplier)) - total

    low, high = -1.0, 1.0
    while excess(low) < 0 and low > -1e5:
        low *= 2
    while excess(high) > 0 and high < 1e5:
        high *= 2
    root = brentq(excess, low, high, xtol=1e-14, rtol=8.9e-16, maxiter=500) if excess(low) * excess(high) < 0 else low
    return amounts(float(root))


def _check_bounds(total: float, cost: Array, floors: Array, caps: Array) -> None:
    needed, held = float(cost @ floors), float(np.sum(np.where(np.isinf(caps), np.inf, cost * caps)))
    if np.any(caps < floors):
        raise MixtureError("a cap lies below its floor; lower the floor or raise the cap")
    if needed > total * (1 + 1e-12):
        raise MixtureError(f"the floors need {needed:.6g} of a total of {total:.6g}; lower the floor")
    if held < total * (1 - 1e-12):
        raise MixtureError(f"the caps hold {held:.6g} of a total of {total:.6g}; raise a cap, or lower the budget")

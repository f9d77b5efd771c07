"""AutoScale: the optimal mixture at any budget, from the optima at two or more smaller ones.

Kang et al., arXiv 2407.20177: where each domain's loss is a power law in its tokens, the optimal tokens of all domains
move along ``N_i(t) = N1_i (N2_i / N1_i)^t``. Here t is solved so that the tokens sum to the budget exactly, and domains
that rest on a floor at one of the scales, where the ratio says nothing, stay on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.weights import DomainWeights

# With totals closer than a part in a thousand the slope over scale is not determined.
SAME_SCALE = 1e-3
# Published weights carry four decimals: within a part in ten thousand of the floor is on the floor.
ON_FLOOR = 1e-4


@dataclass(frozen=True)
class AutoScale:
    """Optimal tokens a domain as a straight line in log tokens against a path parameter t.

    Attributes
    ----------
    domains : tuple of str
        Names of the m domains, in the order of the arrays below.
    intercept, slope : array (m,)
        ``log N_i(t) = intercept_i + slope_i t``; t is 0 at the first scale and 1 at the last.
    path : array (scales,)
        Path parameter of each scale given.
    held : array (m,) of bool
        Domains that rest on the floor at one of the scales, and are kept there.
    floor : float
        Smallest weight of a domain; 0 for none.
    residual : float
        Root mean square of log tokens off the path; 0 for two scales.
    """

    domains: tuple[str, ...]
    intercept: Array
    slope: Array
    path: Array
    held: npt.NDArray[np.bool_]
    floor: float
    residual: float

    @classmethod
    def fit(cls, optima: Sequence[tuple[float, DomainWeights]], *, floor: float = 0.0) -> AutoScale:
        """Fit the path through optimal weights at two or more budgets.

        Parameters
        ----------
        optima : sequence of (tokens, DomainWeights)
            Budget and optimal weights at each scale, any order.
        floor : float
            Weight on which the optima were held; a domain there at any scale is kept there.

        Raises
        ------
        MixtureError
            For fewer than two distinct scales, a weight of zero without a floor, or every domain on its floor.

        Notes
        -----
        With two scales the path passes through both. With more, log tokens (scales x domains) are fitted by the
        line with the least squared distance, their first principal axis: the path parameter of a scale is not
        known in advance, only that all domains share it.
        """
        optima = sorted(optima, key=lambda pair: pair[0])
        domains, tokens = _tokens(optima)
        shares = tokens / tokens.sum(1, keepdims=True)
        if not 0 <= floor * len(domains) < 1:
            raise MixtureError(f"floor {floor:g} for {len(domains)} domains, expected between 0 and 1/{len(domains)}")
        held = np.asarray((shares <= floor * (1 + ON_FLOOR)).any(0) & (floor > 0))
        if held.all():
            raise MixtureError(
                f"every domain rests on the floor {floor:g} at some scale, so no ratio is known; lower the floor"
            )
        _refuse_zero(domains, tokens, held)
        logs = np.log(np.where(held, 1.0, tokens))
        path = _path(logs[:, ~held])
        design = np.stack([np.ones_like(path), path], axis=1)
        (intercept, slope), *_ = np.linalg.lstsq(design, logs, rcond=None)
        residual = float(np.sqrt(np.mean((logs - design @ np.stack([intercept, slope]))[:, ~held] ** 2)))
        return cls(domains, intercept, slope, path, held, floor, residual if len(optima) > 2 else 0.0)

    def predict(self, num_tokens: float) -> DomainWeights:
        """Return the predicted optimal weights at a training budget.

        Parameters
        ----------
        num_tokens : float
            Training budget, tokens summed over domains.

        Raises
        ------
        MixtureError
            If the budget is not positive, or lies before the point where the path's total starts to grow.

        Notes
        -----
        Solves ``sum_i N1_i (N2_i / N1_i)^t = num_tokens`` for real ``t``. A domain that the path takes below the
        floor is put on it and the rest is solved again, until none is below.
        """
        if not (np.isfinite(num_tokens) and num_tokens > 0):
            raise MixtureError(f"budget is {num_tokens:g} tokens, expected a positive number")
        held = self.held.copy()
        while True:
            shares = self._shares(num_tokens, held)
            below = (shares < self.floor * (1 - 1e-12)) & ~held
            if not below.any():
                return DomainWeights(dict(zip(self.domains, map(float, shares / shares.sum()), strict=True)))
            held |= below

    def tokens_at(self, t: float) -> dict[str, float]:
        """Return tokens a domain at path parameter t, held domains left out: no budget, no floor."""
        tokens = np.exp(self.intercept + self.slope * t)
        return {name: float(n) for name, n, held in zip(self.domains, tokens, self.held, strict=True) if not held}

    def _shares(self, num_tokens: float, held: npt.NDArray[np.bool_]) -> Array:
        free = ~held
        budget = num_tokens * (1 - self.floor * held.sum())
        t = _solve_total(self.intercept[free], self.slope[free], budget)
        return np.where(held, self.floor, np.exp(self.intercept + self.slope * t) / num_tokens)


def _tokens(optima: Sequence[tuple[float, DomainWeights]]) -> tuple[tuple[str, ...], Array]:
    """Return the domains and tokens (scales, m), refusing what cannot be a path."""
    if len(optima) < 2:
        raise MixtureError(f"{len(optima)} scale given; AutoScale needs the optima at two budgets or more")
    domains = tuple(optima[0][1])
    for total, weights in optima:
        if not (np.isfinite(total) and total > 0):
            raise MixtureError(f"a scale of {total:g} tokens; expected a positive number")
        weights.check_domains(list(domains))
    totals = [total for total, _ in optima]
    for before, after in pairwise(totals):
        if after <= before * (1 + SAME_SCALE):
            raise MixtureError(
                f"two scales are the same ({before:g} and {after:g} tokens); give optima at different ones"
            )
    rows = np.array([[weights[name] for name in domains] for _, weights in optima])
    return domains, rows / rows.sum(1, keepdims=True) * np.array(totals)[:, None]


def _refuse_zero(domains: tuple[str, ...], tokens: Array, held: npt.NDArray[np.bool_]) -> None:
    for name, amounts, fixed in zip(domains, tokens.T, held, strict=True):
        if not fixed and (amounts == 0).any():
            raise MixtureError(
                f"domain {name!r} has zero tokens at a scale, so its growth is unknown; "
                "leave it out of every scale, or give the floor it rests on"
            )


def _path(logs: Array) -> Array:
    """Return the path parameter of each scale, 0 for the first and 1 for the last."""
    if len(logs) == 2:
        return np.array([0.0, 1.0])
    centred = logs - logs.mean(0)
    position = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    return (position - position[0]) / (position[-1] - position[0])


def _solve_total(intercept: Array, slope: Array, budget: float) -> float:
    """Return the t on the growing branch at which the tokens sum to the budget."""

    def log_total(t: float) -> float:
        exponents = intercept + slope * t
        top = float(exponents.max())
        return top + float(np.log(np.exp(exponents - top).sum()))

    target = float(np.log(budget))
    left = _start_of_growth(log_total, slope)
    if log_total(left) > target:
        raise MixtureError(
            f"the path never has as few as {budget:g} tokens: some domain's optimum shrinks with scale; "
            "choose a larger budget, or give optima nearer to it"
        )
    right = max(1.0, left + 1.0)
    while log_total(right) < target:
        right += 2 * (right - left)
        if right > 1e9:
            raise MixtureError(
                f"the path does not reach {budget:g} tokens: the optima hardly differ between the scales"
            )
    return float(brentq(lambda t: log_total(t) - target, left, right, xtol=1e-13, rtol=8.9e-16, maxiter=500))


def _start_of_growth(log_total: Callable[[float], float], slope: Array) -> float:
    """Return the t from which the total grows: far left, or the minimum of the (convex) log total."""
    if slope.max() <= 0:
        raise MixtureError("no domain's optimal tokens grow with scale; the optima contradict their budgets")
    if slope.min() >= 0:
        return -1e4 / float(slope.max())
    return float(minimize_scalar(log_total, bracket=(-1.0, 1.0)).x)

"""DDO: one curve a domain from a few perturbation runs, and the best mixture at that scale.

Kang et al., arXiv 2407.20177, section 3: train on a base mixture, then once per domain with only that domain's tokens
multiplied by a low and by a high factor (the total changes). The objective along domain i is fitted by
``y(x) = (x + a)^-b + c``, x in multiples of the base tokens and y in multiples of the base run's value, and the sum of
the curves is minimised over the split of the base total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search.allocation import allocate

# Starts and bounds of the search: three points determine only a combination of a and b, so both need bounds.
STARTS = ((3.0, 1.5), (1.0, 0.5), (0.3, 0.3), (10.0, 4.0), (0.05, 1.0))
LARGEST = 1e3
# Fits that miss their points by less are all exact; published perplexities carry ten digits.
EXACT = 1e-9
# Logged weights are rounded: the other domains' tokens must agree with the base run within this share.
SAME_TOKENS = 0.02


@dataclass(frozen=True)
class Curve:
    """``y(x) = (x + a)^-b + c``; ``residual`` is the root mean square misfit of its points."""

    a: float
    b: float
    c: float
    residual: float = 0.0

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return y at multiples x of the base tokens."""
        return np.asarray((np.asarray(x, float) + self.a) ** -self.b + self.c)


def fit_curve(
    x: npt.ArrayLike, y: npt.ArrayLike, *, starts: Sequence[tuple[float, float]] = STARTS, tolerance: float = 1e-15
) -> Curve:
    """Fit ``(x + a)^-b + c`` to three points or more, x >= 0 in multiples of the base, y falling with x.

    ``starts`` are the (a, b) the search begins at, ``tolerance`` is where it ends.

    Raises
    ------
    MixtureError
        For fewer than three different x, or a y that rises from the first to the last.

    Notes
    -----
    The least squares fit with ``a > 0`` and ``b > 0``; c enters linearly and is solved for. Three points are met
    exactly by *two* curves as a rule, one nearly logarithmic (b near 0.1) and one steeper with a higher limit c. The
    released fits are of the second kind, which promises less from more tokens; it is the one chosen here.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(np.unique(x)) < 3:
        raise MixtureError(f"{len(np.unique(x))} different amounts of the domain, expected 3: low, base and high")
    if y[np.argmax(x)] >= y[np.argmin(x)]:
        raise MixtureError("the objective does not fall as the domain's tokens grow, so no curve describes it")

    def residuals(theta: Array) -> Array:
        with np.errstate(over="ignore"):  # at the bounds a curve may overflow; the search rejects such a point
            power = (x + np.exp(theta[0])) ** -np.exp(theta[1])
        return np.asarray(power - power.mean() - (y - y.mean()))

    bounds = (np.log([1e-9, 1e-6]), np.log([LARGEST, LARGEST]))
    fits = [
        least_squares(
            residuals, np.log(start), bounds=bounds, xtol=tolerance, ftol=tolerance, gtol=tolerance, max_nfev=2000
        )
        for start in starts
    ]
    misfit = [float(np.sqrt(np.mean(fit.fun**2))) for fit in fits]
    equal = [fit for fit, size in zip(fits, misfit, strict=True) if size <= 1.01 * min(misfit) + EXACT]
    curves = [_curve(x, y, *np.exp(fit.x)) for fit in equal]
    return max(curves, key=lambda curve: curve.c)


def fit_curves(
    points: Mapping[str, Sequence[tuple[float, float]]], base_value: float
) -> tuple[dict[str, Curve], dict[str, str]]:
    """Return the curve of each domain through the base and its points, and why others have none.

    Parameters
    ----------
    points : mapping of str to sequence of (factor, objective)
        As for ``DDO.fit``.
    base_value : float
        Objective of the base run, the unit of the curves.
    """
    curves, failed = {}, {}
    for name, runs in points.items():
        x, y = [1.0, *(x for x, _ in runs)], [1.0, *(y / base_value for _, y in runs)]
        try:
            curves[name] = fit_curve(x, y)
        except MixtureError as error:
            failed[name] = str(error)
    return curves, failed


def _curve(x: Array, y: Array, a: float, b: float) -> Curve:
    power = (x + a) ** -b
    c = float(np.mean(y - power))
    return Curve(float(a), float(b), c, float(np.sqrt(np.mean((power + c - y) ** 2))))


@dataclass(frozen=True)
class DDO:
    """Fitted curves around a base mixture.

    Attributes
    ----------
    base : DomainWeights
        Weights of the base run.
    tokens : float
        Tokens of the base run.
    curves : mapping of str to Curve
        By domain: the objective against the domain's tokens, in multiples of the base's.
    """

    base: DomainWeights
    tokens: float
    curves: Mapping[str, Curve]

    @classmethod
    def fit(
        cls, base: DomainWeights, tokens: float, points: Mapping[str, Sequence[tuple[float, float]]], base_value: float
    ) -> DDO:
        """Fit one curve a domain.

        Parameters
        ----------
        points : mapping of str to sequence of (factor, objective)
            Perturbation runs of each domain: multiples of its base tokens (the base run itself is added).
        base_value : float
            Objective of the base run; the unit of y.
        """
        curves, failed = fit_curves({name: points.get(name, ()) for name in base}, base_value)
        for name, reason in failed.items():
            raise MixtureError(f"domain {name!r}: {reason}")
        return cls(base, tokens, curves)

    @classmethod
    def from_table(cls, table: RunTable, base_run: str, objective: Objective) -> DDO:
        """Recognise the perturbation runs of a table by their token counts, and fit.

        Raises
        ------
        MixtureError
            For an unknown base run, a domain without a low and a high run, or a loss that is missing.
        """
        row = _base_row(table, base_run)
        values = objective.of_table(table)
        points: dict[str, list[tuple[float, float]]] = {name: [] for name in table.domains}
        for i, domain, factor in perturbations(table, base_run):
            if not np.isfinite(values[i]):
                raise MixtureError(f"run {table.runs[i]!r} lacks a loss of the objective; measure it or choose targets")
            points[domain].append((factor, float(values[i])))
        base = DomainWeights.normalised(dict(zip(table.domains, map(float, table.weights[row]), strict=True)))
        for name, runs in points.items():
            if not (any(x < 1 for x, _ in runs) and any(x > 1 for x, _ in runs)):
                missing = "low" if not any(x < 1 for x, _ in runs) else "high"
                raise MixtureError(
                    f"domain {name!r} has no {missing} run beside base run {base_run!r}: a row with only its tokens "
                    "changed is expected"
                )
        return cls.fit(base, float(table.tokens[row]), points, float(values[row]))

    def optimum(self, *, floor: float = 0.0, caps: Mapping[str, float] | None = None) -> DomainWeights:
        """Return the best weights at the base total.

        Parameters
        ----------
        floor : float
            Smallest weight of a domain.
        caps : mapping of str to float, optional
            Largest weight of a domain, where there is one.
        """
        base = np.array(list(self.base.values()))
        curves = [self.curves[name] for name in self.base]
        limits = np.array([(caps or {}).get(name, np.inf) for name in self.base])
        x = allocate(
            np.array([curve.a for curve in curves]),
            np.array([curve.b for curve in curves]),
            1.0,
            floors=floor / base,
            caps=limits / base,
            cost=base,
        )
        return DomainWeights.normalised(dict(zip(self.base, map(float, x * base), strict=True)))


def perturbations(table: RunTable, base_run: str) -> list[tuple[int, str, float]]:
    """Return (row, domain, factor) of every run in which only that domain's tokens differ from the base run's."""
    row = _base_row(table, base_run)
    tokens = table.weights * table.tokens[:, None]
    same_size = np.nan_to_num(table.parameters) == np.nan_to_num(table.parameters[row])
    changes = []
    for i in np.flatnonzero(same_size):
        change = perturbed(tokens[row], tokens[i]) if i != row else None
        if change is not None:
            changes.append((int(i), table.domains[change[0]], change[1]))
    return changes


def perturbed(base: Array, tokens: Array) -> tuple[int, float] | None:
    """Return (domain index, factor) when exactly one domain's tokens differ from the base run's, else None."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.log(tokens / base))
    change = np.where((tokens == 0) & (base == 0), 0.0, change)
    index = int(np.argmax(change))
    others = np.delete(change, index)
    if base[index] == 0 or not change[index] > 2 * SAME_TOKENS or others.max(initial=0.0) > SAME_TOKENS:
        return None
    return index, float(tokens[index] / base[index])


def _base_row(table: RunTable, base_run: str) -> int:
    rows = [i for i, run in enumerate(table.runs) if run == base_run]
    if len(rows) != 1:
        known = ", ".join(table.runs[:8]) + (", …" if len(table) > 8 else "")
        raise MixtureError(f"base run {base_run!r} is in the table {len(rows)} times, expected once; runs: {known}")
    zero = [name for name, w in zip(table.domains, table.weights[rows[0]], strict=True) if w == 0]
    if zero:
        raise MixtureError(f"base run {base_run!r} has no tokens of {zero[0]!r}, so no factor can change them")
    return rows[0]

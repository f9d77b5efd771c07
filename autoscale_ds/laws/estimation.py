"""How a formula is fitted to noisy runs: starts, prior, noise, outliers, and an ensemble for intervals.

The noise and the weight of the prior are estimated together: ``sigma^2 = RSS / (n - p_eff)``, with p_eff the effective
number of parameters, fixes how much the prior counts in the next round. Many clean runs are followed closely and a
few noisy ones lean on the prior.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.laws.base import Natural, Parameter
from autoscale_ds.laws.least_squares import TOLERANCE, Problem, Solution, solve
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.jsonfiles import Field

Evaluate = Callable[[Natural], tuple[Array, Mapping[str, Array]]]
"""Natural parameters to values (n,) and the derivative by each of them, (n,) or (n, m)."""

# Rounds of (fit, noise, outlier weights): the noise changes by under a per cent after four.
ROUNDS = 4
# Relative gain at which the steps of a fit for comparisons end.
QUICK = 1e-5
# Runs beyond this many noise standard deviations count as much as one at that distance, not more.
OUTLIER = 3.5
# The noise is taken to be at least this share of the spread of the losses, however well a formula fits.
SMALLEST_NOISE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """What a fit found.

    Attributes
    ----------
    theta : array (p,)
        Internal parameters (see Parameter).
    noise : float
        Standard deviation of a row around the formula, in units of y.
    draws : array (d, p)
        Equally likely alternatives to ``theta``; the spread of their predictions is the uncertainty of the formula.
    """

    theta: Array
    noise: float
    draws: Array


def estimate(
    evaluate: Evaluate,
    layout: Sequence[Parameter],
    y: Array,
    *,
    m: int = 1,
    run: npt.NDArray[np.intp] | None = None,
    seed: int = 0,
    starts: int = 2,
    draws: int = 0,
    widen: float = 1.0,
) -> Estimate:
    """Fit to y (n,) by regularised least squares with outliers down-weighted.

    Parameters
    ----------
    m : int
        How many numbers a parameter ``per_domain`` stands for.
    run : array (n,) or None
        The run of each row, where several may be of one (see ``Inputs``).
    starts : int
        The first start is the layout's; further ones are spread around it. With one the steps also end earlier, as
        comparisons on held-out runs need no last digits.
    draws : int
        Size of the ensemble; 0 for none.
    widen : float
        Factor on the noise the ensemble is drawn with.

    Notes
    -----
    The priors make any number of rows solvable, as folds of a small table need; whether there are enough to trust the
    result is asked before (``table_fits.unsupported``).
    """
    stated = problem(evaluate, layout, y, m)
    # The data enter the seed, so that the draws of different targets are independent.
    rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(y).tobytes())])
    solution = _best_start(stated, layout, m, starts, rng)
    most, tolerance = (200, TOLERANCE) if starts > 1 else (60, QUICK)
    for round_ in range(ROUNDS):
        stated = _updated(stated, solution)
        steps = 20 if round_ < ROUNDS - 1 else most
        solution = solve(stated, solution.theta, max_steps=steps, tolerance=tolerance)
    noise = Noise.of(stated, solution, _noise(stated, solution), run)
    return Estimate(solution.theta, noise.total, _draws(stated, solution, noise.times(widen), draws, rng))


def natural(layout: Sequence[Parameter], theta: Array, m: int = 1) -> dict[str, Array]:
    """Return parameters in natural units: scalars (), and (m,) for those of each domain."""
    values, start = {}, 0
    for q in layout:
        piece = theta[start : start + m] if q.per_domain else theta[start]
        values[q.name] = (
            np.exp(piece) if q.form == "log" else 1 / (1 + np.exp(-piece)) if q.form == "logit" else np.asarray(piece)
        )
        start += m if q.per_domain else 1
    return values


def internal(layout: Sequence[Parameter], values: Mapping[str, Any]) -> Array:
    """Return the internal parameters of natural ones; the inverse of ``natural``."""
    pieces = []
    for q in layout:
        value = np.atleast_1d(np.asarray(values[q.name], float))
        pieces.append(np.log(value) if q.form == "log" else np.log(value / (1 - value)) if q.form == "logit" else value)
    return np.concatenate(pieces)


def decode(layout: Sequence[Parameter], entry: Field, domains: Sequence[str] = ()) -> Estimate:
    """Return an estimate from the fields ``parameters``, in natural units by name, ``noise`` and ``draws`` of a file.

    Raises
    ------
    ValueError
        Naming the field that is missing or cannot be.
    """
    given = entry["parameters"]
    theta = internal(layout, {q.name: _decode_parameter(given[q.name], q, domains) for q in layout})
    draws = np.array([_decode_draw(line, len(theta)) for line in entry["draws"].items(fewest=1)])
    return Estimate(theta, entry["noise"].number(least=0), draws)


def _decode_parameter(field: Field, q: Parameter, domains: Sequence[str]) -> list[float]:
    above = -np.inf if q.form == "linear" else 0.0
    numbers = [each.number(above=above) for each in ([field[name] for name in domains] if q.per_domain else [field])]
    if q.form == "logit" and max(numbers) >= 1:
        raise field.wrong("numbers between 0 and 1")
    return numbers


def _decode_draw(field: Field, count: int) -> list[float]:
    try:
        numbers = [float(text) for text in field.text().split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise field.wrong(f"{count} finite numbers")
    return numbers


def problem(evaluate: Evaluate, layout: Sequence[Parameter], y: Array, m: int = 1) -> Problem:
    """Return the least-squares problem in internal parameters, before any noise is known."""

    def model(theta: Array) -> tuple[Array, Array]:
        p = natural(layout, theta, m)
        values, by = evaluate(p)
        return values, np.column_stack([_chain(q, p[q.name], by[q.name]) for q in layout])

    return Problem(
        model=model,
        y=y,
        q=np.ones_like(y),
        sigma=0.1 * max(float(y.std()), 1e-9),
        centre=_spread(layout, m, [q.start for q in layout]),
        precision=_spread(layout, m, [0.0 if q.width is None else q.width**-2 for q in layout]),
        lower=_spread(layout, m, [q.lower for q in layout]),
        upper=_spread(layout, m, [q.upper for q in layout]),
    )


def _chain(q: Parameter, value: Array, derivative: Array) -> Array:
    """Return the derivative by the internal parameter."""
    return derivative * (value if q.form == "log" else value * (1 - value) if q.form == "logit" else 1.0)


def _spread(layout: Sequence[Parameter], m: int, values: list[float]) -> Array:
    """Return one number for each fitted number from one for each parameter."""
    counts = [m if q.per_domain else 1 for q in layout]
    return np.repeat(np.array(values, float), counts)


def _best_start(
    problem: Problem, layout: Sequence[Parameter], m: int, starts: int, rng: np.random.Generator
) -> Solution:
    jitter = _spread(layout, m, [q.jitter for q in layout])
    guesses = [problem.centre] + [problem.centre + jitter * rng.standard_normal(len(jitter)) for _ in range(starts - 1)]
    return min((solve(problem, guess, max_steps=30) for guess in guesses), key=lambda solution: solution.cost)


def _updated(problem: Problem, solution: Solution) -> Problem:
    """Return the problem with outliers down-weighted and the noise estimated again."""
    residual = np.abs(solution.values - problem.y)
    n = len(residual)
    # The median says how far a usual run lies, whatever a few wild ones do to the sum of squares.
    usual = 1.4826 * float(np.median(residual)) * np.sqrt(n / max(n - _effective(problem, solution), 0.1 * n))
    distance = residual / max(usual, SMALLEST_NOISE * float(problem.y.std()), 1e-9)
    q = np.minimum(1.0, (OUTLIER / np.maximum(distance, 1e-12)) ** 2)
    problem = replace(problem, q=q)
    return replace(problem, sigma=_noise(problem, solution))


def _effective(problem: Problem, solution: Solution) -> float:
    """Return the effective number of parameters, the trace of the hat matrix."""
    data = solution.normal - np.diag(problem.precision)
    matrix = solution.normal + 1e-10 * np.trace(solution.normal) * np.eye(len(solution.normal)) / len(solution.normal)
    return float(np.trace(np.linalg.solve(matrix, data)))


def _noise(problem: Problem, solution: Solution) -> float:
    n = len(problem.y)
    freedom = max(n - _effective(problem, solution), 0.1 * n)
    rss = float(problem.q @ (solution.values - problem.y) ** 2)
    return max(np.sqrt(rss / freedom), SMALLEST_NOISE * float(problem.y.std()), 1e-9)


@dataclass(frozen=True)
class Noise:
    """Noise of a fit in two parts, nats: what all rows of a run share, and what each row has of its own.

    Attributes
    ----------
    shared, own : float
        Standard deviations.
    run : array (n,) or None
        Number of each row's run, from 0 without gaps; None where every row is one.
    freedom : float
        Degrees of freedom the estimate has.
    """

    shared: float
    own: float
    run: npt.NDArray[np.intp] | None
    freedom: float

    @classmethod
    def of(cls, problem: Problem, solution: Solution, sigma: float, run: npt.NDArray[np.intp] | None) -> Noise:
        """Split noise ``sigma`` by the residuals' variance within and between runs."""
        effective = _effective(problem, solution)
        freedom = max(len(problem.y) - effective, 3.0)
        run = None if run is None else np.unique(run, return_inverse=True)[1].ravel()
        if run is None or run.max() + 1 == len(run):
            return cls(0.0, sigma, None, freedom)
        residual = (problem.y - solution.values) * np.sqrt(problem.q)
        rows = np.bincount(run)
        mean = np.bincount(run, residual) / rows
        runs, own = len(rows), float(((residual - mean[run]) ** 2).sum()) / (len(run) - len(rows))
        # The parameters are fitted to the differences between runs: those are as many as there are runs.
        between = float((mean**2).sum()) / max(runs - effective, runs / 4)
        shared = max(between - float(np.mean(own / rows)), 0.0)
        total = max(shared + own, 1e-300)
        design_effect = 1 + (len(run) / runs - 1) * shared / total
        freedom = max(len(run) / design_effect - effective, 3.0)
        scale = max(sigma / np.sqrt(total), 1.0)  # together at least what the fit says
        return cls(np.sqrt(shared) * scale, np.sqrt(own) * scale, run, freedom)

    @property
    def total(self) -> float:
        """Standard deviation of a row around the law."""
        return float(np.hypot(self.shared, self.own))

    def times(self, factor: float) -> Noise:
        """Return the noise multiplied by a factor."""
        return replace(self, shared=self.shared * factor, own=self.own * factor)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Return the noise of n rows."""
        own = self.own * rng.standard_normal(n)
        return own if self.run is None else own + self.shared * rng.standard_normal(self.run.max() + 1)[self.run]

    def covariance(self, jacobian: Array) -> Array:
        """Return ``J' V J`` for the rows' covariance V, shape (p, p)."""
        total = self.own**2 * jacobian.T @ jacobian
        if self.run is None:
            return total
        sums = np.zeros((self.run.max() + 1, jacobian.shape[1]))
        np.add.at(sums, self.run, jacobian)
        return total + self.shared**2 * sums.T @ sums


def _draws(problem: Problem, solution: Solution, noise: Noise, count: int, rng: np.random.Generator) -> Array:
    """Return alternatives by refitting perturbed data against a perturbed prior ("randomise, then optimise").

    Bardsley et al., SIAM J. Sci. Comput. 36 (2014): exact draws of the posterior where the law is linear, and still
    solutions of the law, within its bounds, where it is not. The noise itself is drawn from its chi-square, so few
    degrees of freedom widen the ensemble as they do Student's t.
    """
    if count == 0:
        return solution.theta[None]
    n = len(problem.y)
    width = np.where(problem.precision > 0, 1 / np.sqrt(np.maximum(problem.precision, 1e-300)), 0.0)
    drawn = []
    for _ in range(count):
        wider = np.sqrt(noise.freedom / rng.chisquare(noise.freedom))
        perturbed = Problem(
            problem.model,
            solution.values + wider * noise.draw(n, rng),
            np.ones(n),
            wider * max(noise.total, problem.sigma),
            problem.centre + width * rng.standard_normal(len(width)),
            problem.precision,
            problem.lower,
            problem.upper,
        )
        drawn.append(solve(perturbed, solution.theta, max_steps=15, tolerance=1e-4).theta)
    return np.clip(_rescaled(problem, solution, np.array(drawn), noise), problem.lower, problem.upper)


def _rescaled(problem: Problem, solution: Solution, drawn: Array, noise: Noise) -> Array:
    """Return the draws with the variance that the linearised law has over its own runs.

    A few dozen draws miss their variance by a tenth or more, the same way for every prediction; its mean over the runs
    is known, that of the linearised fit times the ``freedom / (freedom - 2)`` of an estimated noise.
    """
    jacobian = solution.jacobian
    normal = solution.normal + 1e-10 * np.trace(solution.normal) * np.eye(len(solution.normal)) / len(solution.normal)
    inner = noise.covariance(jacobian) / problem.sigma**4 + np.diag(problem.precision)
    inverse = np.linalg.inv(normal)
    known = float(np.einsum("ij,jk,ik->", jacobian, inverse @ inner @ inverse, jacobian)) / len(problem.y)
    known *= max(noise.freedom, 3.0) / (max(noise.freedom, 3.0) - 2)
    change = np.array([problem.model(theta)[0] for theta in drawn]) - solution.values
    ratio = np.sqrt(known / max(float(np.mean(change**2)), 1e-300))
    return np.asarray(solution.theta + float(np.clip(ratio, 0.7, 1.4)) * (drawn - solution.theta))

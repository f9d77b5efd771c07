"""Regularised nonlinear least squares within bounds, small and fast enough for thousands of fits.

Levenberg–Marquardt on the normal equations: with a few dozen parameters and up to a few thousand runs one step costs
well under a millisecond, where a general trust-region solver spends most of its time outside the arithmetic. Variables
that rest on a bound and are pushed against it are left out of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoscale_ds.mixture.arrays import Array

Model = Callable[[Array], tuple[Array, Array]]
# Relative decrease of the cost under which a fit counts as finished, and how often a step may fail in a row.
TOLERANCE, PATIENCE = 1e-7, 8


@dataclass(frozen=True)
class Problem:
    """Minimise ``sum_n q_n (f_n(theta) - y_n)^2 / sigma^2 + sum_p ((theta_p - centre_p) / width_p)^2`` in a box.

    Attributes
    ----------
    model : callable
        theta (p,) to values (n,) and their Jacobian (n, p).
    y, q : array (n,)
        Data and their weights (1, or less for outliers).
    sigma : float
        Noise, in units of y; it sets how much the prior counts.
    centre, precision, lower, upper : array (p,)
        Prior centre and ``1 / width^2`` (0 for no prior), bounds.
    """

    model: Model
    y: Array
    q: Array
    sigma: float
    centre: Array
    precision: Array
    lower: Array
    upper: Array


@dataclass(frozen=True)
class Solution:
    """Where it ended: ``normal`` is the Gauss–Newton matrix ``J' q J / sigma^2 + precision`` there."""

    theta: Array
    values: Array
    jacobian: Array
    cost: float
    normal: Array


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # a trial step may overshoot; it is rejected by its cost
def solve(problem: Problem, start: Array, *, max_steps: int = 200, tolerance: float = TOLERANCE) -> Solution:
    """Return the local minimum reached from ``start``; done when a step gains less than ``tolerance`` of the cost."""
    theta = np.clip(start, problem.lower, problem.upper)
    values, jacobian = problem.model(theta)
    cost, damping, failures = _cost(problem, theta, values), 1e-2, 0
    for _ in range(max_steps):
        normal, gradient = _normal(problem, theta, values, jacobian)
        while failures < PATIENCE:
            trial = np.clip(theta + _step(problem, theta, normal, gradient, damping), problem.lower, problem.upper)
            trial_values, trial_jacobian = problem.model(trial)
            trial_cost = _cost(problem, trial, trial_values)
            if trial_cost <= cost:
                break
            damping, failures = damping * 5, failures + 1
        else:
            break
        gain = cost - trial_cost
        theta, values, jacobian, cost = trial, trial_values, trial_jacobian, trial_cost
        damping, failures = max(damping / 4, 1e-9), 0
        if gain <= tolerance * cost:
            break
    return Solution(theta, values, jacobian, cost, _normal(problem, theta, values, jacobian)[0])


def _cost(problem: Problem, theta: Array, values: Array) -> float:
    misfit = (values - problem.y) / problem.sigma
    cost = float(problem.q @ misfit**2 + problem.precision @ (theta - problem.centre) ** 2)
    return cost if np.isfinite(cost) else np.inf


def _normal(problem: Problem, theta: Array, values: Array, jacobian: Array) -> tuple[Array, Array]:
    weighted = jacobian * (problem.q / problem.sigma**2)[:, None]
    normal = weighted.T @ jacobian
    normal[np.diag_indices_from(normal)] += problem.precision
    return normal, weighted.T @ (values - problem.y) + problem.precision * (theta - problem.centre)


def _step(problem: Problem, theta: Array, normal: Array, gradient: Array, damping: float) -> Array:
    held = ((theta <= problem.lower) & (gradient > 0)) | ((theta >= problem.upper) & (gradient < 0))
    free = np.flatnonzero(~held)
    step = np.zeros_like(theta)
    matrix = normal[np.ix_(free, free)]
    diagonal = np.diag(matrix)
    # The second term keeps a parameter the data do not see (a zero column) from making the matrix singular.
    matrix = matrix + np.diag(damping * diagonal + 1e-12 * max(float(diagonal.max(initial=0.0)), 1e-300))
    try:
        step[free] = -np.linalg.solve(matrix, gradient[free])
    except np.linalg.LinAlgError:
        step[free] = -gradient[free] / np.maximum(diagonal, 1e-300)
    return step

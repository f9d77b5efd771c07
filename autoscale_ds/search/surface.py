"""What is believed of the objective at some mixtures and scales, and what one more run there would tell.

The belief is a joint normal distribution: the spread of a law's draws, and what the law misses at a mixture,
which is alike at every scale and at mixtures nearby. A run at one point narrows the belief at all of them. Its worth is
the knowledge gradient: by how much the objective of the mixture one would then choose is expected to fall.

References
----------
Frazier, Powell and Dayanik, "The knowledge-gradient policy for correlated normal beliefs", INFORMS J. Comput. 21, 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from autoscale_ds.laws.holdout import mixture_folds
from autoscale_ds.laws.model import LossModel
from autoscale_ds.laws.score import within_scale
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable

# What a law misses is alike at two mixtures with correlation exp(-distance / NEARBY), distance as in ``distances``.
NEARBY = 0.3
# Joint draws that give the expected regret within a few per cent of the spread between draws.
DRAWS = 4000


Indices = npt.NDArray[np.intp]


class Scale(NamedTuple):
    """Tokens and size of a run (NaN where unknown), and the tokens of text it can draw from each domain (m,)."""

    tokens: float
    parameters: float = np.nan
    unique: Array | None = None


@dataclass(frozen=True)
class Points:
    """Mixtures (p, m) with tokens and size (p,) each, and the tokens of text they can draw (p, m) where known."""

    weights: Array
    tokens: Array
    parameters: Array
    unique: Array | None = None

    @classmethod
    def at(cls, weights: Array, scale: Scale) -> Points:
        """Return mixtures (p, m) at one scale."""
        count = len(weights)
        unique = None if scale.unique is None else np.tile(scale.unique, (count, 1))
        return cls(weights, np.full(count, scale.tokens), np.full(count, scale.parameters), unique)

    @classmethod
    def of_table(cls, table: RunTable) -> Points:
        """Return the runs of a table."""
        return cls(table.weights, table.tokens, table.parameters, table.unique)

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def costs(self) -> Array:
        """What a run at each point costs, tokens times size (p,); tokens where no size is known."""
        return self.tokens * np.nan_to_num(self.parameters, nan=1.0)

    def take(self, rows: Any) -> Points:
        """Return the points of a slice, index array or mask."""
        unique = None if self.unique is None else self.unique[rows]
        return Points(self.weights[rows], self.tokens[rows], self.parameters[rows], unique)

    def without(self, others: Points, same: float) -> Points:
        """Return the points that are none of some others: another mixture, or tokens that differ by a factor."""
        mixture = np.abs(self.weights[:, None] - others.weights).max(-1) < 1e-5
        budget = np.abs(np.log(self.tokens[:, None] / others.tokens)) < np.log(same)
        return self.take(~(mixture & budget).any(1))

    def __add__(self, other: Points) -> Points:
        unique = None
        if self.unique is not None and other.unique is not None:
            unique = np.vstack([self.unique, other.unique])
        return Points(
            np.vstack([self.weights, other.weights]),
            np.append(self.tokens, other.tokens),
            np.append(self.parameters, other.parameters),
            unique,
        )


@dataclass(frozen=True)
class Surface:
    """Joint normal belief about the objective at points: mean (p,) and covariance (p, p)."""

    mean: Array
    covariance: Array

    @classmethod
    def of_draws(cls, drawn: Array) -> Surface:
        """Return the belief that has the mean and covariance of draws (s, p)."""
        deviations = drawn - drawn.mean(0)
        return cls(drawn.mean(0), deviations.T @ deviations / len(drawn))

    @classmethod
    def mixed(cls, parts: Sequence[Surface]) -> Surface:
        """Return the mean and covariance of several beliefs, one of which is right, each as likely."""
        means = np.array([part.mean for part in parts])
        between = means - means.mean(0)
        covariance = np.mean([part.covariance for part in parts], axis=0) + between.T @ between / len(parts)
        return cls(means.mean(0), covariance)

    def after_run(self, point: int, noise: float) -> Surface:
        """Return the belief after a run at a point whose result is not known yet: as certain, mean as it was."""
        told = self.covariance[:, point] / np.sqrt(self.covariance[point, point] + noise**2)
        return Surface(self.mean, self.covariance - np.outer(told, told))

    def worth(self, decisions: Indices, runs: Indices, noise: float) -> Array:
        """Return by how much a run at each of some points lowers the expected objective of the best decision.

        Parameters
        ----------
        decisions : array of int (d,)
            Points one may choose in the end.
        runs : array of int (c,)
            Points where a run may be made.
        noise : float
            Standard deviation of the objective between runs.

        Returns
        -------
        array (c,)
            At least 0, in units of the objective.
        """
        variance = np.maximum(self.covariance[runs, runs], 0) + noise**2
        told = self.covariance[np.ix_(decisions, runs)] / np.sqrt(variance)
        return np.array([knowledge_gradient(-self.mean[decisions], each) for each in told.T])

    def most_telling(self, runs: Sequence[int], count: int, noise: float) -> list[int]:
        """Return some of the points that may be run, by a greedy D-optimal design, the most telling first.

        Each is the one the belief is least sure of after the runs before it, which maximises the determinant of the
        information step by step.
        """
        belief, chosen, left = self, [], list(runs)
        for _ in range(min(count, len(left))):
            chosen.append(left.pop(int(np.argmax(np.diag(belief.covariance)[left]))))
            belief = belief.after_run(chosen[-1], noise)
        return chosen

    def most_valuable(
        self, decisions: Indices, runs: Indices, costs: Array, count: int, noise: float
    ) -> list[tuple[int, float]]:
        """Return (position in ``runs``, worth) of the runs that lower the expected regret most per cost, one by one.

        Where no single run is expected to change the decision, the one that narrows most what the decision is compared
        with. A run is taken once.

        Parameters
        ----------
        decisions, runs : array of int (d,), (c,)
            See ``worth``.
        costs : array (c,)
            In any unit.
        """
        belief, chosen, free = self, [], np.ones(len(runs), bool)
        for _ in range(min(count, len(runs))):
            worth = belief.worth(decisions, runs, noise)
            value = worth if (worth[free] > 0).any() else belief.narrowing(decisions, runs, noise)
            pick = int(np.argmax(np.where(free, value / costs, -np.inf)))
            chosen.append((pick, float(worth[pick])))
            free[pick] = False
            belief = belief.after_run(int(runs[pick]), noise)
        return chosen

    def narrowing(self, decisions: Indices, runs: Indices, noise: float) -> Array:
        """Return how much a run at each point lowers the variance of the differences to the best decision, (c,)."""
        told = self.covariance[:, runs] / np.sqrt(np.maximum(self.covariance[runs, runs], 0) + noise**2)
        difference = told[decisions] - told[self.best(decisions)]
        return np.asarray((difference**2).sum(0))

    def best(self, decisions: Indices) -> int:
        """Return the point of the smallest expected objective among decisions."""
        return int(decisions[np.argmin(self.mean[decisions])])

    def regret(self, decisions: Indices, seed: int = 0) -> float:
        """Return the expected regret of ``best``: how much lower the truly best decision is expected to be."""
        covariance = self.covariance[np.ix_(decisions, decisions)]
        values, vectors = np.linalg.eigh(covariance)
        normal = np.random.default_rng([seed, 12]).standard_normal((DRAWS, len(decisions)))
        drawn = self.mean[decisions] + (normal * np.sqrt(np.maximum(values, 0))) @ vectors.T
        chosen = int(np.argmin(self.mean[decisions]))
        return float((drawn[:, chosen] - drawn.min(1)).mean())


def believed(
    model: LossModel, objective: Objective, table: RunTable, noise: float, missed: float, points: Points
) -> Surface:
    """Return the belief about the objective at points after the runs of a table.

    Parameters
    ----------
    model : LossModel
        A law fitted to the table, with draws.
    noise, missed : float
        Standard deviations of the objective: between runs of one mixture, and of what the law misses (``misfit``).
    """
    runs = Points.of_table(table)
    at_points, at_runs = values(model, objective, points), values(model, objective, runs)
    residual = objective.of_table(table) - at_runs
    known = np.isfinite(residual)
    runs, residual = runs.take(known), residual[known]
    between = missed**2 * _alike(points.weights, runs.weights)
    of_runs = missed**2 * _alike(runs.weights, runs.weights) + noise**2 * np.eye(len(residual))
    share = np.linalg.solve(of_runs, between.T).T  # (p, n): how residuals of runs carry over to points
    drawn = []
    for member in model.members():
        off = values(member, objective, runs) - at_runs[known]
        drawn.append(values(member, objective, points) - at_points - share @ off)
    deviations = np.array(drawn)
    covariance = deviations.T @ deviations / len(drawn)
    covariance += missed**2 * _alike(points.weights, points.weights) - share @ between.T
    return Surface(at_points + share @ residual, covariance)


def values(model: LossModel, objective: Objective, points: Points) -> Array:
    """Return the objective that a law predicts at points, shape (p,)."""
    losses = model.predict(model.inputs(points.weights, points.tokens, points.parameters, points.unique))
    return objective.value(losses, tuple(model.targets))


def knowledge_gradient(means: Array, slopes: Array) -> float:
    """Return ``E max_i(means_i + slopes_i Z) - max_i means_i`` for a standard normal Z, exactly.

    Means and slopes are (d,). The maximum of lines is convex in Z: its pieces are the upper envelope, and each kink
    adds ``change of slope * E (Z - kink)^+``.
    """
    order = np.lexsort((means, slopes))
    slopes, means = slopes[order], means[order]
    highest = np.append(np.diff(slopes) > 0, True)  # of parallel lines only the highest counts
    lines: list[int] = []
    kinks: list[float] = []
    for line in np.flatnonzero(highest):
        while lines:
            last = lines[-1]
            kink = (means[last] - means[line]) / (slopes[line] - slopes[last])
            if not kinks or kink > kinks[-1]:
                kinks.append(kink)
                break
            lines.pop()
            kinks.pop()
        lines.append(int(line))
    away = np.abs(np.array(kinks))
    density = np.exp(-(away**2) / 2) / np.sqrt(2 * np.pi)
    return float(np.diff(slopes[lines]) @ (density - away * ndtr(-away)))


def distances(left: Array, right: Array) -> Array:
    """Return the Hellinger distance of mixtures (n, m) and (k, m), shape (n, k): 0 for the same, 1 for disjoint."""
    left, right = (each / each.sum(1, keepdims=True) for each in (left, right))  # tables round weights
    overlap = np.sqrt(left) @ np.sqrt(right).T
    return np.sqrt(np.clip(1 - overlap, 0, 1))


def _alike(left: Array, right: Array) -> Array:
    return np.exp(-distances(left, right) / NEARBY)


def misfit(
    refit: Callable[[RunTable], LossModel], objective: Objective, table: RunTable, noise: float, seed: int = 0
) -> float:
    """Return the standard deviation of what a law misses of the objective at a mixture left out of its fit.

    Mixtures are left out in folds; of the mean square error there, what the draws of the fold's fit and the noise of a
    run explain is taken off. It is at most the spread of the runs within a scale: a law is not trusted less than their
    mean.
    """
    squares, explained = [], []
    for fold in mixture_folds(table, seed):
        fitted, rest = refit(table.take(fold.train)), table.take(fold.test)
        points = Points.of_table(rest)
        squares.append((objective.of_table(rest) - values(fitted, objective, points)) ** 2)
        drawn = [values(member, objective, points) for member in fitted.members()]
        explained.append(np.var(drawn, axis=0, ddof=1))
    left = np.nanmean(np.concatenate(squares)) - np.nanmean(np.concatenate(explained)) - noise**2
    spread = np.nanstd(within_scale(objective.of_table(table)[:, None], table))
    return float(min(np.sqrt(max(left, 0.0)), spread))

"""The best mixture of a fitted law: over the simplex, within bounds, near a prior, for any weighing of targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Inputs
from autoscale_ds.laws.model import GAUSSIAN_90, LossModel
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.simplex import Bounds, dirichlet, tightest
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search.uncertainty import ends_of_90

# Samples that give the solver its starts, and RegMix (arXiv 2407.01492) its answer: mean of the best 128 of 100,000.
START_SAMPLES, NUM_STARTS = 1024, 3
TREE_SAMPLES, TREE_BEST = 100_000, 128
# When half of all weight or more can move within the noise of one run, the optimum is called flat.
FLAT = 0.5


@dataclass(frozen=True)
class Goal:
    """What is minimised at one scale: ``objective(losses(w)) + kl * KL(w | prior)``.

    Attributes
    ----------
    model : LossModel
        Predicts the losses.
    objective : Objective
        Makes one number of them.
    tokens, parameters : float
        Scale of the target run; parameters may be NaN where the law knows no size.
    prior : array (m,) or None
        Weights from which the divergence is measured; None without ``kl``.
    kl : float
        Nats of objective that one nat of divergence from the prior costs.
    """

    model: LossModel
    objective: Objective
    tokens: float
    parameters: float = np.nan
    prior: Array | None = None
    kl: float = 0.0

    def value(self, weights: Array) -> Array:
        """Return the goal at weights (n, m), shape (n,)."""
        losses = self.model.predict(self.model.inputs(weights, self.tokens, self.parameters))
        return self.objective.value(losses, tuple(self.model.targets)) + self.kl * self._divergence(weights)

    def slope(self, weights: Array) -> Array:
        """Return the derivative at weights (m,), shape (m,)."""
        x = self.model.inputs(weights[None], self.tokens, self.parameters)
        by_loss = self.objective.slope(self.model.predict(x), tuple(self.model.targets))
        slope = (by_loss[:, :, None] * self.model.slope(x)).sum(1)[0]
        if self.prior is None or self.kl == 0:
            return np.asarray(slope)
        used = self.prior > 0
        ratio = np.log(np.maximum(weights, 1e-12) / np.where(used, self.prior, 1.0)) + 1
        return np.asarray(slope + self.kl * np.where(used, ratio, 0.0))

    def noise(self, weights: Array) -> float:
        """Return the standard deviation that run-to-run noise gives the objective at weights (m,)."""
        x = self.model.inputs(weights[None], self.tokens, self.parameters)
        by_loss = self.objective.slope(self.model.predict(x), tuple(self.model.targets))[0]
        return float(np.sqrt(((by_loss * self.model.noise) ** 2).sum()))

    def _divergence(self, weights: Array) -> Array:
        if self.prior is None or self.kl == 0:
            return np.zeros(len(weights))
        used = (weights > 0) & (self.prior > 0)
        return np.asarray(
            np.where(used, weights * np.log(np.maximum(weights, 1e-300) / np.where(used, self.prior, 1.0)), 0).sum(1)
        )


@dataclass(frozen=True)
class Loss:
    """A predicted loss with 90 % intervals (low, high): of its expectation, and of what one run would show."""

    value: float
    expected: tuple[float, float]
    of_a_run: tuple[float, float]


@dataclass(frozen=True)
class Optimum:
    """The best weights, and how much the objective changes around them.

    Attributes
    ----------
    weights : DomainWeights
        The best mixture.
    value : float
        Goal there.
    losses : mapping of str to Loss
        Predicted loss of each target.
    intervals : mapping of str to (low, high)
        90 % interval of each weight over the law's ensemble.
    within_noise : mapping of str to (low, high)
        Range of each weight over mixtures whose goal a single run could not tell from the best.
    noise : float
        Standard deviation of the goal between runs.
    """

    weights: DomainWeights
    value: float
    losses: Mapping[str, Loss]
    intervals: Mapping[str, tuple[float, float]]
    within_noise: Mapping[str, tuple[float, float]]
    noise: float

    @property
    def flat(self) -> bool:
        """Whether half of all weight can move within the noise."""
        return sum(high - low for low, high in self.within_noise.values()) / 2 >= FLAT


def optimize(goal: Goal, bounds: Bounds, *, seed: int = 0) -> Optimum:
    """Minimise a goal within bounds; deterministic for a seed.

    Raises
    ------
    MixtureError
        When the scale is not positive, or the law needs a size that is not given.
    """
    bounds = _within_prior(goal, bounds)
    weights = minimum(goal, bounds, seed=seed)
    best = np.array(list(weights.values()))
    alternatives = [replace(goal, model=member) for member in goal.model.members()]
    drawn = np.array([_minimum(each, bounds, best[None], seed, TREE_SAMPLES // 5) for each in alternatives])
    ends = ends_of_90(np.vstack([*drawn, best]))
    noise = goal.noise(best)
    names = goal.model.domains
    return Optimum(
        weights=weights,  # not normalised again: rounding could move a weight out of its interval
        value=float(goal.value(best[None])[0]),
        losses=losses(goal.model, goal.model.inputs(best[None], goal.tokens, goal.parameters))[0],
        intervals=_pairs(names, np.minimum(ends[0], best), np.maximum(ends[1], best)),
        within_noise=_pairs(names, *_range_within(goal, bounds, best, GAUSSIAN_90 * noise, seed)),
        noise=noise,
    )


def losses(model: LossModel, x: Inputs) -> list[dict[str, Loss]]:
    """Return the predicted loss of each target with intervals, one mapping for each row of ``x``."""
    centre = model.predict(x)
    (low, high), (run_low, run_high) = (model.intervals(x, of_a_run=of_a_run) for of_a_run in (False, True))
    ends = np.stack([centre, low, high, run_low, run_high], axis=-1).tolist()
    return [
        {name: Loss(e[0], (e[1], e[2]), (e[3], e[4])) for name, e in zip(model.targets, row, strict=True)}
        for row in ends
    ]


def seen_bounds(
    model: LossModel, floor: float = 0.0, caps: Mapping[str, float] | None = None, *, allow_unseen: bool = False
) -> Bounds:
    """Return bounds that give no domain more than some run gave it, unless allowed or no mixture is left then.

    Raises
    ------
    MixtureError
        When floor and caps leave no mixture.
    """
    names = list(model.domains)
    asked = Bounds.of(names, floor, caps)
    seen = {} if allow_unseen else {name: max(weight, floor) for name, weight in model.largest_weights.items()}
    both = tightest(caps or {}, seen)
    total = sum(min(both.get(name, 1.0), 1.0) for name in names)
    return Bounds.of(names, floor, both) if total >= 1 else asked


def minimum(goal: Goal, bounds: Bounds, *, seed: int = 0) -> DomainWeights:
    """Return the best weights alone, without the intervals: a hundredth of the work of ``optimize``.

    Raises
    ------
    MixtureError
        As ``optimize``.
    """
    if not (np.isfinite(goal.tokens) and goal.tokens > 0):
        raise MixtureError(f"tokens is {goal.tokens:g}, expected a positive number")
    bounds = _within_prior(goal, bounds)
    best = _minimum(goal, bounds, _starts(goal, bounds, seed), seed)
    return DomainWeights.normalised(dict(zip(goal.model.domains, map(float, best), strict=True)))


def minimum_from(goal: Goal, bounds: Bounds, starts: Array, *, seed: int = 0) -> Array:
    """Return the best weights (m,) that are reached from some points (n, m) within bounds."""
    return _minimum(goal, _within_prior(goal, bounds), starts, seed, TREE_SAMPLES // 5)


def range_within_noise(
    goal: Goal, bounds: Bounds, weights: Array, noise: float, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the range of each weight over mixtures that a run of this noise could not tell from weights (m,)."""
    return _pairs(goal.model.domains, *_range_within(goal, bounds, weights, GAUSSIAN_90 * noise, seed))


def _pairs(names: tuple[str, ...], low: Array, high: Array) -> dict[str, tuple[float, float]]:
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def _within_prior(goal: Goal, bounds: Bounds) -> Bounds:
    """Return bounds with weight 0 for domains of prior weight 0, where the divergence would be infinite."""
    if goal.prior is None or goal.kl == 0:
        return bounds
    off = goal.prior <= 0
    if (bounds.floors[off] > 0).any():
        name = goal.model.domains[int(np.flatnonzero(off & (bounds.floors > 0))[0])]
        raise MixtureError(f"the prior turns {name!r} off and the floor keeps it on; change one of them")
    caps = np.where(off, 0.0, bounds.caps)
    if caps.sum() < 1 - 1e-9:
        raise MixtureError(
            f"the domains the prior keeps may get {caps.sum():.3g} of the budget at most; give the prior more domains, "
            "raise their --cap, or lift the limit to what runs gave them with --allow-unseen"
        )
    return Bounds(bounds.floors, caps)


def _samples(goal: Goal, bounds: Bounds, count: int, seed: int) -> Array:
    """Return mixtures within bounds around the prior, at three widths from corners to centre."""
    m = len(goal.model.domains)
    centre = np.full(m, 1 / m) if goal.prior is None else (goal.prior + 1 / m**2) / (1 + 1 / m)
    parts = [dirichlet(centre * m * width, count // 3 + 1, seed + i) for i, width in enumerate((0.3, 1.0, 3.0))]
    return bounds.scale_in(np.vstack(parts)[:count])


def _starts(goal: Goal, bounds: Bounds, seed: int) -> Array:
    m = len(goal.model.domains)
    centre = np.full(m, 1 / m) if goal.prior is None else goal.prior
    if not goal.model.smooth:
        return bounds.scale_in(centre[None])
    samples = _samples(goal, bounds, START_SAMPLES, seed)
    order = np.argsort(goal.value(samples), kind="stable")[:NUM_STARTS]
    return np.vstack([samples[order], bounds.scale_in(centre[None])])


def _minimum(goal: Goal, bounds: Bounds, starts: Array, seed: int, num_samples: int = TREE_SAMPLES) -> Array:
    if not goal.model.smooth:
        samples = _samples(goal, bounds, num_samples, seed)
        return np.asarray(samples[np.argsort(goal.value(samples), kind="stable")[:TREE_BEST]].mean(0))

    def value(w: Array) -> float:
        return float(goal.value(np.maximum(w, 0)[None])[0])

    candidates = [_slsqp(value, lambda w: goal.slope(np.maximum(w, 0)), start, bounds) for start in starts]
    candidates += list(starts)  # the start itself is a candidate, in case the search ends at a worse point
    return min(candidates, key=value)


def _slsqp(
    value: Callable[[Array], float], slope: Callable[[Array], Array], start: Array, bounds: Bounds, limits: tuple = ()
) -> Array:
    """Return the feasible point where sequential quadratic programming ends."""
    total = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    box = list(zip(bounds.floors, bounds.caps, strict=True))
    with np.errstate(all="ignore"):  # its line search may try a point far outside; the result is checked by value
        result = minimize(
            value,
            start,
            jac=slope,
            method="SLSQP",
            bounds=box,
            constraints=[total, *limits],
            options={"maxiter": 200, "ftol": 1e-10},
        )
    return bounds.scale_in(np.clip(np.nan_to_num(result.x), bounds.floors, bounds.caps)[None])[0]


def _range_within(goal: Goal, bounds: Bounds, best: Array, slack: float, seed: int) -> tuple[Array, Array]:
    """Return the smallest and largest of each weight where the goal is within ``slack`` of the best."""
    ceiling = float(goal.value(best[None])[0]) + slack
    if not goal.model.smooth:
        samples = np.vstack([_samples(goal, bounds, TREE_SAMPLES // 4, seed), best[None]])
        near = samples[goal.value(samples) <= ceiling]
        return near.min(0, initial=1.0), near.max(0, initial=0.0)
    limit = {
        "type": "ineq",
        "fun": lambda w: ceiling - goal.value(np.maximum(w, 0)[None])[0],
        "jac": lambda w: -goal.slope(np.maximum(w, 0)),
    }
    low, high = best.copy(), best.copy()
    for i, sign in [(i, sign) for i in range(len(best)) for sign in (1, -1)]:
        unit = np.eye(len(best))[i] * sign
        point = _slsqp(lambda w, u=unit: float(u @ w), lambda w, u=unit: u, best, bounds, (limit,))  # type: ignore[misc]
        if goal.value(point[None])[0] <= ceiling + 0.05 * slack:
            low[i], high[i] = min(low[i], point[i]), max(high[i], point[i])
    return low, high

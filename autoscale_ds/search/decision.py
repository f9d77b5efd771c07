"""Whether to change the mixture of a run, and to what, by all that the fitted laws leave open.

The best guess of a law is one of many mixtures that could be best. Here the expected objective over the laws' draws is
minimised, and the change is judged against the mixture one would train otherwise: how much is gained, how surely, and
how much perfect knowledge would add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.bundle import are_same
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search import solver
from autoscale_ds.search.solver import Goal
from autoscale_ds.search.uncertainty import ends_of_90

# A change has to be a gain with this probability, and its expected gain larger than the noise of one run.
SURE = 0.9
# What a table of one scale cannot say: how effects change by another. Between scales of published runs the effect of a
# mixture on a target changes by about this share for every factor e of tokens or size (benchmarks/laws.py --scales).
DRIFT = 0.3
# With a risk: steps on the way from the mixture compared with to each candidate.
STEPS = 4
# Budgets between which the tokens that reach the other mixture's loss are looked for, in multiples of the run's.
SHORTEST, LONGEST, GRID = 1 / 30, 4.0, 161


@dataclass(frozen=True)
class Expected(Goal):
    """The mean of several goals at one scale; ``model`` is the first one's."""

    parts: tuple[Goal, ...] = field(default=())

    def value(self, weights: Array) -> Array:
        """Return the mean at weights (n, m), shape (n,)."""
        return np.asarray(np.mean([part.value(weights) for part in self.parts], axis=0))

    def slope(self, weights: Array) -> Array:
        """Return its derivative at weights (m,), shape (m,)."""
        return np.asarray(np.mean([part.slope(weights) for part in self.parts], axis=0))


@dataclass(frozen=True)
class Belief:
    """What several laws say of gains at one scale: every law's draws, each law as likely as the others.

    Of an average of laws one is taken to be right, with the probability of its share in the average (their stacking on
    runs left out of the fit): its draws come from each law in that proportion.

    Draws are spread as wide as the law's intervals are (``Calibration``): by its factor inside the table, and by its
    error in what changes beyond the table's scales. Where the table has one scale only, effects on every target drift
    with the distance from it (``DRIFT``).
    """

    goals: tuple[Goal, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        for goal in self.goals:
            if _num_draws(goal) < 2:
                raise MixtureError(f"law {goal.model.law} has no draws, so nothing says how sure it is; fit it again")
            self._refuse_another_table(goal)

    def _refuse_another_table(self, goal: Goal) -> None:
        first = self.goals[0].model
        for what, ours, its in (
            ("domains", set(first.domains), set(goal.model.domains)),
            ("targets", set(first.targets), set(goal.model.targets)),
        ):
            if odd := sorted(ours ^ its):
                raise MixtureError(
                    f"{odd[0]!r} is in the {what} of only one of the laws; give laws fitted to the same table"
                )
        if not are_same(first.bundle, goal.model.bundle):
            raise MixtureError(
                "the laws do not take the same domains as one in the same proportions; give laws fitted to the same "
                "table"
            )
        if first.domains != goal.model.domains:  # weights are in this order
            raise MixtureError("the laws have their domains in different orders; give laws fitted to the same table")

    @cached_property
    def members(self) -> list[tuple[Goal, list[Goal]]]:
        """The goal under each law that may be right, and under its draws; equally many for each of ``goals``."""
        fewest = min(map(_num_draws, self.goals))
        found = []
        for goal in self.goals:
            parts = goal.model.components()
            for count, (_, law) in zip(_counts([share for share, _ in parts], fewest), parts, strict=True):
                draws = [replace(goal, model=member) for member in law.members()[:count]]
                found.append((replace(goal, model=law), draws))
        return found

    @property
    def every(self) -> list[Goal]:
        """The goal under every draw of every law."""
        return [goal for _, members in self.members for goal in members]

    @property
    def expected(self) -> Expected:
        """The expected objective."""
        first = self.goals[0]
        rest = first.objective, first.tokens, first.parameters, first.prior, first.kl
        return Expected(first.model, *rest, tuple(self.every))

    def optimum(self, bounds: Bounds, against: Array) -> Array:
        """Return the mixture (m,) of the smallest expected objective, looked for from the first law's and another."""
        plug_in = solver.minimum(self.goals[0], bounds, seed=self.seed)
        own = [plug_in[name] for name in self.goals[0].model.domains]
        return solver.minimum_from(self.expected, bounds, bounds.scale_in(np.array([own, against])), seed=self.seed)

    def gains(self, weights: Array, against: Array) -> Array:
        """Return how much lower the objective is at weights (n, m) than at others (m,), by draw, shape (d, n)."""
        rng = np.random.default_rng([self.seed, 9])
        return np.vstack(
            [self._of_law(goal, members, weights, against, rng) for goal, members in self.members if members]
        )

    def _of_law(
        self, goal: Goal, members: list[Goal], weights: Array, against: Array, rng: np.random.Generator
    ) -> Array:
        centre = _gain(goal, weights, against)
        drawn = np.array([_gain(member, weights, against) for member in members])
        known = goal.model.calibration
        factor = float(np.mean(known.factors([name for name in goal.model.targets if name in goal.objective.weights])))
        tokens, sizes = goal.model.scales.nearest(goal.tokens, goal.parameters)
        at_edge = _gain(replace(goal, tokens=tokens), weights, against)
        inside = _gain(replace(goal, tokens=tokens, parameters=sizes), weights, against)
        wrong = np.hypot(known.tokens * (centre - at_edge), known.parameters * (at_edge - inside))
        wrong = rng.standard_normal(len(members))[:, None] * wrong
        return centre + factor * (drawn - centre) + wrong + _drift(goal, weights, against, len(members), rng)


def _num_draws(goal: Goal) -> int:
    return min(len(law.members()) for _, law in goal.model.components())


def _counts(shares: Sequence[float], total: int) -> list[int]:
    """Return whole numbers that sum to a total, nearest to shares of it."""
    ends = np.round(np.cumsum(shares) / np.sum(shares) * total).astype(int)
    return np.diff(ends, prepend=0).tolist()


def _drift(goal: Goal, weights: Array, against: Array, draws: int, rng: np.random.Generator) -> Array:
    """Return by how much gains change between the one scale of a table and the goal's, (draws, n); zeros within it."""
    model = goal.model
    share = DRIFT * model.scales.beyond_the_only(goal.tokens, goal.parameters)
    if not share:
        return np.zeros((draws, len(weights)))
    losses = model.predict(model.inputs(np.vstack([against[None], weights]), goal.tokens, goal.parameters))
    effects = (losses[0] - losses[1:]) * goal.objective.slope(losses[1:], tuple(model.targets))
    return np.asarray(share * rng.standard_normal((draws, losses.shape[1])) @ effects.T)


def _gain(goal: Goal, weights: Array, against: Array) -> Array:
    return np.asarray(goal.value(against[None])[0] - goal.value(weights))


@dataclass(frozen=True)
class Decision:
    """A recommendation.

    Attributes
    ----------
    weights : DomainWeights
        What to train: ``best`` where the verdict is to change, else ``against``.
    best : DomainWeights
        The mixture of the smallest expected objective, or of the largest gain that is sure enough.
    against : DomainWeights
        What it is compared with.
    gain : (float, float, float)
        Expected decrease of the objective by ``best``, and its 90 % interval.
    probability : float
        That it is a decrease.
    regret : float
        How much lower, on average over the draws, each draw's own best mixture is than ``weights``.
    noise : float
        Standard deviation of the objective between runs.
    tokens_saved : (float, float, float) or None
        Tokens by which a run of ``best`` reaches earlier what ``against`` reaches at the budget, with its 90 %
        interval; None where the laws know one number of tokens.
    within_noise : mapping of str to (low, high)
        Range of each weight over mixtures that one run could not tell from ``best``.
    """

    weights: DomainWeights
    best: DomainWeights
    against: DomainWeights
    gain: tuple[float, float, float]
    probability: float
    regret: float
    noise: float
    tokens_saved: tuple[float, float, float] | None
    within_noise: dict[str, tuple[float, float]]

    @property
    def change(self) -> bool:
        """Whether the verdict is to change."""
        return is_worth_it(self.gain[0], self.probability, self.noise)

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        gain, low, high = self.gain
        figures = f"expected gain {gain:.2g} (90 % {low:.2g} to {high:.2g}), probability of it {self.probability:.2f}"
        noise = f"the noise of one run ({self.noise:.2g})"
        if self.change:
            return f"change: {figures}, and more than {noise}"
        doubt = f"less than {SURE:g}" if self.probability < SURE else f"and not more than {noise}"
        return f"keep: {figures}, {doubt}"


def is_worth_it(gain: float, probability: float, noise: float) -> bool:
    """Return whether a change is recommended: sure enough, and by more than one run's noise."""
    return probability >= SURE and gain > noise


def decide(
    belief: Belief,
    against: DomainWeights,
    bounds: Bounds,
    *,
    risk: float | None = None,
    advance: Callable[[int], None] = lambda draws: None,
) -> Decision:
    """Return the recommendation within bounds.

    Parameters
    ----------
    against : DomainWeights
        The mixture one would train otherwise.
    risk : float or None
        Judge a mixture by the gain that is exceeded with this probability, 0.9 for example; None by the expected gain.
    advance : callable
        Told how many draws have been optimised since the last call.
    """
    goal, names = belief.goals[0], belief.goals[0].model.domains
    against.check_domains(list(names))
    other = np.array([against[name] for name in names])
    best = belief.optimum(bounds, other)
    optima = []
    for each in belief.every:
        optima.append(solver.minimum_from(each, bounds, best[None], seed=belief.seed))
        advance(1)
    if risk is not None:
        best = _surest(belief, other, np.array([best, *optima]), risk)
    gains = belief.gains(best[None], other)[:, 0]
    low, high = ends_of_90(gains[:, None])[:, 0]
    gain, probability = float(gains.mean()), float((gains > 0).mean())
    noise = float(np.mean([each.noise(best) for each in belief.goals]))
    chosen = best if is_worth_it(gain, probability, noise) else other
    regrets = [
        float(each.value(chosen[None])[0] - each.value(own[None])[0])
        for each, own in zip(belief.every, optima, strict=True)
    ]
    return Decision(
        weights=_named(names, chosen),
        best=_named(names, best),
        against=against,
        gain=(gain, float(low), float(high)),
        probability=probability,
        regret=max(float(np.mean(regrets)), 0.0),
        noise=noise,
        tokens_saved=_tokens_saved(belief, best, other),
        within_noise=solver.range_within_noise(goal, bounds, best, noise, seed=belief.seed),
    )


def _surest(belief: Belief, against: Array, candidates: Array, risk: float) -> Array:
    """Return the point on the way to one of some candidates (n, m) with the largest gain that is this sure."""
    shares = np.linspace(0, 1, STEPS + 1)[:, None, None]
    points = (against + shares * (candidates - against)).reshape(-1, len(against))
    return np.asarray(points[int(np.argmax(np.quantile(belief.gains(points, against), 1 - risk, axis=0)))])


def _tokens_saved(belief: Belief, best: Array, against: Array) -> tuple[float, float, float] | None:
    """Return how many tokens earlier ``best`` reaches what ``against`` reaches at the budget, over the draws."""
    if not all(goal.model.scales.tokens_vary for goal in belief.goals):
        return None
    budget = belief.goals[0].tokens
    grid = budget * np.geomspace(SHORTEST, LONGEST, GRID)
    saved = []
    for goal in belief.every:
        reached = np.array([float(replace(goal, tokens=float(tokens)).value(best[None])[0]) for tokens in grid])
        aim = float(goal.value(against[None])[0])
        falling = np.minimum.accumulate(reached)
        saved.append(budget - float(np.exp(np.interp(-aim, -falling, np.log(grid)))))
    low, high = ends_of_90(np.array(saved)[:, None])[:, 0]
    return float(np.mean(saved)), float(low), float(high)


def _named(names: Sequence[str], weights: Array) -> DomainWeights:
    return DomainWeights.normalised(dict(zip(names, map(float, weights), strict=True)))

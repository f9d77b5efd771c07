"""Which runs to train next: those that lower the expected regret of the final choice most per token, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.model import LossModel
from autoscale_ds.laws.scales import SAME
from autoscale_ds.laws.table_fits import fit_law, fit_part, unsupported
from autoscale_ds.mixture import repeats
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search import solver
from autoscale_ds.search.decision import Belief
from autoscale_ds.search.design import ProbeRun, dirichlet_plan
from autoscale_ds.search.solver import Goal
from autoscale_ds.search.surface import Points, Scale, Surface, believed, misfit

# Laws that stand for what one does not know of the world, as far as a table supports them; equally likely.
LAWS = ("exposure", "exposure-budget", "exposure-repetition", "exposure-budget-repetition")
# Draws whose optimum is one of the final choices: the belief about them is that of all draws.
OPTIMA = 16
# Mixtures offered beside those that draws of the laws hold for the best.
CANDIDATES = 256
# Noise between runs of one mixture, nats, where none was repeated (.001 to .003 in published sets of runs), and how
# many repeated runs that guess counts as.
NOISE, GUESS = 0.002, 2
# Draws of a law, and of the fits that leave mixtures out: a belief needs less of them than the ends of intervals.
DRAWS, FEW_DRAWS = 24, 4


@dataclass(frozen=True)
class Question:
    """What is searched for.

    Attributes
    ----------
    objective : Objective
        What is minimised.
    target : Scale
        Of the run the mixture is for.
    against : DomainWeights
        What one would train otherwise.
    bounds : Bounds
        Of the mixtures one would train, by probes too.
    """

    objective: Objective
    target: Scale
    against: DomainWeights
    bounds: Bounds


@dataclass(frozen=True)
class Advice:
    """What to train next.

    Attributes
    ----------
    probes : list of ProbeRun
        The runs, most valuable first, without names; empty where nothing needs to be trained.
    worth : list of float
        By how much each lowers the expected regret, given those before it.
    best : DomainWeights
        What one would choose now.
    regret : float
        How much lower the objective of the truly best mixture is expected to be than that of ``best``.
    gain : float
        Expected decrease of the objective by ``best`` from what one would train otherwise.
    noise : float
        Standard deviation of the objective between runs of one mixture.
    """

    probes: list[ProbeRun]
    worth: list[float]
    best: DomainWeights
    regret: float
    gain: float
    noise: float

    def is_enough(self, share: float) -> bool:
        """Return whether more runs are not worth it: the regret is below the noise, or a share of the gain."""
        return self.regret <= max(self.noise, share * self.gain)


def advise(
    table: RunTable,
    question: Question,
    scales: Sequence[Scale],
    count: int,
    *,
    pending: Points | None = None,
    laws: Sequence[str] = LAWS,
    seed: int = 0,
) -> Advice:
    """Return the next runs.

    Parameters
    ----------
    table : RunTable
        The runs made so far, with seeds apart.
    scales : sequence of Scale
        Where runs may be made; their cost is tokens times parameters.
    count : int
        How many to return.
    pending : Points or None
        Runs that are planned and have no result yet: they count as made.

    Raises
    ------
    MixtureError
        When the table supports none of the laws.
    """
    noise = run_noise(table, question.objective)
    means = repeats.averaged(table)
    models = fitted(means, laws, seed)
    decisions = _decisions(models, means, question, seed)
    known = pending if pending is not None else Points.at(decisions[:0], question.target)
    mixtures = np.vstack([decisions, _candidates(question, seed)])
    _, first = np.unique(np.round(mixtures, 5), axis=0, return_index=True)
    at_scales = [Points.at(mixtures[np.sort(first)], scale) for scale in scales]
    untried = reduce(Points.__add__, at_scales).without(Points.of_table(means) + known, SAME)
    at_target = Points.at(decisions, question.target)
    surface = belief(models, question.objective, means, noise, at_target + untried + known, seed)
    chosen, runs, planned = np.split(np.arange(len(surface.mean)), [len(decisions), len(decisions) + len(untried)])
    for point in planned:
        surface = surface.after_run(int(point), noise)
    picks = surface.most_valuable(chosen, runs, untried.costs, count, noise)
    best = surface.best(chosen)
    names = means.domains
    return Advice(
        [_probe(untried, pick, names) for pick, _ in picks],
        [worth for _, worth in picks],
        DomainWeights.normalised(dict(zip(names, map(float, decisions[best]), strict=True))),
        surface.regret(chosen, seed),
        float(surface.mean[0] - surface.mean[best]),  # the first decision is what one would train otherwise
        noise,
    )


def run_noise(table: RunTable, objective: Objective) -> float:
    """Return the standard deviation of the objective between runs of one mixture.

    From repeated runs, together with ``NOISE`` counted as ``GUESS`` more of them.
    """
    by_run = objective.of_table(table)
    (measured,), freedom = repeats.noise(replace(table, targets=("objective",), losses=by_run[:, None]))
    slope = objective.slope(np.nanmean(table.losses, axis=0), table.targets)
    guess = NOISE * float(slope[np.isfinite(slope)].sum())  # of targets that move together
    squares = freedom * np.nan_to_num(measured) ** 2 + GUESS * guess**2
    return float(np.sqrt(squares / (freedom + GUESS)))


def fitted(table: RunTable, laws: Sequence[str], seed: int = 0) -> list[LossModel]:
    """Return the laws that a table supports, fitted to it with draws; raises MixtureError for none."""
    refused = {name: unsupported(table, name) for name in laws}
    supported = [name for name, reason in refused.items() if reason is None]
    if not supported:
        raise MixtureError(str(refused[laws[0]]))
    return [fit_law(table, name, seed=seed, draws=DRAWS) for name in supported]


def belief(
    models: Sequence[LossModel], objective: Objective, table: RunTable, noise: float, points: Points, seed: int = 0
) -> Surface:
    """Return what several laws, each as likely, and what they miss say of the objective at points, see ``believed``."""
    parts = []
    for model in models:

        def refit(part: RunTable, law: str = model.law) -> LossModel:
            return fit_part(part, law, seed=seed, draws=FEW_DRAWS)

        parts.append(believed(model, objective, table, noise, misfit(refit, objective, table, noise, seed), points))
    return Surface.mixed(parts)


def _decisions(models: Sequence[LossModel], table: RunTable, question: Question, seed: int) -> Array:
    """Return mixtures (d, m) among which the final choice is made: what one would train otherwise comes first.

    Then the mixture of the smallest expected objective, the optima of some draws of the laws, and what was trained.
    """
    target = question.target
    if target.unique is not None:
        unique = dict(zip(table.domains, map(float, target.unique), strict=True))
        models = [model.with_unique(unique) for model in models]
    goals = tuple(Goal(model, question.objective, target.tokens, target.parameters) for model in models)
    doubt = Belief(goals, seed)
    other = np.array([question.against[name] for name in table.domains])
    best = doubt.optimum(question.bounds, other)
    drawn = doubt.every[:: max(len(doubt.every) // OPTIMA, 1)]
    optima = [solver.minimum_from(each, question.bounds, best[None], seed=seed) for each in drawn]
    inside = (table.weights >= question.bounds.floors - 1e-6) & (table.weights <= question.bounds.caps + 1e-6)
    trained = np.unique(np.round(table.weights[inside.all(1)], 6), axis=0)
    return np.vstack([other, best, *optima, *trained])


def _candidates(question: Question, seed: int) -> Array:
    floor = float(question.bounds.floors.max())
    caps = dict(zip(question.against, map(float, question.bounds.caps), strict=True))
    plan = dirichlet_plan(question.against, CANDIDATES, question.target.tokens, floor=floor, caps=caps, seed=seed)
    return np.array([list(probe.weights.values()) for probe in plan])


def _probe(points: Points, index: int, names: Sequence[str]) -> ProbeRun:
    weights = dict(zip(names, map(float, points.weights[index]), strict=True))
    return ProbeRun("", DomainWeights.normalised(weights), float(points.tokens[index]), float(points.parameters[index]))

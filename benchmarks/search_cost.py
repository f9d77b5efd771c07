#!/usr/bin/env python3
r"""How many runs does a search need? Published run tables as the world, methods that may only buy runs of it.

    pip install -e '.[laws,peers]'
    python benchmarks/search_cost.py regmix_1m_train.csv dml_redpajama.csv

Over an hour on 2 cores. Stop it at will: the same command goes on.

A table is a world: a method buys its runs one batch after the other and in the end names the mixture of the table that
it holds for the best at the target scale, the table's largest. Its regret is how much higher that mixture's mean loss
is there than the lowest in the table. Where the table has several sizes, runs of the largest cannot be bought. Every
method starts anew 20 times (--starts).

Methods
  ours        first a D-optimal batch under the law's prior, then what ``launch/sweep.py next`` asks for: the largest
              fall of the expected regret per FLOP
  measured    random runs, the best of them
  law         random runs, our law
  regmix      random runs (the tables' mixtures are Dirichlet draws), LightGBM (arXiv 2407.01492)
  ddo         2m + 1 runs, uniform and each domain with less and more of it, AutoScale's law (arXiv 2407.20177); its
              perturbations are the nearest mixtures that the table has
  gp-ucb      a Gaussian process (scikit-learn) over square roots of weights, and size; runs of the lowest confidence
              bound (Srinivas et al., arXiv 0912.3995, at two standard deviations)
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from autoscale_ds import cli
from autoscale_ds.files import append_line
from autoscale_ds.laws.prior import prior_values
from autoscale_ds.laws.table_fits import fit_part
from autoscale_ds.mixture import Objective, RunTable
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.search.design import NOISE as PRIOR_NOISE
from autoscale_ds.search.next_probes import DRAWS, LAWS, belief, run_noise
from autoscale_ds.search.surface import Points, Scale, Surface, distances
from benchmarks._machine import describe, write_result

BATCH, MOST = 8, 64
# Our search ends here.
OURS = 48
SHOWN = (8, 16, 24, 32, 48, 64)
Rows = list[int]
# Runs bought so far and the mixture one would name: a step of a search.
Steps = Iterator[tuple[Rows, int]]


@dataclass(frozen=True)
class World:
    """Runs that may be bought, and mixtures (d, m) one may name with their true objective (d,) at the target."""

    probes: RunTable
    mixtures: Array
    truth: Array
    tokens: float
    parameters: float
    objective: Objective

    @classmethod
    def of(cls, table: RunTable) -> World:
        """Read a table; of several checkpoints of a run the last that the largest size has too is kept."""
        largest = table.parameters == table.parameters.max()
        tokens = float(table.tokens[largest].max())
        table = table.take(table.tokens == tokens)
        largest = table.parameters == table.parameters.max()
        objective = Objective.of_kind("mean-loss", table.targets)
        probes = table if largest.all() else table.take(~largest)
        size = float(table.parameters.max())
        mixtures = table.weights[largest]
        return cls(probes, mixtures, objective.of_table(table.take(largest)), tokens, size, objective)

    @property
    def named(self) -> Points:
        """The mixtures one may name, at the target."""
        return Points.at(self.mixtures, Scale(self.tokens, self.parameters))

    def regret(self, named: int) -> float:
        """Return how much worse a mixture is than the best."""
        return float(self.truth[named] - self.truth.min())


def ours(world: World, seed: int) -> Steps:
    """Search as the sweep does."""
    rng = np.random.default_rng([seed, 1])
    # Starts differ by the half of the runs that the first batch is chosen from.
    offered = rng.choice(len(world.probes), max(len(world.probes) // 2, BATCH), replace=False)
    prior = Surface.of_draws(prior_values(world.probes.weights, seed=seed))
    bought = prior.most_telling([int(i) for i in offered], BATCH, PRIOR_NOISE)
    decisions = np.arange(len(world.mixtures))
    offers = len(decisions) + np.arange(len(world.probes))
    points = world.named + Points.of_table(world.probes)
    while len(bought) <= OURS:
        table = world.probes.take(bought)
        noise = run_noise(table, world.objective)
        models = [fit_part(table, LAWS[0], seed=seed, draws=DRAWS)]
        surface = belief(models, world.objective, table, noise, points, seed)
        yield bought, surface.best(decisions)
        free = np.setdiff1d(np.arange(len(world.probes)), bought)
        costs = Points.of_table(world.probes).take(free).costs
        picks = surface.most_valuable(decisions, offers[free], costs, BATCH, noise)
        bought = [*bought, *(int(free[pick]) for pick, _ in picks)]


def random_with(judge: Callable[[World, Rows, int], Array]) -> Callable[[World, int], Steps]:
    """Return the search that buys at random and judges mixtures by a function."""

    def search(world: World, seed: int) -> Steps:
        order = np.random.default_rng([seed, 2]).permutation(len(world.probes)).tolist()
        for count in range(BATCH, min(MOST, len(order)) + 1, BATCH):
            yield order[:count], int(np.argmin(judge(world, order[:count], seed)))

    return search


def measured(world: World, bought: Rows, seed: int) -> Array:
    """Return the lowest loss that was measured of each mixture, above the mean of its size; infinite for others."""
    table = world.probes.take(bought)
    losses = world.objective.of_table(table)
    for _, rows in table.groups():
        losses[rows] -= losses[rows].mean()
    same = distances(world.mixtures, table.weights) < 1e-6
    return np.where(same, losses, np.inf).min(1)


def by_law(law: str) -> Callable[[World, Rows, int], Array]:
    """Return the judgement of a law."""

    def judge(world: World, bought: Rows, seed: int) -> Array:
        model = fit_part(world.probes.take(bought), law, seed=seed)
        named = world.named
        x = model.inputs(named.weights, named.tokens, named.parameters)
        return world.objective.value(model.predict(x), tuple(model.targets))

    return judge


def ddo(world: World, seed: int) -> Steps:
    """Buy a base and one run less and one more of each domain, then judge by AutoScale's law."""
    m = world.mixtures.shape[1]
    base = np.full(m, 1 / m)
    wanted = [base]
    for factor in (1 / 3, 3.0):
        for i in range(m):
            amounts = base * np.where(np.arange(m) == i, factor, 1.0)
            wanted.append(amounts / amounts.sum())
    smallest = world.probes.parameters == world.probes.parameters.min()
    offers = np.random.default_rng([seed, 3]).permutation(np.flatnonzero(smallest))
    offers = offers[: max(len(offers) // 2, 2 * m + 1)]
    bought: Rows = []
    for mixture in wanted[: len(offers)]:
        away = distances(mixture[None], world.probes.weights[offers])[0]
        bought.append(int(next(offers[i] for i in np.argsort(away) if offers[i] not in bought)))
    yield bought, int(np.argmin(by_law("additive")(world, bought, seed)))


def gp_ucb(world: World, seed: int) -> Steps:
    """Search by the lowest confidence bound of a Gaussian process."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    def features(points: Points) -> Array:
        return np.column_stack([np.sqrt(points.weights), np.log(points.parameters / world.parameters)])

    losses = world.objective.of_table(world.probes)
    offers, named = features(Points.of_table(world.probes)), features(world.named)
    bought = np.random.default_rng([seed, 4]).permutation(len(losses))[:BATCH].tolist()
    while True:
        kernel = ConstantKernel() * Matern(np.full(offers.shape[1], 1.0), (0.05, 50.0), nu=2.5) + WhiteKernel(1e-3)
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed, n_restarts_optimizer=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # length scales at their bounds
            process.fit(offers[bought], losses[bought])
        yield bought, int(np.argmin(process.predict(named)))
        mean, deviation = process.predict(offers, return_std=True)
        bound = mean - 2 * deviation
        bound[bought] = np.inf
        bought = [*bought, *np.argsort(bound)[: min(BATCH, len(losses) - len(bought))].tolist()]


METHODS: dict[str, Callable[[World, int], Steps]] = {
    "ours": ours,
    "measured": random_with(measured),
    "law": random_with(by_law("exposure")),
    "regmix": random_with(by_law("regmix")),
    "ddo": ddo,
    "gp-ucb": gp_ucb,
}


def main() -> None:
    """Search every world with every method, print and write the regrets."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("tables", nargs="+", type=Path, help="run tables")
    parser.add_argument("--starts", type=cli.positive_int, default=20, help="starts of each method (default: 20)")
    parser.add_argument("--methods", default=",".join(METHODS), help="which, separated by commas (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("runs/search_cost"), help="searches done are kept here")
    parser.add_argument("--workers", type=cli.positive_int, default=os.cpu_count(), help="processes (default: cores)")
    arguments = parser.parse_args()
    names = arguments.methods.split(",")
    tasks = [(path, name, seed) for path in arguments.tables for name in names for seed in range(arguments.starts)]
    kept = arguments.folder / "searches.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(Path(table), name, seed): search for table, name, seed, search in lines}
    left = [task for task in tasks if task not in done]
    with ProcessPoolExecutor(arguments.workers) as pool, cli.counting("searches", len(left)) as advance:
        for task, search in zip(left, pool.map(searched, left), strict=True):
            done[task] = search
            append_line(kept, json.dumps([str(task[0]), *task[1:], search]))
            advance(1)
    searches = [done[task] for task in tasks]
    worlds = {}
    for path in arguments.tables:
        of_table = {name: [s for t, s in zip(tasks, searches, strict=True) if t[:2] == (path, name)] for name in names}
        worlds[path.stem] = {name: summary(each) for name, each in of_table.items()}
        world = World.of(RunTable.read(path))
        print(f"\n{path.stem}: {len(world.probes)} runs on offer, {len(world.mixtures)} mixtures, mean regret (nats)")
        print(markdown(worlds[path.stem]))
    machine = describe("numpy", "scipy", "lightgbm", "scikit-learn")
    write_result("search_cost", {"machine": machine, "starts": arguments.starts, "batch": BATCH, "worlds": worlds})


# Runs bought, regret, and what they cost, target runs = 1: one search.
Search = list[tuple[int, float, float]]
Curve = dict[int, dict[str, float]]


def searched(task: tuple[Path, str, int]) -> Search:
    """Search the world of a table with a method from one start."""
    path, method, seed = task
    world = World.of(RunTable.read(path))
    found = []
    for bought, named in METHODS[method](world, seed):
        spent = Points.of_table(world.probes).take(bought).costs.sum() / (world.tokens * world.parameters)
        found.append((len(bought), world.regret(named), float(spent)))
        if len(bought) >= min(MOST, len(world.probes)):
            break
    return found


def summary(searches: list[Search]) -> Curve:
    """Return mean and worst regret and mean cost over starts, by number of runs bought."""
    counts = sorted({count for search in searches for count, _, _ in search})
    curve = {}
    for count in counts:
        regrets, costs = zip(*((r, c) for search in searches for n, r, c in search if n == count), strict=True)
        curve[count] = {"mean": float(np.mean(regrets)), "worst": max(regrets), "cost": float(np.mean(costs))}
    return curve


def markdown(curves: dict[str, Curve]) -> str:
    """Return a table for people: a row a method, a column a number of runs."""
    lines = ["| method | " + " | ".join(f"{count} runs" for count in SHOWN) + " |", "|---|" + "---:|" * len(SHOWN)]
    for name, points in curves.items():
        if name == "ddo":
            (count, point) = next(iter(points.items()))
            cells = [f"{point['mean']:.4f} with {count}", *[""] * (len(SHOWN) - 1)]
        else:
            cells = [f"{points[count]['mean']:.4f}" if count in points else "" for count in SHOWN]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)

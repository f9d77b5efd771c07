#!/usr/bin/env python3
"""Measure which law orders mixtures best, forecasts best, and whose intervals hold, from how many runs, in what time.

Three tables, every law in the same process, LightGBM and Data Mixing Laws as peers:

* the runs released with RegMix (1 M parameters, 1 B tokens, 17 domains): fits to 64, 128 and 512 of them predict the 13
  losses of the 256 test runs. Below 512, the figures are means over random subsets;
* AutoScale's 15 runs (774 M parameters, 1.2 B tokens, 7 domains), each left out once;
* with --scales, a table of several sizes and token counts, Data Mixing Laws' released runs for example: every third
  mixture left out (three ways), the largest size, and the later half of the token counts.

Examples:
  python benchmarks/laws.py                             # writes benchmarks/results/laws.json; five minutes
  python benchmarks/laws.py --scales dml_redpajama.csv  # and writes results/laws_scales.json; half an hour
  python benchmarks/laws.py --laws exposure,regmix --subsets 1
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads; matrices of 40 columns gain nothing from threads

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_ds import cli
from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import model, registry, selection, table_fits
from autoscale_ds.laws.score import measures, score
from autoscale_ds.mixture import Objective, RunTable
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.search import AutoScale, moving, solver
from benchmarks._machine import describe, write_result

RUNS = Path(__file__).parents[1] / "tests" / "data" / "runs"
SIZES = (64, 128, 512)
FIGURES = ("spearman_within", "mae_within", "regret", "bias", "mre", "coverage", "width")
# Scales of fewer runs have no order to speak of, and are left out.
FEWEST_OF_A_SCALE = 5


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", help="comma-separated (default: all the table supports)")
    parser.add_argument("--subsets", type=int, default=4, help="random subsets below 512 runs (default: 4)")
    parser.add_argument("--scales", metavar="TABLE", help="only this: a run table of several sizes and token counts")
    arguments = parser.parse_args()
    machine = describe("numpy", "scipy", "lightgbm")
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    note = f"\n{machine['cpu']}, one thread, {versions}; processor seconds of one fit"
    if arguments.scales:
        names = arguments.laws.split(",") if arguments.laws else ["auto", "exposure", "data-mixing", "regmix"]
        content = over_scales(RunTable.read(arguments.scales), names)
        print(note)
        if not arguments.laws:
            write_result("laws_scales", {"table": Path(arguments.scales).name, "machine": machine, **content})
        return
    train, test = (RunTable.read(RUNS / f"regmix_1m_{part}.csv") for part in ("train", "test"))
    names = arguments.laws.split(",") if arguments.laws else supported(train)
    rows = [measure(name, train, test, arguments.subsets) for name in names]
    rows.sort(key=lambda row: -row["runs"]["512"]["spearman"])
    print(markdown(rows))
    intervals = [covered(size, train, test) for size in SIZES]
    published = left_out_one_by_one(names)
    print(f"{note}, mean over targets")
    if not arguments.laws:
        table = "RegMix 1M: 512 training and 256 test runs, 17 domains, 13 targets"
        result = {"machine": machine, "table": table, "subsets": arguments.subsets, "laws": rows}
        write_result("laws", {**result, "exposure_intervals": intervals, "autoscale_runs": published})


# -- AutoScale's runs, and intervals on RegMix's ----------------------------------------------------------------


def covered(size: int, train: RunTable, test: RunTable) -> dict[str, float]:
    """Return how many test runs lie in the 90 % intervals of the law of exposure fitted to the first runs."""
    start = time.process_time()
    fitted = selection.fit(train.take(slice(0, size)), "exposure", draws=24)
    seconds = time.process_time() - start
    found = score(fitted, test)
    by_target = [measured["coverage"] for measured in found["targets"].values()]
    print(f"exposure, {size} runs: coverage {found['mean']['coverage']:.3f}, by target {min(by_target):.2f} to "
          f"{max(by_target):.2f}, width {found['mean']['width']:.3f} nats")  # fmt: skip
    ends = {"lowest": min(by_target), "highest": max(by_target)}
    return {"runs": size, "coverage": found["mean"]["coverage"], **ends, "width": found["mean"]["width"],
            "seconds": seconds}  # fmt: skip


def left_out_one_by_one(names: list[str]) -> list[dict[str, Any]]:
    """Return order and error of each of AutoScale's published runs, left out of the fit."""
    figures = json.loads((RUNS / "autoscale_published.json").read_text(encoding="utf-8"))
    domains, content = tuple(figures["domains"]), figures["ddo_1.2B"]
    factor = content["perturbation_factors"]
    amounts = np.full((len(content["perplexity"]["rows"]), len(domains)), content["tokens"] / len(domains))
    for run, name in zip(amounts, content["perplexity"]["rows"], strict=True):
        if name != "base":
            kind, domain = name.split("/")
            run[domains.index(domain)] *= factor[kind]
    tokens = amounts.sum(1)
    losses = np.log(np.array(content["perplexity"]["values"]))
    table = RunTable(tuple(content["perplexity"]["rows"]), domains, domains, amounts / amounts.sum(1, keepdims=True),
                     tokens, np.full(len(amounts), np.nan), losses)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name in names:
        if table_fits.unsupported(table.take(slice(1, None)), name) is not None:
            continue
        predicted = np.zeros_like(losses)
        for i in range(len(table)):
            rest = table.take([j for j in range(len(table)) if j != i])
            fitted = table_fits.fit_part(rest, name)
            predicted[i] = fitted.predict(fitted.inputs(table.weights[[i]], tokens[[i]]))[0]
        by_target = [measures(predicted[:, j], losses[:, j], [np.arange(len(table))]) for j in range(len(domains))]
        rows.append({"law": name, **{key: mean_of(by_target, key) for key in ("spearman", "mae")}})
    rows.sort(key=lambda row: row["mae"])
    for each in rows:
        print(f"AutoScale's runs: {each['law']:16} Spearman {each['spearman']:.3f}, MAE {each['mae']:.4f} nats")
    return rows


def mean_of(rows: Sequence[Mapping[str, float | None]], key: str) -> float:
    """Return the mean of a figure over the rows that have it."""
    return float(np.mean([value for row in rows if (value := row[key]) is not None]))


# -- a table of several scales ----------------------------------------------------------------------------------


def over_scales(table: RunTable, names: list[str]) -> dict[str, Any]:
    """Return the figures of each law and split."""
    crowded = np.concatenate([rows for _, rows in table.groups() if len(rows) >= FEWEST_OF_A_SCALE])
    table = table.take(np.sort(crowded))
    rows = []
    print("| split | law | Spearman within a scale | error of differences | regret | level bias | relative error | "
          "coverage | width | s |\n" + "|---" * 10 + "|")  # fmt: skip
    for split, train, test in splits(table):
        for name in names:
            start = time.process_time()
            fitted = selection.fit(table.take(train), name, draws=24)
            seconds = time.process_time() - start
            rows.append({"split": split, "law": name, "fitted": fitted.law, **judged(fitted, table.take(test)),
                         "seconds": seconds})  # fmt: skip
            figures = [rows[-1][key] for key in FIGURES]
            print(f"| {split} | {name} | " + " | ".join(f"{figure:.4f}" for figure in figures) + f" | {seconds:.0f} |")
            sys.stdout.flush()
    path = path_against_keeping(table)
    return {"runs": len(table), "targets": len(table.targets), "splits": rows, "path": path, "drift": drift(table)}


def drift(table: RunTable) -> dict[str, float]:
    """Return by what share effects of mixtures change between scales, for a factor e of tokens and of size.

    An effect is a target's loss less its mean over the mixtures that two scales share. The median over pairs of scales
    that differ in one of the two by half or more.
    """
    scales: dict[tuple[float, float], dict[bytes, int]] = {}
    for row, mixture in enumerate(np.round(table.weights, 6)):
        scales.setdefault((table.tokens[row], table.parameters[row]), {})[mixture.tobytes()] = row
    found: dict[str, list[float]] = {"tokens": [], "size": []}
    for (first, a), (second, b) in itertools.permutations(scales.items(), 2):
        factors = np.log(np.array(second) / first)
        shared = [mixture for mixture in a if mixture in b]
        if len(shared) < FEWEST_OF_A_SCALE or (factors < 0).any() or (factors > 0).sum() != 1 or factors.max() < 0.4:
            continue
        before, after = (table.losses[[rows[mixture] for mixture in shared]] for rows in (a, b))
        before, after = before - before.mean(0), after - after.mean(0)
        share = np.sqrt(np.nanmean((after - before) ** 2) / np.nanmean(before**2)) / factors.max()
        found["tokens" if factors[0] else "size"].append(float(share))
    shares = {name: float(np.median(each)) for name, each in found.items() if each}
    print(f"effects change, for a factor e: {', '.join(f'of {name} {share:.2f}' for name, share in shares.items())}")
    return shares


def path_against_keeping(table: RunTable) -> dict[str, Any]:
    """Return how AutoScale's path, a joint law's optimum and ``--decide`` compare with keeping the last optimum.

    For every size, and for every target alone and all of them: optima of laws fitted to the first and the middle token
    count alone, continued to the last one, where a law fitted to that token count alone judges.
    """
    names, floor = list(table.domains), 0.01
    bounds = Bounds.of(names, floor)
    differences: dict[str, list[float]] = {"path": [], "joint law": [], "decided": [], "best": []}
    for size in np.unique(table.parameters):
        part = table.take(table.parameters == size)
        levels = np.unique(part.tokens)
        levels = levels[[0, len(levels) // 2, -1]]
        alone = [table_fits.fit_law(part.take(part.tokens == level), "exposure", draws=0) for level in levels]
        joint = table_fits.fit_law(part.take(part.tokens <= levels[1]), "exposure", draws=24)
        for targets in [*([name] for name in table.targets), list(table.targets)]:
            objective = Objective.of_kind("mean-loss", targets)
            goals = [solver.Goal(law, objective, t, size) for law, t in zip(alone, levels, strict=True)]
            first, last, best = (solver.minimum(goal, bounds) for goal in goals)
            known = solver.Goal(joint, objective, levels[2], size)
            choices = {"best": best, "joint law": solver.minimum(known, bounds)}
            try:
                choices["path"] = AutoScale.fit([(levels[0], first), (levels[1], last)], floor=floor).predict(levels[2])
            except MixtureError:  # every domain on its floor, or no path to this budget
                choices["path"] = last
            options = {name: (choices[name], 1.0) for name in ("path", "joint law")}
            choices["decided"] = moving.decide(last, options, known).weights
            kept = goals[2].value(np.array([[last[name] for name in names]]))[0]
            for name, weights in choices.items():
                reached = goals[2].value(np.array([[weights[domain] for domain in names]]))[0]
                differences[name].append(float(reached - kept))
    rows = {}
    for name, each in differences.items():
        values = np.array(each)
        rows[name] = {"mean": float(values.mean()), "worst": float(values.max()), "best": float(values.min()),
                      "worse": int((values > 1e-4).sum()), "better": int((values < -1e-4).sum()),
                      "cases": len(values)}  # fmt: skip
        print(f"against keeping the last optimum, {len(values)} cases: {name:10} {values.mean():+.5f} nats on average, "
              f"worse in {rows[name]['worse']}, better in {rows[name]['better']} (by more than .0001), "
              f"{values.min():+.4f} to {values.max():+.4f}")  # fmt: skip
    return rows


def splits(table: RunTable) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the name of a split, the rows to fit and the rows to predict."""
    mixtures = np.unique(np.round(table.weights, 6), axis=0, return_inverse=True)[1].ravel()
    for offset in range(3):
        left_out = mixtures % 3 == offset
        yield f"every third mixture, from {offset}", ~left_out, left_out
    largest = table.parameters == table.parameters.max()
    yield "largest size", ~largest, largest
    late = table.tokens > np.median(table.tokens)
    yield "later half of tokens", ~late, late


def judged(fitted: model.LossModel, test: RunTable) -> dict[str, float]:
    """Return the figures of one fit on the rows left out."""
    found = score(fitted, test)["mean"]
    predicted = fitted.predict(fitted.inputs(test.weights, test.tokens, test.parameters))
    regrets = []
    for _, rows in test.groups():
        chosen = np.nanargmin(np.where(np.isfinite(test.losses[rows]), predicted[rows], np.inf), axis=0)
        reached = test.losses[rows][chosen, np.arange(len(test.targets))]
        regrets.append(reached - np.nanmin(test.losses[rows], axis=0))
    bias = np.abs(np.nanmean(predicted - test.losses, axis=0)).mean()
    return {
        "spearman_within": found["spearman_within"],
        "mae_within": found["mae_within"],
        "regret": float(np.nanmean(regrets)),
        "bias": float(bias),
        "mre": found["mre"],
        "coverage": found["coverage"],
        "width": found["width"],
    }


# -- RegMix's runs ----------------------------------------------------------------------------------------------


def supported(train: RunTable) -> list[str]:
    """Return the laws that this table can be fitted with."""
    names = [name for name, law in registry.LAWS.items() if law.unavailable() is None]
    return [name for name in names if table_fits.unsupported(train, name) is None]


def measure(name: str, train: RunTable, test: RunTable, subsets: int) -> dict[str, Any]:
    """Return Spearman, MAE and seconds a fit of one law for each number of runs."""
    found: dict[str, Any] = {"law": name, "runs": {}}
    for size in SIZES:
        rng = np.random.default_rng(size)
        picks = [rng.choice(512, size, replace=False) for _ in range(subsets)] if size < 512 else [np.arange(512)]
        tables = [table for table in map(train.take, picks) if table_fits.unsupported(table, name) is None]
        if tables:
            found["runs"][str(size)] = mean([fit_and_score(name, table, test) for table in tables])
    if name == "exposure":
        found["first_64"] = fit_and_score(name, train.take(slice(0, 64)), test)
    return found


def fit_and_score(name: str, table: RunTable, test: RunTable) -> dict[str, float]:
    """Fit every target; return the mean score and the seconds a target took."""
    start = time.process_time()
    scales = model.Scales.of(table)
    fits = {target: table_fits.fit_target(table, scales, name, target, starts=2) for target in table.targets}
    seconds = (time.process_time() - start) / len(table.targets)
    found = score(model.LossModel(name, table.domains, scales, fits), test)["mean"]
    return {"spearman": found["spearman"], "mae": found["mae"], "seconds": seconds}


def mean(results: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure."""
    return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of benchmarks/README.md."""
    header = ["law", *(f"Spearman, {size} runs" for size in SIZES), "MAE (nats), 512", "s a fit, 512"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        rho = [f"{row['runs'][str(s)]['spearman']:.3f}" if str(s) in row["runs"] else "–" for s in SIZES]
        last = row["runs"]["512"]
        lines.append("| " + " | ".join([row["law"], *rho, f"{last['mae']:.3f}", f"{last['seconds']:.3f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)

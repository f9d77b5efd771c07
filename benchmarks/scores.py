#!/usr/bin/env python3
"""Measure how well the final scores of 3 B runs are predicted from runs of up to 1 B, and of up to 760 M parameters.

The table is the OLMo ladder's (allenai/OLMo-ladder, Apache-2.0): 25 runs of 190 M to 3 B parameters at 0.5 to 10 times
Chinchilla, 20 sets of multiple-choice items. Peers, on the same runs:

* last score: that of the fitted run with the most compute;
* linear in log compute: a straight line through the ends of the runs, over log(parameters x tokens);
* error's power law in compute: (1 - score) = a C^-b + c;
* two steps, least squares: the same two curves without priors or outlier weights (SciPy).

Examples:
  python benchmarks/scores.py olmo_ladder.csv.gz      # writes benchmarks/results/scores.json; three minutes
  python benchmarks/scores.py olmo_ladder.csv.gz --tasks hellaswag_val_rc_5shot piqa_val_rc_5shot
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads; matrices of 5 columns gain nothing from threads

import argparse
import csv
import gzip
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from autoscale_ds import cli
from autoscale_ds.errors import ScoreError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.scores import ScoreModel, ScoreTable, fitting
from benchmarks._machine import describe, write_result

SIZES = {"190M": 190_354_176, "370M": 371_262_464, "760M": 758_220_288, "1B": 1_279_395_840, "3B": 3_169_537_280}
# Chance by the first part of a task's name; choices of equal number in each set.
CHANCE = {"arc": 1 / 4, "boolq": 1 / 2, "csqa": 1 / 5, "hellaswag": 1 / 4, "mmlu": 1 / 4, "openbookqa": 1 / 4}
CHANCE |= {"piqa": 1 / 2, "socialiqa": 1 / 3, "winogrande": 1 / 2}
LARGEST = {"1B": 1.3e9, "760M": 0.8e9}
Peer = Callable[[ScoreTable, ScoreTable, float], Array]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="olmo_ladder.csv.gz: columns size, chinchilla, step, tokens, series, value")
    parser.add_argument("--tasks", nargs="+", help="only these (default: all 20, and the result is written)")
    arguments = parser.parse_args()
    table = read(arguments.table)
    table = table.with_tasks(arguments.tasks) if arguments.tasks else table
    chance = {task: CHANCE[task.split("_")[0]] for task in table.tasks}
    target = table.take((table.parameters > 3e9) & table.is_end)
    results = {}
    for name, largest in LARGEST.items():
        small = table.take(table.parameters < largest)
        results[f"up to {name}"] = {
            "autoscale_ds": ours(small, target, chance),
            "autoscale_ds, chance not given": ours(small, target, {}),
            **{peer: figures(predicted(small, target, chance, method), target) for peer, method in PEERS.items()},
        }
        print(markdown(f"3 B from runs up to {name}", results[f"up to {name}"]))
    machine = describe("numpy", "scipy")
    over = f"{len(table.tasks)} tasks x {len(target)} runs"
    print(f"{machine['cpu']}, one thread; mean absolute error in points over {over}")
    if not arguments.tasks:
        source = "OLMo ladder (allenai/OLMo-ladder, Apache-2.0), final scores of the 3 B runs"
        write_result("scores", {"table": source, "machine": machine, "results": results})


def read(path: str) -> ScoreTable:
    """Return the ladder's table: tasks with bits per byte and a score."""
    cells: dict[tuple[str, float, float], dict[tuple[str, str], float]] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            kind, _, series = row["series"].partition("/")
            if kind in ("downstream", "downstream_bpb"):
                task = series.removesuffix("_bpb").removesuffix("_len_norm").removesuffix("_acc")
                run = f"{row['size']}-{row['chinchilla']}x", float(SIZES[row["size"]]), float(row["tokens"])
                cells.setdefault(run, {})[task, kind] = float(row["value"])
    if not cells:
        raise ScoreError(f"{path} has no series downstream/ or downstream_bpb/")
    tasks = tuple(sorted({task for values in cells.values() for task, kind in values if kind == "downstream_bpb"}))
    runs, parameters, tokens = zip(*sorted(cells), strict=True)
    bits, scores = (
        np.array([[cells[row].get((task, kind), np.nan) for task in tasks] for row in sorted(cells)])
        for kind in ("downstream_bpb", "downstream")
    )
    return ScoreTable(runs, np.array(parameters), np.array(tokens), tasks, bits, scores)


def ours(small: ScoreTable, target: ScoreTable, chance: dict[str, float]) -> dict[str, Any]:
    """Return the figures of our prediction, with those of its intervals and of its own judgement."""
    began = time.process_time()
    model = fitting.fit(small, chance)
    seconds = time.process_time() - began
    its = model.predict(target.parameters, target.tokens)
    low, high, scores = (np.stack([getattr(its[t], end) for t in target.tasks], 1) for end in ("low", "high", "scores"))
    inside = (low <= target.scores) & (target.scores <= high)
    sure = [model.tasks[task].check.doubt is None for task in target.tasks]
    return {
        **figures(scores, target),
        "coverage_of_90": float(inside.mean()),
        "width": float(100 * (high - low).mean()),
        "predictable": split(scores, target, np.array(sure)),
        "processor_seconds": seconds,
        "widen": model.widen,
        "doubts": doubts(model),
    }


def doubts(model: ScoreModel) -> dict[str, str]:
    """Return why tasks are said to be unpredictable."""
    return {name: task.check.doubt for name, task in model.tasks.items() if task.check.doubt}


def split(scores: Array, target: ScoreTable, sure: Array) -> dict[str, float | int | None]:
    """Return the errors of the tasks called predictable, and of the others."""
    errors = 100 * np.abs(scores - target.scores).mean(0)
    yes, no = errors[sure], errors[np.logical_not(sure)]
    means = {"error": float(yes.mean()) if len(yes) else None, "error_of_others": float(no.mean()) if len(no) else None}
    return {"tasks": int(sure.sum()), **means}


def figures(scores: Array, target: ScoreTable) -> dict[str, Any]:
    """Return errors in points of scores (n, k)."""
    errors = 100 * (scores - target.scores)
    by_task = np.abs(errors).mean(0)
    return {
        "error": float(by_task.mean()),
        "median_task": float(np.median(by_task)),
        "largest_task": float(by_task.max()),
        "bias": float(errors.mean()),
        "tasks": dict(zip(target.tasks, np.round(by_task, 3).tolist(), strict=True)),
    }


def predicted(small: ScoreTable, target: ScoreTable, chance: dict[str, float], method: Peer) -> Array:
    """Return a peer's scores (n, k)."""
    columns = [method(small.of_task(task), target.of_task(task), chance[task]) for task in target.tasks]
    return np.clip(np.stack(columns, 1), 0.0, 1.0)


# -- peers: rows of one task, the runs to predict, chance -> scores (n,) ----------------------------------------


def last_score(small: ScoreTable, target: ScoreTable, chance: float) -> Array:
    """Return the score of the run with the most compute."""
    ends = small.take(small.is_end)
    return np.full(len(target), ends.scores[np.argmax(ends.parameters * ends.tokens), 0])


def linear(small: ScoreTable, target: ScoreTable, chance: float) -> Array:
    """Return a straight line over log compute."""
    ends = small.take(small.is_end)
    line = np.polyfit(np.log(ends.parameters * ends.tokens), ends.scores[:, 0], 1)
    return np.asarray(np.polyval(line, np.log(target.parameters * target.tokens)), float)


def power_law(small: ScoreTable, target: ScoreTable, chance: float) -> Array:
    """Return one less the error, a power law in compute with a floor."""
    ends = small.take(small.is_end)
    unit = float(np.median(ends.parameters * ends.tokens))

    def error(compute: Array, a: float, b: float, c: float) -> Array:
        return a * compute**-b + c

    x, y = ends.parameters * ends.tokens / unit, 1 - ends.scores[:, 0]
    bounds = ([0.0, 0.0, 0.0], [2.0, 2.0, 1.0])
    found, _ = curve_fit(error, x, y, p0=[0.5 * y.mean(), 0.2, 0.5 * y.mean()], bounds=bounds, maxfev=20_000)
    return 1 - error(target.parameters * target.tokens / unit, *found)


def two_steps(small: ScoreTable, target: ScoreTable, chance: float) -> Array:
    """Return the two curves by plain least squares: bits from scale, then the score from bits."""
    ends = small.take(small.is_end)

    def bits(scale: Array, level: float, a: float, alpha: float, b: float, beta: float) -> Array:
        size, tokens = scale
        return level + a * size**-alpha + b * tokens**-beta

    def score(x: Array, low: float, high: float, k: float, middle: float) -> Array:
        return low + (high - low) / (1 + np.exp(np.clip(k * (x - middle), -50, 50)))

    y = ends.bits[:, 0]
    scales, asked = (np.stack([t.parameters / 1e9, t.tokens / 1e10]) for t in (ends, target))
    start, most = [0.5 * y.min(), 0.2, 0.3, 0.2, 0.3], [y.min(), 10, 2, 10, 2]
    first, _ = curve_fit(bits, scales, y, p0=start, bounds=([0.0] * 5, most), maxfev=50_000)
    late = small.take(small.tokens > 0.2 * small.lengths)
    x = late.bits[:, 0]
    edges = ([0.0, chance, 0.1, -5.0], [chance + 0.2, 1.0, 50.0, float(x.max())])
    second, _ = curve_fit(
        score, x, late.scores[:, 0], p0=[chance, 0.95, 4.0, np.quantile(x, 0.2)], bounds=edges, maxfev=50_000
    )
    return score(bits(asked, *first), *second)


PEERS: dict[str, Peer] = {
    "two steps, least squares": two_steps,
    "error's power law in compute": power_law,
    "linear in log compute": linear,
    "last score": last_score,
}


def markdown(title: str, rows: dict[str, dict[str, Any]]) -> str:
    """Return a table for people."""
    header = "| method | error | median task | worst task | bias | 90 % hold | width |"
    lines = [f"### {title}", header, "|---|" + "---:|" * 6]
    for name, row in rows.items():
        known = "coverage_of_90" in row
        held, width = (f"{row['coverage_of_90']:.0%}", f"{row['width']:.1f}") if known else ("", "")
        numbers = " | ".join(f"{row[key]:.2f}" for key in ("error", "median_task", "largest_task", "bias"))
        lines.append(f"| {name} | {numbers} | {held} | {width} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)

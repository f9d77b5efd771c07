#!/usr/bin/env python3
"""Measure which law orders mixtures best, from how many runs, in what time.

Fits each law to 64, 128 and 512 of the runs released with RegMix (1 M parameters, 1 B tokens, 17 domains) and predicts
the 13 losses of the 256 test runs. Below 512, the figures are means over random subsets. Every law is fitted by the
same code in the same process; LightGBM is the peer.

Examples:
  python benchmarks/laws.py                      # all laws, about two minutes; writes benchmarks/results/laws.json
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
import time
from typing import Any

import numpy as np

from autoscale_ds import cli
from autoscale_ds.laws import model, registry
from autoscale_ds.laws.score import score
from autoscale_ds.mixture import RunTable
from benchmarks._machine import describe, write_result

RUNS = Path(__file__).parents[1] / "tests" / "data" / "runs"
SIZES = (64, 128, 512)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laws", help="comma-separated (default: all the table supports)")
    parser.add_argument("--subsets", type=int, default=4, help="random subsets below 512 runs (default: 4)")
    arguments = parser.parse_args()
    train, test = (RunTable.read(RUNS / f"regmix_1m_{part}.csv") for part in ("train", "test"))
    names = arguments.laws.split(",") if arguments.laws else supported(train)
    rows = [measure(name, train, test, arguments.subsets) for name in names]
    rows.sort(key=lambda row: -row["runs"]["512"]["spearman"])
    print(markdown(rows))
    machine = describe("numpy", "scipy", "lightgbm")
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"\n{machine['cpu']}, one thread, {versions}; processor seconds of one fit, mean over targets")
    if not arguments.laws:
        table = "RegMix 1M: 512 training and 256 test runs, 17 domains, 13 targets"
        write_result("laws", {"machine": machine, "table": table, "subsets": arguments.subsets, "laws": rows})


def supported(train: RunTable) -> list[str]:
    """Return the laws that this table can be fitted with."""
    names = [name for name, law in registry.LAWS.items() if law.unavailable() is None]
    return [name for name in names if model.unsupported(train, name) is None]


def measure(name: str, train: RunTable, test: RunTable, subsets: int) -> dict[str, Any]:
    """Return Spearman, MAE and seconds a fit of one law for each number of runs."""
    found: dict[str, Any] = {"law": name, "runs": {}}
    for size in SIZES:
        rng = np.random.default_rng(size)
        picks = [rng.choice(512, size, replace=False) for _ in range(subsets)] if size < 512 else [np.arange(512)]
        tables = [table for table in map(train.take, picks) if model.unsupported(table, name) is None]
        if tables:
            found["runs"][str(size)] = mean([fit_and_score(name, table, test) for table in tables])
    if name == "exposure":
        found["first_64"] = fit_and_score(name, train.take(slice(0, 64)), test)
    return found


def fit_and_score(name: str, table: RunTable, test: RunTable) -> dict[str, float]:
    """Fit every target; return the mean score and the seconds a target took."""
    start = time.process_time()
    scales = model.Scales.of(table)
    fits = {target: model.fit_target(table, scales, name, target, starts=2) for target in table.targets}
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

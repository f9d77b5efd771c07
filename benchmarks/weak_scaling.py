"""One rank against two with the same batch a rank: what data parallelism costs, for the trainer and for plain DDP.

    python benchmarks/weak_scaling.py               prints a table, writes benchmarks/results/weak_scaling.json

A rank has one core (OMP_NUM_THREADS=1), the second rank gets the second core; nothing else should run. All subjects
take turns in every round, each run in processes of its own; the figure is the median step of a run, ratios are medians
over rounds. Efficiency is tokens/s of two ranks by twice those of one: cores share caches and memory, so that plain
DDP, not 1, is the measure.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks._machine import describe, write_result
from benchmarks._plain_loop import PlainRun, measure
from benchmarks._training import measure_trainer, write_random_corpus

T, MICRO, ACCUMULATION, VOCABULARY, WARM_UP = 256, 4, 2, 8192, 3
SHAPE = {"layers": 6, "heads": 4, "width": 256}
SUBJECTS = {"plain PyTorch, DDP": None, "trainer, ZeRO 0": 0, "trainer, ZeRO 1": 1}


def tokens_per_second(zero: int | None, ranks: int, steps: int, corpus: Path, folder: Path) -> float:
    """Return the rate of one subject; ``zero`` is None for the plain loop."""
    if zero is None:
        run = PlainRun({**SHAPE, "context": T, "vocabulary": VOCABULARY}, MICRO, ACCUMULATION, steps)
        return measure(run, folder, WARM_UP, ranks, threads=1)
    global_batch = MICRO * ACCUMULATION * ranks
    tree: dict[str, Any] = {
        "budget_tokens": steps * T * global_batch,
        "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": global_batch},
        "model": SHAPE,
    }
    ds = {"train_micro_batch_size_per_gpu": MICRO, "zero_optimization": {"stage": zero}}
    return measure_trainer(tree, ds, folder, WARM_UP, ranks, threads=1)


def measure_rounds(rounds: int, steps: int) -> Iterator[dict[str, dict[int, list[float]]]]:
    """Yield after every round the rates of every subject on one and two ranks, by round."""
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in SUBJECTS}
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", 7, 500_000, VOCABULARY)
        for turn in range(rounds):
            for ranks in (1, 2):
                for name, zero in SUBJECTS.items():
                    folder = Path(temporary) / f"{turn}-{ranks}-{zero}"
                    rates[name][ranks].append(tokens_per_second(zero, ranks, steps, corpus, folder))
            yield rates


def summary(rates: dict[str, dict[int, list[float]]]) -> dict[str, dict[str, Any]]:
    """Return medians, efficiency, and tokens/s on two ranks as a ratio to plain DDP's, by subject."""
    plain = rates["plain PyTorch, DDP"][2]
    return {
        name: {
            "one_rank": statistics.median(found[1]),
            "two_ranks": statistics.median(found[2]),
            "efficiency": statistics.median(b / (2 * a) for a, b in zip(found[1], found[2], strict=True)),
            "ratio_to_ddp": statistics.median(b / p for b, p in zip(found[2], plain, strict=True)),
            "all": found,
        }
        for name, found in rates.items()
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--steps", type=int, default=15, help="steps a run (default 15)")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load is {load:.1f}; on a busy machine these figures mean little", file=sys.stderr)
    result = {"machine": describe("torch", "deepspeed"), "load_at_start": load, "shape": SHAPE}
    table: dict[str, dict[str, Any]] = {}
    for done, rates in enumerate(measure_rounds(arguments.rounds, arguments.steps), start=1):
        table = summary(rates)
        path = write_result("weak_scaling", {**result, "rates": table})  # a later failure loses no round
        print(f"round {done} of {arguments.rounds}", file=sys.stderr)
    print(f"{'tokens/s':<20} {'1 rank':>8} {'2 ranks':>8} {'efficiency':>11} {'to DDP':>7}   (a core a rank, fp32)")
    for name, row in table.items():
        both = f"{row['one_rank']:>8.0f} {row['two_ranks']:>8.0f}"
        print(f"{name:<20} {both} {row['efficiency']:>11.3f} {row['ratio_to_ddp']:>7.3f}")
    print(f"written: {path}")


if __name__ == "__main__":
    main()

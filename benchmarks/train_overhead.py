"""The trainer against a plain PyTorch loop on the same model and batches: what DeepSpeed and the loop cost.

    python benchmarks/train_overhead.py             prints a table, writes benchmarks/results/train_overhead.json

The plain loop knows nothing of domains, checkpoints, swaps or logs, and gets its batches as tensors ready in memory.
The trainer runs through launch/train.py on one rank: memory-mapped data, per-domain losses, metrics, TensorBoard.
Both take turns, each run in its own process; the figure is the median step of a run, the ratio the median over pairs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import statistics
import tempfile
from typing import Any

import torch

from benchmarks._machine import describe, write_result
from benchmarks._plain_loop import PlainRun, measure
from benchmarks._training import measure_trainer, write_random_corpus

T, GLOBAL_BATCH, MICRO_BATCH, VOCABULARY, WARM_UP = 256, 16, 8, 8192, 5
SHAPE = {"layers": 6, "heads": 4, "width": 256}


def plain(folder: Path, steps: int) -> float:
    """Return tokens/s of the plain loop."""
    shape = {**SHAPE, "context": T, "vocabulary": VOCABULARY}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return measure(PlainRun(shape, MICRO_BATCH, GLOBAL_BATCH // MICRO_BATCH, steps, device), folder, WARM_UP)


def trainer(corpus: Path, folder: Path, steps: int, stage: int) -> float:
    """Return tokens/s of the trainer."""
    tree: dict[str, Any] = {
        "budget_tokens": steps * T * GLOBAL_BATCH,
        "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": GLOBAL_BATCH},
        "model": SHAPE,
    }
    ds = {"train_micro_batch_size_per_gpu": MICRO_BATCH, "zero_optimization": {"stage": stage}}
    return measure_trainer(tree, ds, folder, WARM_UP)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--steps", type=int, default=40, help="steps a run (default 40)")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"plain PyTorch": [], "trainer, ZeRO 0": [], "trainer, ZeRO 1": []}
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", 7, 500_000, VOCABULARY)
        for turn in range(arguments.pairs):
            rates["plain PyTorch"].append(plain(Path(temporary) / f"{turn}-plain", arguments.steps))
            for stage in (0, 1):
                folder = Path(temporary) / f"{turn}-{stage}"
                rates[f"trainer, ZeRO {stage}"].append(trainer(corpus, folder, arguments.steps, stage))
    base = rates["plain PyTorch"]
    table = {
        name: {
            "tokens_per_s": statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, base, strict=True)),
            "all": found,
        }
        for name, found in rates.items()
    }
    print(f"{'':<18} {'tokens/s':>9} {'ratio':>7}   (one rank, fp32, {SHAPE}, T = {T}, batch {GLOBAL_BATCH})")
    for name, row in table.items():
        print(f"{name:<18} {row['tokens_per_s']:>9.0f} {row['ratio']:>7.3f}")
    machine = describe("torch", "deepspeed")
    print(f"written: {write_result('train_overhead', {'machine': machine, 'shape': SHAPE, 'rates': table})}")


if __name__ == "__main__":
    main()

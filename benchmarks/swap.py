"""What a hot swap costs: the time of the steps around it, and how soon it takes effect.

    python benchmarks/swap.py                       prints a table, writes benchmarks/results/swap.json

One run of launch/train.py on one rank with a reading-ahead worker; every few steps tools/swap_weights.py's file is
dropped into its inbox. Steps in which a swap was taken up are compared with all others of the same run. The peer is
what Megatron would do for new weights: build its blending index again (and reorder every domain on the way).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks._machine import describe, write_result
from benchmarks._training import run_with_swaps, swap_times, write_random_corpus

T, GLOBAL_BATCH, MICRO_BATCH, VOCABULARY, WARM_UP, PREFETCH, DOMAINS = 256, 16, 8, 8192, 10, 2, 7
READING = {"workers": 1, "prefetch": PREFETCH}
SHAPE = {"layers": 6, "heads": 4, "width": 256}


def swapped_run(folder: Path, corpus: Path, steps: int, every: int) -> list[dict[str, Any]]:
    """Train, dropping a proposal every ``every`` steps; return the run's metrics records."""
    tree: dict[str, Any] = {
        "run": str(folder / "run"),
        "budget_tokens": steps * T * GLOBAL_BATCH,
        "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": GLOBAL_BATCH, **READING},
        "mixture": {"poll_seconds": 0},
        "model": SHAPE,
        "evaluation": {"every_steps": None},
        "checkpoints": {"every_steps": None},
        "logging": {"every_steps": 1},
    }
    ds = {"train_micro_batch_size_per_gpu": MICRO_BATCH, "zero_optimization": {"stage": 1}}
    return run_with_swaps(tree, ds, folder, WARM_UP, every, [f"d{index}" for index in range(DOMAINS)])


def rebuild_seconds(samples: int) -> float:
    """Return what Megatron's blending index of a run of ``samples`` takes to build again."""
    from megatron.core.datasets import helpers

    which, sample = np.zeros(samples, np.int16), np.zeros(samples, np.int64)
    began = time.perf_counter()
    helpers.build_blending_indices(which, sample, np.full(DOMAINS, 1 / DOMAINS), DOMAINS, samples, False)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps of the run (default 200)")
    parser.add_argument("--every", type=int, default=8, help="steps between proposals (default 8)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", DOMAINS, 500_000, VOCABULARY)
        records = swapped_run(Path(temporary) / "job", corpus, arguments.steps, arguments.every)
    swaps = [record for record in records if record["kind"] == "swap"]
    with_swap, without = swap_times(records, WARM_UP)
    median = statistics.median([*with_swap, *without])
    result: dict[str, Any] = {
        "machine": describe("torch", "deepspeed", "megatron-core"),
        "swaps": len(swaps),
        "median_step_s": median,
        "with_swap": {"median": statistics.median(with_swap) / median, "max": max(with_swap) / median},
        "without_swap": {"median": statistics.median(without) / median, "max": max(without) / median},
        "steps_until_effective": {"allowed": PREFETCH + 1, "max": max(r["effective_step"] - r["step"] for r in swaps)},
        "megatron_rebuild_s": {f"1e{k}": rebuild_seconds(10**k) for k in (6, 7, 8)},
    }
    print(f"{len(swaps)} swaps in {arguments.steps} steps of {median * 1e3:.0f} ms (one rank, one reading worker)")
    print(f"{'':<22} {'median':>8} {'slowest':>8}   (in median steps)")
    for name in ("with_swap", "without_swap"):
        print(f"{'steps ' + name.replace('_', ' '):<22} {result[name]['median']:>8.2f} {result[name]['max']:>8.2f}")
    allowed = result["steps_until_effective"]
    print(f"effective {allowed['max']} steps after it was seen (prefetch {PREFETCH} + 1 allowed)")
    for samples, rebuilt in result["megatron_rebuild_s"].items():
        print(f"Megatron, new blending index for {samples} samples: {rebuilt:.2f} s")
    print(f"written: {write_result('swap', result)}")


if __name__ == "__main__":
    main()

"""The stream at the size of the largest runs: 10,000 domains, 10^13 tokens, 16,384 data-parallel ranks, 1,000 swaps.

    python benchmarks/simulate_stream.py                  some minutes; writes benchmarks/results/simulate_stream.json
    python benchmarks/simulate_stream.py --tokens 1e11    a shorter run of the same width

Nothing is read or trained: the real planner and the real journal go through the whole run, step by step. Checked while
it does: the count of every domain at every step against its target in extended precision; the slices of all ranks,
each planned alone, against the whole plan; a resume from the JSON state near the end; windows against a permutation
computed in Python's unlimited integers; every window of each small domain's epoch exactly once; a journal of 1,000
swaps replayed from its file. A failed check ends the script. Timed: a step, the state, the journal. The peer is
Megatron's blending index, the only other planner of exact counts; it is built ahead of the run and cannot be swapped.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner, StepPlan, StreamSpec
from benchmarks._machine import describe, write_result
from benchmarks._stream_checks import check, check_windows, digest

DOMAINS, RANKS, T, SEED = 10_000, 16_384, 4096, 0
WIDTHS = (8, 7, 12, 6, 9, 14, 9)
LAST = 200  # steps at the end of the run whose every sample is looked at


def corpus_sizes(tokens: float, domains: int) -> dict[str, int]:
    """Return windows by domain: a few huge ones, many small ones, ``tokens`` together."""
    raw = np.random.default_rng(1).pareto(0.7, domains) + 1e-4
    return {f"domain-{i:05}": int(part) + 20 for i, part in enumerate(raw / raw.sum() * (tokens / T))}


def weights_of(names: list[str], version: int = 0) -> DomainWeights:
    """Return uneven weights that have nothing to do with sizes, so that domains repeat very differently often."""
    amounts = np.random.default_rng([2, version]).dirichlet(np.full(len(names), 0.5)) + 1e-9
    return DomainWeights.normalised(dict(zip(names, amounts.tolist(), strict=True)))


def event(version: int, step: int, weights: DomainWeights) -> Event:
    """Return a change of weights."""
    return Event(version, step, weights, "benchmark", "simulated", "2026-01-01T00:00:00+00:00", step)


def make_planner(sizes: dict[str, int], batch: int) -> MixturePlanner:
    """Return a planner at step 0 with the first weights."""
    return MixturePlanner(StreamSpec(SEED, batch, sizes), [event(0, 0, weights_of(list(sizes)))])


# -- exactness ------------------------------------------------------------------------------------------------------


def go_through(planner: MixturePlanner, steps: int) -> float:
    """Plan the counts of ``steps`` steps; return the largest distance of any count from its target at any step.

    Targets are weight x batch x steps in 80-bit floats, from the weights, not from anything the planner carries.
    """
    asked = weights_of(planner.names)
    weights = np.array([asked[name] for name in planner.names], np.longdouble)
    quota, worst = weights / weights.sum() * planner.spec.global_batch, 0.0
    given = np.zeros(len(quota), np.int64)
    for step in range(1, steps + 1):
        given += planner.skip()
        worst = max(worst, float(np.abs(quota * step - given).max()))
    check(int(given.sum()) == steps * planner.spec.global_batch, "every step gives a whole global batch")
    check(worst < 1, f"counts stay within one sample of their targets, found {worst}")
    return worst


def all_ranks(planner: MixturePlanner, ranks: int) -> StepPlan:
    """Return one step put together from the slices that ``ranks`` planners plan, each on its own."""
    parts = [copy.copy(planner).plan(rank, ranks) for rank in range(ranks)]
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in ("domains", "epochs", "windows")]
    return StepPlan(parts[0].step, *joined)


def whole_run(sizes: dict[str, int], tokens: float, ranks: int) -> dict[str, Any]:
    """Go through a run to its end with one sample a rank and step, and look closely at the last steps."""
    planner = make_planner(sizes, ranks)
    steps = int(tokens // (ranks * T))
    last = min(LAST, steps // 2)
    began = time.perf_counter()
    worst = go_through(planner, steps - last)
    counted = time.perf_counter() - began
    state = json.dumps(planner.state())
    before = planner.position().cursor
    plans = [planner.plan() for _ in range(last)]
    found = check_windows(planner, before, plans)

    resumed = make_planner(sizes, ranks)
    resumed.restore(json.loads(state))
    together = all_ranks(resumed, ranks)
    check(digest([together]) == digest(plans[:1]), "the slices of all ranks put together are the plan")
    check(digest([resumed.plan() for _ in plans]) == digest(plans), "a resumed run continues the same plans")
    check(resumed.state() == planner.state(), "and ends in the same state")
    return {
        "steps": steps,
        "tokens": steps * ranks * T,
        "worst_distance_from_target": worst,
        "largest_count": int(planner.position().cursor.max()),
        "largest_epoch": max(int(plan.epochs.max()) for plan in plans),
        "largest_domain_windows": max(sizes.values()),
        "ranks_put_together": ranks,
        "counting_and_checking_s": counted,
        **found,
    }


# -- swaps ----------------------------------------------------------------------------------------------------------


def swapped_run(sizes: dict[str, int], ranks: int, swaps: int, every: int, path: Path) -> dict[str, Any]:
    """Swap all weights ``swaps`` times, then replay the run from its journal file and compare."""
    journal, planner = Journal(path), make_planner(sizes, ranks)
    journal.append(event(0, 0, weights_of(planner.names)))
    appended, worst = 0.0, 0.0
    for version in range(1, swaps + 1):
        for _ in range(every):
            planner.skip()
            worst = max(worst, float(np.abs(planner.position().lag).max()))
        change = event(version, planner.next_step, weights_of(planner.names, version))
        began = time.perf_counter()
        journal.append(change)
        planner.add_event(change)
        appended += time.perf_counter() - began
    end = planner.plan()

    began = time.perf_counter()
    events = Journal(path).events
    read = time.perf_counter() - began
    replayed = MixturePlanner(planner.spec, events)
    built = time.perf_counter() - began - read
    for _ in range(swaps * every):
        replayed.skip()
    gone_through = time.perf_counter() - began - read - built
    check(digest([replayed.plan()]) == digest([end]), "a run replayed from its journal comes to the same plan")
    check(replayed.state() == planner.state(), "and to the same state")
    return {
        "swaps": swaps,
        "steps": swaps * every,
        "journal_bytes": os.path.getsize(path),
        "append_ms": appended / swaps * 1e3,
        "read_s": read,
        "planner_from_journal_s": built,
        "replay_steps_s": gone_through,
        "worst_distance_from_target": worst,
    }


# -- time -----------------------------------------------------------------------------------------------------------


def milliseconds(action: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return median and 95th percentile of a call."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        found.append((time.perf_counter() - began) * 1e3)
    return {"median_ms": float(np.median(found)), "p95_ms": float(np.quantile(found, 0.95))}


def step_times(domains: int, batch: int, ranks: int, tokens: float, repeats: int) -> dict[str, Any]:
    """Return what a step costs, and what a checkpoint holds."""
    sizes = corpus_sizes(tokens, domains)
    began = time.perf_counter()
    planner = make_planner(sizes, batch)
    built = time.perf_counter() - began
    row: dict[str, Any] = {
        "one_rank": milliseconds(lambda: planner.plan(ranks // 2, ranks), repeats),
        "whole_batch": milliseconds(planner.plan, repeats),
        "start_s": built,
    }
    text = json.dumps(planner.state())
    row["state_bytes"], row["save_ms"] = len(text), milliseconds(lambda: json.dumps(planner.state()), 5)["median_ms"]
    row["restore_ms"] = milliseconds(lambda: planner.restore(json.loads(text)), 5)["median_ms"]
    return row


def megatron_ms(domains: int, batch: int, samples: int = 200_000) -> float | None:
    """Return what Megatron's blending index costs for the samples of one step; None without megatron-core."""
    try:
        from megatron.core.datasets import helpers
    except ImportError:
        return None
    which, sample = np.zeros(samples, np.int16), np.zeros(samples, np.int64)
    weights = np.array(list(weights_of([f"d{i}" for i in range(domains)]).values()))
    found = milliseconds(lambda: helpers.build_blending_indices(which, sample, weights, domains, samples, False), 1)
    return found["median_ms"] / samples * batch


def time_steps(tokens: float, repeats: int) -> list[dict[str, Any]]:
    """Measure and print the table of step times."""
    heads = zip(("domains", "batch", "one rank ms", "p95", "whole ms", "Megatron ms", "state kB"), WIDTHS, strict=True)
    print(" ".join(f"{head:>{width}}" for head, width in heads))
    rows = []
    for domains, batch in [(100, RANKS), (1000, RANKS), (DOMAINS, RANKS), (DOMAINS, 4 * RANKS)]:
        row = {"domains": domains, "batch": batch, "ranks": RANKS, **step_times(domains, batch, RANKS, tokens, repeats)}
        row["megatron_blend_ms"] = peer = megatron_ms(domains, batch)
        shown = "not installed" if peer is None else f"{peer:.1f}"
        one, whole = row["one_rank"], row["whole_batch"]["median_ms"]
        figures = [f"{one['median_ms']:.2f}", f"{one['p95_ms']:.2f}", f"{whole:.2f}", shown]
        cells = zip([domains, batch, *figures, f"{row['state_bytes'] / 1e3:.1f}"], WIDTHS, strict=True)
        print(" ".join(f"{cell:>{width}}" for cell, width in cells), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, default=1e13, help="length of the run (default 1e13)")
    parser.add_argument("--swaps", type=int, default=1000, help="changes of weights (default 1000)")
    parser.add_argument("--repeats", type=int, default=300, help="steps timed (default 300)")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": describe("numpy", "megatron-core"), "load_at_start": os.getloadavg()[0]}
    result["steps"] = time_steps(arguments.tokens, arguments.repeats)

    sizes = corpus_sizes(arguments.tokens, DOMAINS)
    with tempfile.TemporaryDirectory() as folder:
        swaps = swapped_run(sizes, RANKS, arguments.swaps, 10, Path(folder) / "journal.jsonl")
    result["swaps"] = swaps
    print(
        f"\n{swaps['swaps']:,} swaps of {DOMAINS:,} weights: {swaps['append_ms']:.1f} ms each; journal "
        f"{swaps['journal_bytes'] / 1e6:.0f} MB, read in {swaps['read_s']:.1f} s, its {swaps['steps']:,} steps gone "
        f"through again in {swaps['replay_steps_s']:.1f} s: the same state and plan; counts within "
        f"{swaps['worst_distance_from_target']:.2f} samples of their targets",
        flush=True,
    )
    result["run"] = run = whole_run(sizes, arguments.tokens, RANKS)
    print(
        f"\n{run['tokens']:.4g} tokens, {DOMAINS:,} domains, {RANKS:,} ranks: {run['steps']:,} steps counted "
        f"and checked in {run['counting_and_checking_s']:.0f} s\n"
        f"  counts within {run['worst_distance_from_target']:.9f} of a sample of their targets at every step\n"
        f"  the plans of {run['ranks_put_together']:,} ranks put together: the whole; resumed near the end: the same\n"
        f"  {run['samples_compared']:,} samples as in unlimited integers\n"
        f"  {run['whole_epochs']:,} whole epochs of small domains, every window once"
    )
    print(f"written: {write_result('simulate_stream', result)}")


if __name__ == "__main__":
    main()

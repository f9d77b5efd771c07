"""What the checksums of a checkpoint cost: saving and loading with and without them, in turns, in one process.

Saved without them is what ``torch.save`` alone does.

    python benchmarks/checksums.py                        GPT-2 small (124M), ZeRO-1, fp32: 1.9 GB
    python benchmarks/checksums.py --preset nano --repeats 9

Prints medians in seconds and the ratio. Loading comes from the page cache, where checksums weigh most.
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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from autoscale_ds import config
from autoscale_ds.objectives import Batch, objective
from autoscale_ds.training.checkpoints import Checkpoints
from autoscale_ds.training.checksums import archive_checksum
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks, ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import Engine, Job, base, build_engine, start_distributed, stop_distributed
from autoscale_ds.training.run_state import RunState
from autoscale_ds.training.workbench import Workbench

DS = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 1}}


def main() -> None:
    """Save and load in turns."""
    a = _arguments()
    with tempfile.TemporaryDirectory(dir=a.folder) as name:
        folder = Path(name)
        run = config.build(
            RunConfig,
            {"run": str(folder / "run"), "budget_tokens": 1e6, "data": {"corpus": str(folder), "global_batch": 1},
             "model": {"preset": a.preset}},
        )  # fmt: skip
        ranks = ranks_from_environment()
        device = start_distributed(ranks)
        spec = run.model.build(run.data.sequence_length, 50257)
        engine = build_engine(
            Job(run, resolve(DS, run, 1), ranks, spec, objective(run.objective.kind)), Workbench(device)
        )
        _one_update(engine, device, run.data.sequence_length)
        state = RunState(stream={"step": 1, "cursors": {}, "lags": {}}, journal=[], tokens=0)
        times: dict[str, list[float]] = {key: [] for key in ("save with", "save without", "load with", "load without")}
        for turn in range(a.repeats):
            _save(folder, ranks, engine, state)  # the first save after a load is slow, whatever it does
            for words, checksum in _in_turn(turn, ("with", archive_checksum), ("without", lambda path: "")):
                base.archive_checksum = checksum
                times[f"save {words}"].append(_seconds(lambda: _save(folder, ranks, engine, state)))
            base.archive_checksum = archive_checksum
            _save(folder, ranks, engine, state)
            for words, verify in _in_turn(turn, ("with", True), ("without", False)):
                checkpoints = Checkpoints(folder, ranks, 1, verify)
                times[f"load {words}"].append(_seconds(partial(checkpoints.load, engine, device)))
        size = sum(path.stat().st_size for path in folder.rglob("*.pt"))
        stop_distributed()
    print(f"{a.preset}, {size / 1e9:.2f} GB, {torch.get_num_threads()} threads, median of {a.repeats}")
    for what in ("save", "load"):
        with_, without = (statistics.median(times[f"{what} {words}"]) for words in ("with", "without"))
        print(f"{what}: {with_:.2f} s with checksums, {without:.2f} s without, ratio {with_ / without:.3f}")


def _in_turn(turn: int, *ways: Any) -> Sequence[Any]:
    return ways if turn % 2 else ways[::-1]


def _save(folder: Path, ranks: Ranks, engine: Engine, state: RunState) -> None:
    assert Checkpoints(folder, ranks, 1).save(engine, state, []) is None


def _one_update(engine: Engine, device: torch.device, length: int) -> None:
    tokens = torch.from_numpy(np.arange(length + 1)).to(device)[None] % 50000
    batch = Batch(tokens, torch.zeros(1, dtype=torch.int64, device=device))
    engine.set_learning_rate(1e-4)
    engine.train_step([batch], lambda losses, domains: None, lambda: True)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _arguments() -> argparse.Namespace:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="gpt2", help="model (default: gpt2)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

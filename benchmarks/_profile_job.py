"""A run of the trainer under torch's profiler: the operators of one step after a warm-up.

usage: _profile_job.py SETTINGS.json
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from autoscale_ds import cli, config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.trainer import Trainer

WARM_UP, STEPS = 3, 1


class _Done(Exception):
    """The steps to look at are done."""


def main() -> None:
    """Train and print the table."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    silent = {"evaluation": {"every_steps": None}, "checkpoints": {"every_steps": None}, "logging": {"every_steps": 1}}
    run = config.build(RunConfig, {**given["run"], **silent})
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    schedule = torch.profiler.schedule(wait=1, warmup=WARM_UP, active=STEPS, repeat=1)
    with torch.profiler.profile(activities=activities, schedule=schedule) as profile, contextlib.suppress(_Done):

        def after_step(record: Mapping[str, Any]) -> None:
            profile.step()
            if record["step"] == 1 + WARM_UP + STEPS:
                raise _Done  # before it saves

        Trainer(run, resolve(given["ds"], run, 1), ranks, device, on_record=after_step).fit()
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60))
    stop_distributed()


if __name__ == "__main__":
    cli.run(main, tear_down=False)

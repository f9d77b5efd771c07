"""One rank of a job of ``memory.py``: build a trainer, tell how much resident memory that took at its peak.

usage: _start_job.py SETTINGS.json, started by torchrun; rank 0 prints the bytes of the rank that took most, last line.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
import resource

import torch
import torch.distributed as dist

from autoscale_ds import cli, config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.trainer import Trainer


def peak_resident() -> int:
    """Return the most bytes this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Build and tell."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    run = config.build(RunConfig, given["run"])
    before = peak_resident()
    trainer = Trainer(run, resolve(given["ds"], run, ranks.world_size), ranks, device)
    taken = torch.tensor(peak_resident() - before)
    dist.all_reduce(taken, op=dist.ReduceOp.MAX)
    if ranks.rank == 0:
        print(int(taken))
    trainer.close()
    stop_distributed()


if __name__ == "__main__":
    cli.run(main, tear_down=False)

"""Run by two ranks: the same 20 steps at ZeRO 0, 1, 2 and 3, one after the other in one process group.

usage: zero_stages_job.py CORPUS FOLDER
"""

import sys
from pathlib import Path

from jobs import settings

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.trainer import Trainer

corpus, folder = sys.argv[1], Path(sys.argv[2])
ranks = ranks_from_environment()
device = start_distributed(ranks)
for stage in range(4):
    tree = settings(folder / f"zero{stage}", corpus, budget_tokens=20 * 8 * 32)
    run = config.build(RunConfig, tree)
    ds = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": stage}}
    assert Trainer(run, resolve(ds, run, ranks.world_size), ranks, device).fit() == 0
stop_distributed()

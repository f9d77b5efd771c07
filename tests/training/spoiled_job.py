"""One rank of a run whose gradients are infinite at one step: ``spoiled_job.py run.yaml ds.json STEP``."""

import math
import sys

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import read_ds_config, resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.trainer import Trainer

if __name__ == "__main__":
    run = config.load(RunConfig, sys.argv[1])
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    trainer = Trainer(run, resolve(read_ds_config(sys.argv[2]), run, ranks.world_size), ranks, device)

    def spoil(gradient):
        return gradient * math.inf if trainer.loop.step == int(sys.argv[3]) else gradient

    if ranks.rank == 0:  # the others must hear of it
        next(iter(trainer.parts.engine.module.parameters())).register_hook(spoil)
    code = trainer.fit()
    stop_distributed()
    sys.exit(code)

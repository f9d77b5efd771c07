import os
from unittest import mock

import pytest
from jobs import DS, settings

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve


@pytest.fixture(scope="session")
def one_rank():
    """Join a world of one in the test process: real engine, real files, no process to start."""
    import warnings

    from autoscale_ds.training.distributed import ranks_from_environment
    from autoscale_ds.training.engine import start_distributed, stop_distributed

    with mock.patch.dict(os.environ), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of DeepSpeed's own import
        ranks = ranks_from_environment()
        device = start_distributed(ranks)
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]  # jobs that tests start are no ranks of this world
        yield ranks, device
        stop_distributed()


@pytest.fixture
def make_trainer(one_rank, small_corpus, tmp_path):
    """Return a function that builds a real trainer from changed settings."""
    from autoscale_ds.training.trainer import Trainer

    ranks, device = one_rank
    made = []

    def make(ds=None, folder="run", **changes):
        run = config.build(RunConfig, settings(tmp_path / folder, small_corpus, **changes))
        made.append(Trainer(run, resolve(ds or DS, run, 1), ranks, device))
        return made[-1]

    yield make
    for trainer in made:
        trainer.folder.release()

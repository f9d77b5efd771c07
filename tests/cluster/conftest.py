import os
from pathlib import Path

import pytest
from slurm_cluster import missing_programs, slurm_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slurm():
    """A real SLURM of two nodes."""
    reason = missing_programs()
    if reason:
        pytest.skip(reason)
    with slurm_cluster() as cluster:
        cluster.environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        cluster.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        yield cluster

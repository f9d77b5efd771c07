import os
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_cluster import missing_programs, slurm_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def compiled_op():
    """Compile what every job needs (minutes, once a machine), so that no test's patience is spent on it."""
    code = "from autoscale_ds.training.engine import startup; startup._build_communication_op()"
    env = os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=1000, capture_output=True)


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

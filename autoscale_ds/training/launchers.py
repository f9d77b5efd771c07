"""Which rank is this process? The answer of every launcher, in the variables torch reads.

``deepspeed`` and ``torchrun`` set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT themselves. ``srun`` and
``mpirun`` say the same in words of their own, translated here. A plain ``python`` says nothing: one rank alone.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from autoscale_ds.errors import ConfigError


class _Launcher(NamedTuple):
    """Names of a launcher's variables; ``launch``: what its ranks have in common and other launches have not."""

    rank: str
    local_rank: str
    world_size: str
    launch: tuple[str, ...]


# The first whose variables are all there counts: an mpirun inside a SLURM job starts its helpers by srun, and their
# variables reach the ranks. A batch script has SLURM_PROCID too, but only a step of srun's has a number of tasks.
_LAUNCHERS = (
    _Launcher("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", ("PMIX_NAMESPACE",)),
    _Launcher("PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE", ()),  # MPICH, Intel MPI
    _Launcher("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
)
# Ranks of an MPI launch on this machine: all of them, when it is the world size.
_LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
# A process started without these is a launch of its own.
RANK_VARIABLES = ("RANK", *(launcher.rank for launcher in _LAUNCHERS))
# Below the ports Linux gives out by itself, which begin at 32768.
_FIRST_PORT, _NUM_PORTS = 20000, 10000


def fill_environment() -> None:
    """Set what torch reads, unless the launcher has, or this process is alone; call it before reading any of it."""
    os.environ.update(torch_variables(os.environ))


def torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables torch needs besides those in ``environment``; none for a process that is alone.

    MASTER_ADDR and MASTER_PORT are kept where given. Otherwise rank 0 is on the first node of the SLURM job, or here
    when all ranks are; the port is a number made of the job's, the same on every rank.

    Raises
    ------
    ConfigError
        When an MPI launch over several machines does not tell where rank 0 is.
    """
    if "RANK" in environment:
        return {}
    launcher = next((known for known in _LAUNCHERS if all(name in environment for name in known[:3])), None)
    if launcher is None or environment[launcher.world_size] == "1":
        return {}
    launch = "/".join(environment.get(name, "") for name in launcher.launch)
    return {
        "RANK": environment[launcher.rank],
        "LOCAL_RANK": "0" if _has_own_gpu(environment) else environment[launcher.local_rank],
        "WORLD_SIZE": environment[launcher.world_size],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _rank_zero_host(environment, launcher),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_FIRST_PORT + zlib.crc32(launch.encode()) % _NUM_PORTS),
    }


def _rank_zero_host(environment: Mapping[str, str], launcher: _Launcher) -> str:
    if any(environment.get(name) == environment[launcher.world_size] for name in _LOCAL_SIZES):
        return "127.0.0.1"
    nodes = environment.get("SLURM_STEP_NODELIST") if launcher.rank == "SLURM_PROCID" else None
    nodes = nodes or environment.get("SLURM_JOB_NODELIST")
    if nodes is None:
        raise ConfigError(
            f"{environment[launcher.world_size]} ranks on several machines, and mpirun does not tell which one has "
            "rank 0: add -x MASTER_ADDR=HOST (MPICH: -genv MASTER_ADDR HOST), the first host of the list"
        )
    return first_host(nodes)


def first_host(nodes: str) -> str:
    """Return the first name of a SLURM host list: ``rack[2-3]-n[01-16,20],login`` is ``rack2-n01``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


def _has_own_gpu(environment: Mapping[str, str]) -> bool:
    """Return whether the launcher shows this rank a single GPU (srun --gpus-per-task=1): it is number 0 then."""
    return len([name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]) == 1

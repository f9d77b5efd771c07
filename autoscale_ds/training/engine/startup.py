"""Joining and leaving the other ranks."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist

from autoscale_ds.errors import ConfigError
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.op_builds import build_op


def start_distributed(ranks: Ranks) -> torch.device:
    """Join the other ranks and return this rank's device."""
    quieten_deepspeed()
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        _join("nccl")
        return torch.device("cuda", ranks.local_rank)
    _build_communication_op()
    _join("gloo")
    return torch.device("cpu")


def quieten_deepspeed() -> None:
    """Leave of DeepSpeed's messages its errors: its warnings repeat what is checked here."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it found no other
    from deepspeed.utils import logger

    logger.setLevel(os.environ.get("DS_LOG_LEVEL", "ERROR").upper())


def _join(backend: str) -> None:
    """Meet the other ranks; raises ConfigError when the meeting point is taken."""
    import deepspeed

    try:
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ConfigError(
            f"port {os.environ.get('MASTER_PORT')} of {os.environ.get('MASTER_ADDR')} is in use, by another job "
            "perhaps; give another (deepspeed --master_port N, torchrun --master-port N, or MASTER_PORT=N)"
        ) from None


def _build_communication_op() -> None:
    """Compile what ``init_distributed`` needs on a CPU, before ranks wait on it."""
    build_op("ShareMemCommBuilder")


def stop_distributed() -> None:
    """Leave the other ranks; without it a process with offloaded state may abort at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()

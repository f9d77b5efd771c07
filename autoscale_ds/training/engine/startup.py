"""Joining and leaving the other ranks."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.op_builds import sole_build


def start_distributed(ranks: Ranks) -> torch.device:
    """Join the other ranks and return this rank's device."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(os.environ.get("DS_LOG_LEVEL", "ERROR").upper())  # its warnings repeat what is checked here
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        deepspeed.init_distributed(dist_backend="nccl", auto_mpi_discovery=False, verbose=False)
        return torch.device("cuda", ranks.local_rank)
    _build_communication_op()
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    return torch.device("cpu")


def _build_communication_op() -> None:
    """Compile what ``init_distributed`` needs on a CPU (about a minute, once a machine), before ranks wait on it."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        with sole_build(Path(_get_build_directory(builder.name, verbose=False))):
            builder.load(verbose=False)


def stop_distributed() -> None:
    """Leave the other ranks; without it a process with offloaded state may abort at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()

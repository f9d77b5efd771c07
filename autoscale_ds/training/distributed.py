"""Who am I among the ranks, and the few things ranks say to each other besides gradients."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from autoscale_ds.training import launchers
from autoscale_ds.training.config import ParallelConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Place of this process among the others.

    Ranks that share a model or a sequence are neighbours; stages of a pipeline are a data-parallel size apart (the
    orders DeepSpeed makes its groups in). The data-parallel rank alone decides which samples a process reads.
    """

    rank: int
    local_rank: int
    world_size: int
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    @property
    def data_parallel_size(self) -> int:
        """How many slices the global batch has."""
        return self.world_size // self.parallel.ranks_per_model

    @property
    def data_parallel_rank(self) -> int:
        """Which slice of the global batch this process reads."""
        return self.rank // (self.parallel.tensor * self.parallel.sequence) % self.data_parallel_size

    @property
    def tensor_rank(self) -> int:
        """Which part of every matrix this process holds."""
        return self.rank % self.parallel.tensor

    @property
    def sequence_rank(self) -> int:
        """Which part of every sequence this process works on."""
        return self.rank % self.parallel.sequence

    @property
    def stage(self) -> int:
        """Which stage of the pipeline this process holds."""
        return self.rank // (self.world_size // self.parallel.pipeline)

    @property
    def leads_slice(self) -> bool:
        """Whether this is the first of the processes that read the same samples."""
        return self.tensor_rank == 0 and self.sequence_rank == 0 and self.stage == 0


def ranks_from_environment() -> Ranks:
    """Return this process's place, filling in what a launcher would have set for a plain ``python`` start."""
    launchers.fill_environment()
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(_free_port())
    return Ranks(int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0")), int(os.environ["WORLD_SIZE"]))


def join_for_objects(ranks: Ranks) -> torch.device:
    """Join the other ranks to exchange Python objects, through their CPUs; return this rank's own device.

    For ranks that each hold a whole model and train nothing. A rank alone joins nobody.
    """
    if ranks.world_size > 1:
        dist.init_process_group("gloo", rank=ranks.rank, world_size=ranks.world_size)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())


def leave_objects() -> None:
    """Leave the other ranks again; nothing for a rank alone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's ``value`` in order, on every rank. Collective."""
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, value)
    return every


def broadcast(value: Any) -> Any:
    """Return rank 0's ``value`` on every rank. Collective."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_rank_zero(action: Callable[[], T]) -> T:
    """Do something once and return its result everywhere; if it fails there, every rank ends. Collective.

    Rank 0 raises what happened; the others leave with exit code 2 and no message, since it is said already.
    """
    value, error = None, None
    if dist.get_rank() == 0:
        try:
            value = action()
        except Exception as raised:
            error = raised
    value, failed = broadcast((value, error is not None))
    if error is not None:
        raise error
    if failed:
        sys.exit(2)
    return value


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether ``flag`` is true on any rank. Collective."""
    box = torch.tensor([float(flag)], device=device)
    dist.all_reduce(box, op=dist.ReduceOp.MAX)
    return bool(box.item())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lost_a_rank(error: RuntimeError) -> bool:
    """Return whether an error says that another rank went away; gloo has no type of its own for it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()

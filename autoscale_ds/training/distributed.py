"""Who am I among the ranks, and the few things ranks say to each other besides gradients."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from autoscale_ds.training import launchers

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Place of this process among the others; ``data_parallel_*`` decides which samples it reads.

    Only data parallelism exists so far, hence the two are the same.
    """

    rank: int
    local_rank: int
    world_size: int

    @property
    def data_parallel_rank(self) -> int:
        """Which slice of the global batch this process reads."""
        return self.rank

    @property
    def data_parallel_size(self) -> int:
        """How many slices the global batch has."""
        return self.world_size


def ranks_from_environment() -> Ranks:
    """Return this process's place, filling in what a launcher would have set for a plain ``python`` start."""
    launchers.fill_environment()
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(_free_port())
    return Ranks(int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0")), int(os.environ["WORLD_SIZE"]))


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

"""Several workers on one machine: each a process of its own, with its share of the cores and a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from autoscale_ds.errors import TrainingError
from autoscale_ds.training.launchers import RANK_VARIABLES
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE

# Set by a launcher for one process. A worker that inherits them would wait for other ranks, which do not exist.
LAUNCHER_VARIABLES = (*RANK_VARIABLES, "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
POLL_SECONDS = 0.5


def run_workers(command: Sequence[str], count: int, logs: Path, meanwhile: Callable[[], None]) -> int:
    """Run a command in several processes until all have ended.

    Signals to stop are passed on, so that every worker saves.

    Parameters
    ----------
    command : sequence of str
        What each worker runs.
    count : int
        Number of workers.
    logs : Path
        Folder for what they say, one file a worker.
    meanwhile : callable
        Called twice a second.

    Returns
    -------
    int
        0 when nothing is left to do, or the requeue code when they were told to stop.

    Raises
    ------
    TrainingError
        When a worker ended otherwise.
    """
    logs.mkdir(exist_ok=True)
    workers = [_start(command, index, count, logs) for index in range(count)]
    _pass_on_signals(workers)
    while any(worker.poll() is None for worker in workers):
        time.sleep(POLL_SECONDS)
        meanwhile()
    codes = {worker.returncode for worker in workers}
    if not codes <= {0, 1, REQUEUE_EXIT_CODE}:  # 1: the work is done, some runs failed
        raise TrainingError(f"a worker ended with code {max(codes, key=abs)}; see {logs}; the same command goes on")
    return REQUEUE_EXIT_CODE if REQUEUE_EXIT_CODE in codes else 0


def _start(command: Sequence[str], index: int, count: int, logs: Path) -> subprocess.Popen:
    with open(logs / f"{os.uname().nodename}-{os.getpid()}-{index}.log", "a", encoding="utf-8") as log:
        environment = _environment(index, count)
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def _environment(index: int, count: int) -> dict[str, str]:
    """Return the environment of a worker: its share of the cores, and one GPU where there are any."""
    environment = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    environment.setdefault("OMP_NUM_THREADS", str(max(len(os.sched_getaffinity(0)) // count, 1)))
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpus = visible or [str(i) for i in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return environment


def _pass_on_signals(workers: Sequence[subprocess.Popen]) -> None:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)

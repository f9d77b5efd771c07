"""Finding the rank that has stopped getting on, while all others wait for it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from autoscale_ds.files import write_atomic
from autoscale_ds.training.distributed import Ranks

log = logging.getLogger(__name__)
STALLED_EXIT_CODE = 1


class Watchdog:
    """A thread of every rank that notes in the run folder how far its rank is, and ends a job that has stalled.

    A rank that is held up (a dead disk, a stopped process, a machine gone) leaves the others waiting inside a
    collective, where nothing can be said or saved. The watchdog of a waiting rank compares: ranks whose notes have
    stopped, or that are behind, hold up the rest. Without such a rank (all compile, all save) it goes on waiting.

    Parameters
    ----------
    folder : Path
        ``RUN/beats``: a small file a rank, readable for people too.
    ranks : Ranks
        Place of this process among the others.
    stall_seconds : float or None
        How long a rank may stay at one point; None is without limit.
    """

    def __init__(self, folder: Path, ranks: Ranks, stall_seconds: float | None) -> None:
        self._folder = folder
        self._ranks = ranks
        self._limit = stall_seconds
        self._count = 0
        self._step = 0
        self._doing = "starting"
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch, unless there is nothing to watch."""
        if self._limit is not None and self._ranks.world_size > 1 and not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def beat(self, step: int, doing: str) -> None:
        """Note that this rank got to a point which all ranks pass in the same order."""
        self._count = self._count + 1
        self._step = step
        self._doing = doing
        self._since = time.monotonic()

    def _watch(self) -> None:
        assert self._limit is not None
        every = min(self._limit / 4, 15.0)
        quiet = max(4 * every, 5.0)
        # A rank that has stopped is known to be silent by then: it is not one that was left alone who is to blame.
        patience = max(self._limit, quiet + every)
        while True:  # notes at once: of a rank that stops before its first note nothing would be known
            try:
                self._note()
                if time.monotonic() - self._since > patience:
                    self._judge(quiet)
            except OSError as error:
                log.debug("watchdog: %s", error)
            if self._ended.wait(every):
                return

    def _note(self) -> None:
        note = {
            "count": self._count,
            "step": self._step,
            "doing": self._doing,
            "host": os.uname().nodename,
            "process": os.getpid(),
            "time": time.time(),
        }
        write_atomic(self._folder / f"rank-{self._ranks.rank:05d}.json", json.dumps(note))

    def _judge(self, quiet: float) -> None:
        """End the job if some ranks hold it up: those that have fallen silent, else those that are behind."""
        notes = {rank: _read(self._folder / f"rank-{rank:05d}.json") for rank in range(self._ranks.world_size)}
        furthest = max(note["count"] for note in notes.values() if note)
        silent = [r for r, note in notes.items() if note is None or time.time() - note["time"] > quiet]
        behind = [r for r, note in notes.items() if note is not None and note["count"] < furthest]
        for rank in (silent or behind)[:1]:
            log.critical("%s", _accusation(rank, notes[rank], time.monotonic() - self._since))
            os._exit(STALLED_EXIT_CODE)  # the main thread is inside a collective and cannot be reached


def _accusation(rank: int, note: dict[str, Any] | None, seconds: float) -> str:
    where = "has never answered"
    if note is not None:
        last = time.strftime("%H:%M:%S", time.localtime(note["time"]))
        where = (
            f"(host {note['host']}, process {note['process']}) is at step {note['step']:,}, {note['doing']}, "
            f"and was last heard of at {last}"
        )
    return (
        f"stalled: rank {rank} {where}; the others have waited {seconds:.0f} s for it. Ending the job; look at that "
        "host, then start it again: the same command continues from the newest checkpoint (faults.stall_seconds)"
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return note
    except (OSError, ValueError):
        return None

"""Compiling DeepSpeed's C++ ops, safely for processes that start together or are killed while compiling.

torch compiles an op in a shared folder and guards it by a file ``lock`` that it removes at the end. A process killed
in between leaves the file, and every later process on the machine waits for it for ever. Here a lock of the kernel's,
which death frees, is held around the build; whoever gets it and finds that its last owner did not finish removes the
file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
# A build of someone who does not hold our lock is left alone for so long; the slowest op took 5 minutes on a busy CPU.
FOREIGN_BUILD_SECONDS = 1800.0
_BUILDING = b"building"


@contextlib.contextmanager
def sole_build(folder: Path) -> Iterator[None]:
    """Hold a build folder for this process; others wait. Left-over locks of the dead are removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".owner", "a+b") as owner:
        with contextlib.suppress(OSError):  # a file system without locks: torch's own has to do
            fcntl.flock(owner, fcntl.LOCK_EX)
        owner.seek(0)
        _remove_stale(folder / "lock", died=owner.read() == _BUILDING)
        owner.truncate(0)
        owner.write(_BUILDING)
        owner.flush()
        yield
        owner.truncate(0)


def _remove_stale(lock: Path, died: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - os.stat(lock).st_mtime
        if died or age > FOREIGN_BUILD_SECONDS:
            log.warning("%s was left by a process that died while compiling; removed", lock)
            lock.unlink()

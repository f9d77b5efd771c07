"""Errors of the disk: full, read-only, or a folder that another run is using."""

from __future__ import annotations

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from autoscale_ds.errors import CorpusError


@contextlib.contextmanager
def told_when_writing_fails(path: Path) -> Iterator[None]:
    """Turn an OSError of the block (disk full, quota, read-only) into a CorpusError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise CorpusError(
                f"cannot write {path}: {error.strerror}; make the folder writable, or choose another --output"
            ) from None
        raise CorpusError(
            f"cannot write {path}: {error.strerror or error}; what is finished is kept: make room and rerun the same "
            "command"
        ) from None


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` for this process; raises CorpusError when another process holds it.

    A record lock belongs to the process alone: it ends with it, however it ends, and forked workers do not keep it.
    """
    with told_when_writing_fails(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - closing any handle of this file would release the lock
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise CorpusError(f"another run is at work in {path.parent.parent}: wait for it, or end it") from None
        except OSError:  # a file system without locks: go on without
            pass
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is unfinished work in it
                path.parent.rmdir()

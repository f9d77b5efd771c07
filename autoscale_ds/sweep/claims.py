"""Claims: which worker trains which run, decided by files alone; workers may start and die at any time.

A claim is the file ``claims/<run>.<attempt>``, put in place by one atomic operation that fails where it exists
already. Its owner touches it and holds a lock on it. It is dead when the lock is free (same machine: at once), or when
it was not touched for the lease (other machines); then the next attempt's file may be made, again by one process only.
Ages are measured by the file server's clock, so clocks of nodes may differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.errors import ConfigError

# A run during which this many workers died (out of memory, say) is not tried again.
MAX_ATTEMPTS = 5


@dataclass
class Claim:
    """A run this process owns until it is released or lost.

    Attributes
    ----------
    run : str
        Folder name of the run that is claimed.
    path : Path
        The claim's file.
    """

    run: str
    path: Path
    _next: Path
    _handle: int

    def renew(self) -> bool:
        """Touch the claim's file, which extends the lease; return False when another worker has taken the run over."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)
        return not self._next.exists()

    def release(self) -> None:
        """Remove the claim: the run is finished, or another worker may continue it."""
        for path in sorted(self.path.parent.glob(f"{glob_escape(self.run)}.[0-9][0-9][0-9]")):
            if path <= self.path:
                path.unlink(missing_ok=True)
        os.close(self._handle)


class Claims:
    """The claims of one sweep, seen by one worker.

    Parameters
    ----------
    sweep : Path
        Sweep folder.
    lease_seconds : float
        A claim on another machine that was not renewed for this long is dead.
    """

    def __init__(self, sweep: str | Path, lease_seconds: float = 120.0) -> None:
        self.folder = Path(sweep) / "claims"
        self.lease_seconds = lease_seconds
        self.worker = f"{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot claim runs in {sweep}: {error.strerror}; a worker needs to write there"
            ) from None

    def take(self, run: str) -> Claim | None:
        """Return a claim on a run, or None when it is owned, given up, or another process was faster."""
        last = self._last_attempt(run)
        if last is not None and (last + 1 >= MAX_ATTEMPTS or self._alive(self._path(run, last))):
            return None
        attempt = 0 if last is None else last + 1
        path = self._path(run, attempt)
        handle = self._place(path)
        return None if handle is None else Claim(run, path, self._path(run, attempt + 1), handle)

    def owner(self, run: str) -> str | None:
        """Return the living owner of a run, or None."""
        last = self._last_attempt(run)
        if last is None or not self._alive(self._path(run, last)):
            return None
        return str(_content(self._path(run, last)).get("worker", "unknown"))

    def given_up(self, run: str) -> bool:
        """Return whether ``MAX_ATTEMPTS`` workers died during a run, so that it is not tried again."""
        last = self._last_attempt(run)
        return last is not None and last + 1 >= MAX_ATTEMPTS and not self._alive(self._path(run, last))

    def forget(self, run: str) -> None:
        """Drop every dead claim on a run, so that it is tried again."""
        if self.owner(run) is None:
            for path in self.folder.glob(f"{glob_escape(run)}.[0-9][0-9][0-9]"):
                path.unlink(missing_ok=True)

    def _path(self, run: str, attempt: int) -> Path:
        return self.folder / f"{run}.{attempt:03d}"

    def _last_attempt(self, run: str) -> int | None:
        attempts = [path.name[-3:] for path in self.folder.glob(f"{glob_escape(run)}.[0-9][0-9][0-9]")]
        return max(map(int, attempts)) if attempts else None

    def _place(self, path: Path) -> int | None:
        """Put a locked file in place; None where one is already. It is locked before anybody can see it."""
        working = self.folder / f".{uuid.uuid4().hex}"
        handle = os.open(working, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: the lease alone decides
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(handle, json.dumps({"worker": self.worker, "boot": _boot_id()}).encode())
            os.link(working, path)
            return handle
        except FileExistsError:
            os.close(handle)
            return None
        finally:
            working.unlink()

    def _alive(self, path: Path) -> bool:
        try:
            if _content(path).get("boot") == _boot_id():
                return _is_locked(path)
            return self._now() - path.stat().st_mtime < self.lease_seconds
        except FileNotFoundError:
            return False

    def _now(self) -> float:
        """Return the file server's time."""
        probe = self.folder / f".clock-{uuid.uuid4().hex}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def glob_escape(name: str) -> str:
    """Return a name that matches only itself in a glob."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _content(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return {}


def _is_locked(path: Path) -> bool:
    """Return whether a process on this machine holds the file; its death frees it, however it died."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def _boot_id() -> str:
    """Return what tells this running kernel from every other: locks are only visible within one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return os.uname().nodename

"""The folder of a run: where things lie, who owns it, and whether a restart still means the same run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import IO, Any

from autoscale_ds import config as configuration
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import make_folder, read_json, remove_empty, write_atomic, write_json
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import Journal
from autoscale_ds.stream.proposals import Inbox
from autoscale_ds.training.config import DataConfig, ModelConfig, RunConfig

log = logging.getLogger(__name__)


class RunFolder(RunPaths):
    """A run folder that a job owns: more of its paths, and the lock."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._lock: IO[str] | None = None
        self._is_accepted = False
        self._new_files: list[Path] = []  # made by a start that is not accepted yet
        self._new_folders: list[Path] = []

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of what each rank consumed."""
        return self.path / "samples"

    @property
    def beats(self) -> Path:
        """Folder of how far each rank is."""
        return self.path / "beats"

    def logger(self, name: str) -> Path:
        """Return the file of a metrics logger: the run's id at the service, and the number of the last record sent."""
        return self.path / "loggers" / f"{name}.json"

    @property
    def inbox(self) -> Inbox:
        """Proposals of weights."""
        return Inbox(self.path)

    def take(self, run: RunConfig) -> None:
        """Become the folder's only job, unless the configuration would be another run; raises as its two parts."""
        self.acquire()
        try:
            self.check(run)
        except BaseException:
            self.undo_start()
            raise

    def acquire(self) -> None:
        """Create the folder and become its only job; rank 0 only.

        Raises
        ------
        ConfigError
            When another job runs in it.
        """
        self._new_folders = make_folder(self.path)
        self._new_files = [] if self.lock.exists() else [self.lock]
        lock = open(self.lock, "a+", errors="replace")  # noqa: SIM115 - held open as long as the job lives
        if not _locked(lock):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise ConfigError(
                f"{self.path} belongs to a job that is running ({owner}); wait for it, or give another run=FOLDER"
            )
        if not _is_at(self.lock, lock):  # a start that was refused has removed it meanwhile
            lock.close()
            self.acquire()
            return
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        lock.flush()
        self._lock = lock
        for folder in (self.checkpoints, self.samples, self.beats):
            self._new_folders += make_folder(folder)
        self._new_folders += self.inbox.create()
        for beat in self.beats.iterdir():
            beat.unlink()
        for unfinished in self.checkpoints.glob(".step-*.partial"):  # a job that was killed left it
            shutil.rmtree(unfinished, ignore_errors=True)

    def last_config(self) -> dict[str, Any] | None:
        """Return the configuration of the last start as nested mappings; None before the first."""
        return self.settings() if self.config.exists() else None

    def last_ds_config(self) -> dict[str, Any] | None:
        """Return the resolved DeepSpeed configuration of the last start; None before the first."""
        path = self.path / "ds_config.json"
        advice = "remove it: it only serves to say what has changed since, and this start writes it again"
        return read_json(path, dict, advice) if path.exists() else None

    def domains_so_far(self) -> list[str]:
        """Return every domain that the run's journal names."""
        return sorted({name for event in Journal(self.journal).events for name in event.weights})

    def own_copy(self, path: str, refresh: bool) -> str:
        """Return the run's own copy of a file that its configuration names, so that it is needed only once.

        Parameters
        ----------
        path : str
            As written in the configuration.
        refresh : bool
            Whether to read the file again although there is a copy: nothing was decided by it yet.
        """
        copy = self.path / "inputs" / f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{Path(path).name}"
        if refresh or not copy.exists():
            try:
                content = Path(path).read_bytes()
            except OSError:
                return path  # whoever reads it says what is wrong
            self._new_folders += make_folder(copy.parent)
            self._new_files += [] if copy.exists() else [copy]
            write_atomic(copy, content)
        elif Path(path).is_file() and Path(path).read_bytes() != copy.read_bytes():
            log.warning(
                "%s has changed since this run first read it; the run keeps its own copy, %s; new content takes a file "
                "of another name",
                path,
                copy,
            )
        return str(copy)

    def accept(self) -> None:
        """Keep what this start made: nothing can be refused any more."""
        self._is_accepted = True

    def undo_start(self) -> None:
        """Remove what this start made and give the folder up, unless the start was accepted; rank 0 only."""
        if self._lock is None or self._is_accepted:
            return
        for file in self._new_files:
            file.unlink(missing_ok=True)
        remove_empty(self._new_folders)
        self.release()

    def release(self) -> None:
        """Give the folder up; the end of the process does the same."""
        if self._lock is not None:
            self._lock.close()

    def check(self, run: RunConfig) -> None:
        """Refuse a restart that would be another run.

        Raises
        ------
        ConfigError
            Naming the value that changed.
        """
        before = self.last_config()
        if before is None or not any(self.checkpoints.iterdir()):
            return
        defaults = configuration.identity(RunConfig("", 1e9, DataConfig(""), ModelConfig()))
        for name, new in configuration.identity(run).items():
            old = _lookup(before, name, defaults[name])
            if old != new:
                raise ConfigError(
                    f"{name} is {_short(new)}, but the run in {self.path} was started with {_short(old)}; "
                    "restore it, or give run=ANOTHER_FOLDER"
                )

    def record(self, run: RunConfig, ds_config: dict[str, Any]) -> None:
        """Write both resolved configurations."""
        self.write_settings(configuration.to_yaml(run))
        write_json(self.path / "ds_config.json", ds_config)


def _locked(lock: IO[str]) -> bool:
    """Lock a file for this job; tried for half a second, since ``RunPaths.has_job`` holds it for a moment too."""
    for attempt in range(6):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.1 if attempt < 5 else 0.0)
    return False


def _is_at(path: Path, file: IO[str]) -> bool:
    """Return whether an open file is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def load_run_config(run: str | Path) -> RunConfig:
    """Return the configuration a run folder was last started with."""
    paths = RunPaths(run)
    settings = paths.settings()
    try:
        return configuration.build(RunConfig, settings)
    except ConfigError as error:
        raise ConfigError(f"{paths.config}: {error}") from None


def _lookup(tree: Any, dotted: str, default: Any) -> Any:
    """Return a value by dotted name; the default where a file of an earlier version does not have it."""
    for key in dotted.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return default
        tree = tree[key]
    return tree


def _short(value: Any) -> str:
    return json.dumps(value, default=str)

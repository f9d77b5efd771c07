"""Runs the steps of a study one after the other, each once, and goes on where it was stopped or killed."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from autoscale_ds import config as configuration
from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.files import read_json, write_atomic, write_json
from autoscale_ds.study.config import StudyConfig
from autoscale_ds.study.steps import Step, steps
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE

RECORD = "study.json"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# A job that was told to stop saves first. After this many seconds it is killed; a checkpoint is whole or not there.
PATIENCE = 120.0
POLL_SECONDS = 0.2


class Record:
    """Which steps of a study are done; ``study.json`` in its folder.

    Parameters
    ----------
    study : StudyConfig
        What the steps are done for: a folder of a study that asks for something else is refused.

    Raises
    ------
    ConfigError
        For a folder that holds another study, or something that is none.
    """

    def __init__(self, study: StudyConfig) -> None:
        self.path = Path(study.folder) / RECORD
        self._asked = json.loads(json.dumps(configuration.to_dict(study)))
        self.done: list[str] = []
        if self.path.exists():
            self._read()
        elif self.path.parent.exists() and any(self.path.parent.iterdir()):
            raise ConfigError(
                f"{self.path.parent} is not empty and holds no study; give another folder in the study file"
            )

    def _read(self) -> None:
        raw = read_json(self.path, dict, "remove the folder, or give another one in the study file")
        if changed := _difference(raw.get("asked", {}), self._asked):
            raise ConfigError(
                f"{self.path.parent} holds a study with another {changed}; put that back, or give another folder in "
                "the study file"
            )
        self.done = list(raw.get("done", []))

    def begin(self) -> None:
        """Write the record of a study that has not begun."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write()

    def finish(self, step: Step) -> None:
        """Remember that a step is done."""
        self.done.append(step.name)
        self._write()

    def _write(self) -> None:
        write_json(self.path, {"kind": "study", "done": self.done, "asked": self._asked})


def _difference(old: Any, new: Any, where: str = "") -> str | None:
    """Return the dotted name of the first value that differs."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None if old == new else where
    for key in (*new, *old):
        if found := _difference(old.get(key), new.get(key), f"{where}.{key}".lstrip(".")):
            return found
    return None


class Stopped(Exception):
    """The study was told to stop; what its command had begun is saved."""


class Commands:
    """Starts the commands of a study, each in a process group of its own.

    A signal to stop goes on to every process of the command, which saves; nothing it started outlives it. Where the
    study is killed without warning, the kernel tells the command to stop.

    Parameters
    ----------
    root : Path
        The repository: ``launch/`` and ``tools/`` of a command lie there.
    say : callable
        Gets each command line before it is started.
    log : Path, optional
        Commands print to the end of this file instead of to the terminal.
    """

    def __init__(self, root: Path, say: Callable[[str], None], log: Path | None = None) -> None:
        self._root, self._say, self._log = root, say, log
        self._asked: int | None = None

    def install(self) -> None:
        """Take over the signals that ask to stop."""
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = number

    def __call__(
        self,
        command: Sequence[str],
        allowed: Sequence[int] = (0,),
        out: Path | None = None,
        watch: Callable[[subprocess.Popen], None] | None = None,
    ) -> int:
        """Run one command, see ``steps.Run``; ``watch`` is called every ``POLL_SECONDS`` with the process.

        Raises
        ------
        Stopped
            When it was asked to stop, or the command was.
        TrainingError
            When the command failed.
        """
        if self._asked is not None:
            raise Stopped
        python = command[0].endswith(".py")
        here = [self._found(part) for part in command]
        self._say("$ " + shlex.join([*(["python"] if python else []), *here]) + (f" > {out}" if out else ""))
        line = [*([sys.executable] if python else []), *here]
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
        with (
            open(self._log, "a", encoding="utf-8") if self._log else nullcontext() as log,
            subprocess.Popen(
                line,
                preexec_fn=_end_with_the_parent,
                stdout=subprocess.PIPE if out else log,
                stderr=log,
                env=os.environ | {"PATH": path},
                start_new_session=True,
                text=True,
            ) as job,
        ):
            printed = self._wait(job, watch)
        if self._asked is not None or job.returncode == REQUEUE_EXIT_CODE:
            raise Stopped
        if job.returncode not in allowed:
            where = f" ({_last_words(self._log)}); see {self._log}" if self._log else ""
            name = command[0] if python else shlex.join(command)
            raise TrainingError(f"{name} ended with code {job.returncode}{where}")
        if out is not None:
            write_atomic(out, printed)
        return job.returncode

    def _found(self, part: str) -> str:
        """Return the path of a script of the project from where the study was started; anything else as it is."""
        ours = part.endswith(".py") and part.startswith(("launch/", "tools/", "examples/"))
        return os.path.relpath(self._root / part) if ours else part

    def _wait(self, job: subprocess.Popen, watch: Callable[[subprocess.Popen], None] | None) -> str:
        """Return what a command printed; pass on a signal that comes meanwhile and wait until all of it has ended."""
        printed: str | None = None
        told: float | None = None
        # Told to stop, ranks may outlive their launcher.
        while printed is None or (self._asked is not None and _signal_group(job.pid, 0)):
            if self._asked is not None and told is None:
                told = time.monotonic()
                _signal_group(job.pid, signal.SIGTERM)
            elif told is not None and time.monotonic() - told > PATIENCE:
                _signal_group(job.pid, signal.SIGKILL)
            if printed is not None:
                time.sleep(POLL_SECONDS)
                continue
            if watch is not None:
                watch(job)
            with suppress(subprocess.TimeoutExpired):
                printed = job.communicate(timeout=POLL_SECONDS)[0] or ""
        return printed


def _last_words(log: Path) -> str:
    """Return the first of the error messages at the end of a log, which is that of the innermost command."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines[-10:] if line.startswith("error: ")]
    return errors[0] if errors else lines[-1] if lines else "it said nothing"


def _end_with_the_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to every process of a group; return whether there was one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def run_study(study: StudyConfig, root: Path, say: Callable[[str], None]) -> int:
    """Do what is left of a study; return the exit code, that for "start me again" when it was told to stop."""
    record = Record(study)
    record.begin()
    lock = _lock(record.path)  # held until the process ends
    commands = Commands(root, say)
    commands.install()
    todo = steps(study)
    for place, step in enumerate(todo, 1):
        if step.name in record.done:
            continue
        say(f"[{place}/{len(todo)}] {step.what}")
        try:
            step.do(commands)
        except Stopped:
            say("stopped; what was begun is saved, the same command goes on")
            return REQUEUE_EXIT_CODE
        record.finish(step)
    os.close(lock)
    return 0


def _lock(path: Path) -> int:
    """Lock the record; raises ConfigError while another process works on the study."""
    handle = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(f"another process works on {path.parent}; wait for it, or stop it") from None
    return handle

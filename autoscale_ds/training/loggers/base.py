"""The interface of metrics loggers, and the description of the run that they get."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class LoggedRun:
    """What a service shows of a run besides its metrics.

    Attributes
    ----------
    folder : Path
        The run folder.
    config : mapping
        The resolved configuration, nested; that of DeepSpeed under ``deepspeed``.
    git_commit : str or None
        Commit of the working directory; None where that is no git repository.
    """

    folder: Path
    config: Mapping[str, Any]
    git_commit: str | None

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.folder.resolve().name


class MetricsLogger(ABC):
    """Sends the metrics of one run to one service.

    Built without arguments. All methods are called from one thread, in the order they stand here. They may wait for a
    server and may raise: the training loop runs in another thread.

    Attributes
    ----------
    package : str
        Name of the package it imports, which the extra ``loggers`` installs.
    """

    package: ClassVar[str]

    @abstractmethod
    def open(self, run: LoggedRun, run_id: str | None) -> str:
        """Begin the run at the service, or continue it, and return its id there.

        Parameters
        ----------
        run : LoggedRun
            Name, configuration and commit to show.
        run_id : str or None
            What ``open`` returned at an earlier start of this run; None at the first.
        """

    @abstractmethod
    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the numbers of one record under TensorBoard's names; the steps of a name never decrease."""

    @abstractmethod
    def log_swap(self, swap: Mapping[str, Any]) -> None:
        """Send source and reason of a change of weights, a record of kind ``swap``; ``log`` got its numbers before."""

    @abstractmethod
    def close(self, finished: bool) -> None:
        """End this start; ``finished`` is False when the run was stopped or failed before its end."""

    def abandon(self) -> None:  # noqa: B027 - most have nothing to free
        """Free what is left when another method has raised, for example a process of the package; may raise too."""


def git_commit() -> str | None:
    """Return the commit of the working directory; None where it is no git repository, or git is not there."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

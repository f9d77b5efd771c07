"""Where a run folder keeps what other programs read: no torch is needed to find it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import yaml

from autoscale_ds.errors import ConfigError
from autoscale_ds.yaml_text import parse_yaml


class RunPaths:
    """Paths inside a run folder.

    Parameters
    ----------
    path : str or Path
        The run folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def journal(self) -> Path:
        """Accepted changes of the weights, one JSON line each."""
        return self.path / "mixture" / "journal.jsonl"

    @property
    def metrics(self) -> Path:
        """Records of training and validation, one JSON line each."""
        return self.path / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """Configuration of the last start."""
        return self.path / "config.yaml"

    @property
    def corpus(self) -> str:
        """Folder of the corpus at the last start; raises ConfigError where the configuration does not say it."""
        try:
            return str(parse_yaml(self.config.read_text(encoding="utf-8"))["data"]["corpus"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.config} does not say where the corpus is: {error}") from None

    @property
    def lock(self) -> Path:
        """Held by the job that runs in the folder, from its start to its end."""
        return self.path / ".lock"

    def has_job(self) -> bool:
        """Return whether a job runs in the folder; True where the file system has no locks to tell by."""
        try:
            with open(self.lock, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

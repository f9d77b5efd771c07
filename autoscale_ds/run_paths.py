"""Where a run folder keeps what other programs read: no torch is needed to find it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import yaml

from autoscale_ds.errors import ConfigError
from autoscale_ds.files import write_atomic
from autoscale_ds.yaml_text import parse_yaml

# What is left of a file that was cut off may be valid YAML, without the settings that followed. One that somebody put
# in its place has neither line.
_FIRST_LINE = "# The settings of the run's last start; the last line says that none is missing.\n"
_LAST_LINE = "# end\n"


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

    def settings(self) -> dict[str, Any]:
        """Return the configuration of the last start as nested mappings.

        Raises
        ------
        ConfigError
            When there is none, or the file is not as a start wrote it: cut off, empty, or something else.
        """
        try:
            text = self.config.read_text(encoding="utf-8")
            tree = parse_yaml(text)
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} is no run folder: it has no config.yaml; give the folder launch/train.py printed"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._damaged(" ".join(str(error).split())) from None
        if not isinstance(tree, dict):
            raise self._damaged("it is empty" if tree is None else f"it holds {type(tree).__name__}")
        if not text.endswith(_LAST_LINE if text.startswith(_FIRST_LINE) else "\n"):
            raise self._damaged("its end is cut off")
        return tree

    def write_settings(self, text: str) -> None:
        """Write the configuration of a start, given as YAML."""
        write_atomic(self.config, f"{_FIRST_LINE}{text}{_LAST_LINE}")

    def _damaged(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.config} is damaged ({reason}), expected the settings of the run's last start; put the "
            "configuration in its place that the run was started with"
        )

    @property
    def corpus(self) -> str:
        """Folder of the corpus at the last start; raises ConfigError where the configuration does not say it."""
        data = self.settings().get("data")
        if not isinstance(data, dict) or not isinstance(data.get("corpus"), str):
            raise ConfigError(f"{self.config} does not say where the corpus is: data.corpus is missing")
        return str(data["corpus"])

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

"""Metrics loggers by the name a configuration gives. A new logger is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from autoscale_ds.config import did_you_mean
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.loggers.background import BackgroundLogger
from autoscale_ds.training.loggers.base import LoggedRun, MetricsLogger
from autoscale_ds.training.loggers.mlflow_logger import MlflowLogger
from autoscale_ds.training.loggers.wandb_logger import WandbLogger

LOGGERS: dict[str, type[MetricsLogger]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a logger that does not exist, or is given twice."""
    for name in names:
        if name not in LOGGERS:
            hint = did_you_mean(name, LOGGERS)
            raise ConfigError(f"logging.loggers has {name!r}{hint}; expected some of {', '.join(LOGGERS)}")
        if names.count(name) > 1:
            raise ConfigError(f"logging.loggers has {name!r} twice; leave one out")


def check_installed(names: Sequence[str]) -> None:
    """Import what loggers need; raises ConfigError for what is not installed, or cannot be imported.

    The import is done here because a start forks data workers later: a process forked during an import of another
    thread inherits locks that nobody releases.
    """
    for name in names:
        package = LOGGERS[name].package
        try:
            module = importlib.import_module(package)
        except Exception as error:
            reason = f"cannot be imported ({type(error).__name__}: {error})"
            missing = isinstance(error, ModuleNotFoundError) and error.name == package
            raise _unusable(name, package, "is not installed" if missing else reason) from None
        # A folder `wandb/` that earlier runs left in the working directory can be imported, as an empty package.
        if getattr(module, "__file__", None) is None:
            raise _unusable(name, package, "is not installed")


def _unusable(name: str, package: str, what: str) -> ConfigError:
    return ConfigError(
        f"logging.loggers has {name}, but {package} {what}: pip install 'autoscale_ds[loggers]', or leave {name} out"
    )


def build_loggers(names: Sequence[str], run: LoggedRun, sent_path: Callable[[str], Path]) -> list[BackgroundLogger]:
    """Return loggers that have not begun; ``sent_path`` returns the file of each by its name, see ``Sent``."""
    return [BackgroundLogger(name, LOGGERS[name](), run, sent_path(name)) for name in names]

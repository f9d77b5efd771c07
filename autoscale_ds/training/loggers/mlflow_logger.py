"""MLflow; its environment variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME) decide where runs go.

A swap is a tag, ``swap.VERSION``: tags are on the run's overview page, can be searched for, and need no artifact store.
Its weights are metrics as well, ``swap/weights/DOMAIN``. MLflow's parameters cannot change: the new value of a setting
that a later start changed is a tag, ``config.NAME``.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autoscale_ds.training.loggers.base import LoggedRun, MetricsLogger

# Limits of MLflow's REST API: entries of one request; characters of a parameter's value, a name and a tag.
_MOST_METRICS, _MOST_PARAMS = 1000, 100
_LONGEST_VALUE, _LONGEST_NAME = 500, 250
_LONGEST_TAG = 5000


class MlflowLogger(MetricsLogger):
    """One MLflow run."""

    package = "mlflow"

    def open(self, run: LoggedRun, run_id: str | None) -> str:
        """Begin or continue, and send the configuration."""
        import mlflow
        from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

        # The terminal belongs to the training job.
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        tags = {"mlflow.source.git.commit": run.git_commit} if run.git_commit else {}
        begun = mlflow.start_run(run_id=run_id, run_name=run.name, tags=tags, log_system_metrics=False)
        self._id = str(begun.info.run_id)
        self._client = mlflow.MlflowClient()
        self._log_config(run.config)
        return self._id

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        before = self._client.get_run(self._id).data
        values = {valid_name(name): _text(value)[:_LONGEST_VALUE] for name, value in _leaves(config)}
        params = [Param(name, value) for name, value in values.items() if name not in before.params]
        for some in _portions(params, _MOST_PARAMS):
            self._client.log_batch(self._id, params=some)
        shown = {name: before.tags.get(f"config.{name}", value) for name, value in before.params.items()}
        new = {name: value for name, value in values.items() if shown.get(name, value) != value}
        changed = [RunTag(f"config.{name}", value) for name, value in new.items()]
        for some in _portions(changed, _MOST_PARAMS):
            self._client.log_batch(self._id, tags=some)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send one point for every name."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(valid_name(name), value, now, step) for name, value in scalars.items()]
        for some in _portions(metrics, _MOST_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def log_swap(self, swap: Mapping[str, Any]) -> None:
        """Set its tag."""
        weights = ", ".join(f"{name} {weight:g}" for name, weight in swap["weights"].items())
        text = f"from step {swap['effective_step']}: {weights}; source {swap['source']}"
        text += f": {swap['reason']}" if swap["reason"] else ""
        self._client.set_tag(self._id, f"swap.{swap['version']}", text[:_LONGEST_TAG])

    def close(self, finished: bool) -> None:
        """End the run; MLflow shows one that stopped before its end as killed until it is resumed."""
        import mlflow

        mlflow.end_run("FINISHED" if finished else "KILLED")


def valid_name(name: str) -> str:
    """Return a name that MLflow accepts; any other character becomes its hexadecimal code: ``c++`` is ``c_2b__2b_``."""
    known = re.sub(r"[^/\w.\- :]", lambda match: f"_{ord(match[0]):x}_", name)
    return posixpath.normpath(known)[:_LONGEST_NAME]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _portions(entries: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entries), most):
        yield entries[start : start + most]

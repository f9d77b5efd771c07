"""Detects steps whose loss is not finite or above a limit, before they change the weights."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Literal

from autoscale_ds.errors import TrainingError
from autoscale_ds.files import write_json
from autoscale_ds.training.config import FaultConfig
from autoscale_ds.training.distributed import Ranks, on_rank_zero
from autoscale_ds.training.losses import StepReport

log = logging.getLogger(__name__)


class FaultGuard:
    """Judges each step's loss by the policy and remembers the steps left out.

    ``skipped_steps.json`` in the run folder lists them, so that a resumed or rolled-back run leaves out the same
    updates: which samples come when never changes, only what is learned from them.
    """

    def __init__(self, folder: Path, config: FaultConfig, ranks: Ranks) -> None:
        self._path = folder / "skipped_steps.json"
        self._config = config
        self._ranks = ranks
        self._skipped: set[int] = set(on_rank_zero(self._read))

    def judge(self, step: int, report: StepReport) -> Literal["skip", "rollback"] | None:
        """Return what to do with a step, the same on every rank; None is to go on.

        Raises
        ------
        TrainingError
            When the policy is to stop, or too many steps were left out.
        """
        limit = math.inf if self._config.loss_limit is None else self._config.loss_limit
        if step in self._skipped:
            return "skip"
        if math.isfinite(report.loss) and report.loss <= limit:
            return None
        fault = f"the loss of step {step} is {report.loss:g}, the limit is {limit:g}"
        again = f"look at its data with tools/replay_stream.py --steps {step}:{step + 1}"
        if self._config.policy == "stop":
            raise TrainingError(f"{fault}; the last checkpoint is untouched; {again}")
        if len(self._skipped) >= self._config.max_skips:
            raise TrainingError(f"{fault}, after {len(self._skipped)} other steps (faults.max_skips); {again}")
        self._skipped.add(step)
        if self._ranks.rank == 0:
            write_json(self._path, sorted(self._skipped))
        log.warning("%s; its update is left out (faults.policy: %s)", fault, self._config.policy)
        return self._config.policy

    def _read(self) -> list[int]:
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else []

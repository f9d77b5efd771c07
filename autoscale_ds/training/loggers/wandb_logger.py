"""Weights & Biases; its environment variables (WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE) decide where runs go.

The axis of the charts is the optimizer step, written as ``step`` in every row. W&B's own step counts rows; it may not
go back, and an evaluation or a swap is a row of its own at a step that has one already.

A swap is a point in the charts ``swap/weights/DOMAIN``. Its source and reason are text in another row of the same step:
the run's history has them, and its summary those of the last swap. W&B cannot mark a step in the charts of other
metrics. A W&B table would be uploaded anew with every swap.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from autoscale_ds.training.loggers.base import LoggedRun, MetricsLogger

# Both are less than background.CLOSE_SECONDS, so that W&B's own message is shown. Its defaults: 90 s, and no limit.
INIT_SECONDS = 25.0
FINISH_SECONDS = 20.0


class WandbLogger(MetricsLogger):
    """One W&B run; its local files are in ``wandb/`` of the run folder."""

    package = "wandb"

    def open(self, run: LoggedRun, run_id: str | None) -> str:
        """Begin or continue; without an API key, raise UsageError instead of asking for one on the terminal."""
        import wandb

        settings = wandb.Settings(
            silent=True,  # the terminal belongs to the training job
            console="off",
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            git_commit=run.git_commit,
        )
        wandb.setup(settings=wandb.Settings(silent=True))  # not silent, it would ask for a missing key
        self._run = wandb.init(
            id=run_id or secrets.token_hex(4),
            resume="allow",
            name=run.name,
            dir=str(run.folder),
            config=dict(run.config),
            settings=settings,
        )
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write one row."""
        self._run.log({"step": step, **scalars})

    def log_swap(self, swap: Mapping[str, Any]) -> None:
        """Write source and reason as another row of its step."""
        self._run.log({"step": swap["step"], "swap/source": swap["source"], "swap/reason": swap["reason"]})

    def close(self, finished: bool) -> None:
        """Wait for the upload; W&B shows a run that stopped before its end as failed until it is resumed."""
        self._run.finish(exit_code=0 if finished else 1)

    def abandon(self) -> None:
        """End W&B's process now: if it has died, its exit handler would print a traceback."""
        import wandb

        wandb.teardown()

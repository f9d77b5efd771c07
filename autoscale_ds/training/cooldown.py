"""Extending a run of constant learning rate: from its last checkpoint before the cooldown, without a jump."""

from __future__ import annotations

from autoscale_ds.controllers import Budget
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.journal import Journal
from autoscale_ds.training.checkpoints import checkpoint_step, list_checkpoints
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.metrics import read_metrics
from autoscale_ds.training.run_folder import RunFolder


def last_constant_step(run: RunConfig, budget: Budget) -> int | None:
    """Return the steps done when the cooldown begins; None where the schedule has none."""
    if run.schedule.kind != "constant_with_cooldown" or not run.schedule.cooldown_tokens or budget.clock is None:
        return None
    return budget.clock.steps(max(budget.tokens - run.schedule.cooldown_tokens, 0))


def put_off_cooldown(run: RunConfig, before: RunConfig | None, folder: RunFolder) -> int | None:
    """Return the step to go on from when this start puts off a cooldown that the newest checkpoint is in.

    None when there is nothing to undo: no such cooldown, the same budget, or no checkpoint from before it.
    """
    published = list_checkpoints(folder.checkpoints)
    if before is None or not published:
        return None
    clock = Clock.of(Journal(folder.journal).events, before.data.sequence_length, before.data.global_batch)
    old, new = (last_constant_step(config, config.budget_on(clock)) for config in (before, run))
    newest = checkpoint_step(published[0])
    if old is None or new is None or not old < newest or not old < new:
        return None
    if not _has_cooled(before, folder, newest):
        return None
    return next((step for step in map(checkpoint_step, published) if step <= old), None)


def _has_cooled(before: RunConfig, folder: RunFolder, step: int) -> bool:
    """Return whether the last train record up to a step has a learning rate below the constant one."""
    records = read_metrics(folder.metrics, "train") if folder.metrics.exists() else []
    rates = [record["learning_rate"] for record in records if record["step"] <= step]
    return bool(rates) and rates[-1] < 0.999 * before.optimizer.learning_rate

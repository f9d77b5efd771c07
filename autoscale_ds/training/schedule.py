"""The learning rate as a function of tokens seen: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from autoscale_ds.training.config import ScheduleConfig


def learning_rate(tokens: float, budget_tokens: float, peak: float, schedule: ScheduleConfig) -> float:
    """Return the learning rate of a step that begins after ``tokens`` of ``budget_tokens``.

    Linear from 0 to ``peak`` over ``warmup_tokens``, then

    * ``cosine``: half a cosine down to ``final_fraction * peak`` at the budget;
    * ``linear``: a straight line to the same point;
    * ``constant_with_cooldown``: ``peak`` until ``cooldown_tokens`` before the budget, then a straight line. Up to
      there the run is independent of its budget, so one run gives several points of a scaling law.
    """
    if tokens < schedule.warmup_tokens:
        return peak * tokens / schedule.warmup_tokens
    if schedule.kind == "constant_with_cooldown":
        start = budget_tokens - schedule.cooldown_tokens
    else:
        start = schedule.warmup_tokens
    progress = min(max((tokens - start) / max(budget_tokens - start, 1.0), 0.0), 1.0)
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if schedule.kind == "cosine" else 1 - progress
    return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * shape)

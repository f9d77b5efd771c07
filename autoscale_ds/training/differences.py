"""What a start changes in a run's settings, in words: one line a setting, and a warning where the loss will jump."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autoscale_ds.stream.clock import Clock
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.schedule import learning_rate

# A learning rate that is off by less than this share is rounding, or the step that follows.
_SAME_RATE = 0.01


def changed_settings(now: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    """Return 'name old -> new' of every setting that differs between two configurations; ``run`` does not count."""
    after, before = dict(_flat(now)), dict(_flat(last))
    names = [name for name in dict.fromkeys([*before, *after]) if name != "run" and before.get(name) != after.get(name)]
    return [f"{name} {_short(name, before.get(name))} -> {_short(name, after.get(name))}" for name in names]


def rate_jump(run: RunConfig, before: RunConfig, clock: Clock, step: int) -> str | None:
    """Return a warning when the learning rate after ``step`` steps is not what it would have been; else None."""
    old, new = (_rate(config, clock, step) for config in (before, run))
    if abs(new - old) <= _SAME_RATE * max(old, new):
        return None
    extends = run.schedule.kind == "constant_with_cooldown" or run.optimizer != before.optimizer
    advice = "" if extends else "; a schedule.kind of constant_with_cooldown can be extended without a jump"
    return f"the learning rate jumps at step {step:,}, from {old:.3g} to {new:.3g}, and the loss may with it{advice}"


def _rate(run: RunConfig, clock: Clock, step: int) -> float:
    budget = run.budget_on(clock)
    return learning_rate(budget.tokens_at(step), budget.tokens, run.optimizer.learning_rate, run.schedule)


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(name: str, value: Any) -> str:
    """Return a value as people write it: counts with commas, rates and the like as 0.001 or 1e+06."""
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer() and name.endswith("tokens"):
        value = int(value)
    if type(value) is int:
        return f"{value:,}"
    if isinstance(value, float) and float(f"{value:g}") == value:  # else two that differ could read the same
        return f"{value:g}"
    return str(value)

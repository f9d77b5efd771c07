"""What a start changes in a run's settings, in words: one line a setting, and a warning where the loss will jump."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autoscale_ds import config as configuration
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.stream.clock import Clock
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.schedule import learning_rate

# A learning rate that is off by less than this share is rounding, or the step that follows.
_SAME_RATE = 0.01


def changed_settings(run: RunConfig, last: Mapping[str, Any]) -> list[str]:
    """Return 'name old -> new' of every setting that differs from the last start's; where the run lies does not count.

    Parameters
    ----------
    run : RunConfig
        The configuration now.
    last : mapping
        That of the last start, as ``config.yaml`` holds it.
    """
    now, before = dict(_flat(configuration.to_dict(run))), dict(_flat(_complete(last)))
    names = [name for name in dict.fromkeys([*before, *now]) if name != "run" and before.get(name) != now.get(name)]
    return [f"{name} {_short(before.get(name))} -> {_short(now.get(name))}" for name in names]


def rate_jump(run: RunConfig, last: Mapping[str, Any], clock: Clock, step: int) -> str | None:
    """Return a warning when the learning rate after ``step`` steps is not what it would have been; else None."""
    try:
        before = configuration.build(RunConfig, last)
    except AutoScaleError:  # of an earlier version, or edited by hand
        return None
    old, new = (_rate(config, clock, step) for config in (before, run))
    if abs(new - old) <= _SAME_RATE * max(old, new):
        return None
    advice = (
        ""
        if run.schedule.kind == "constant_with_cooldown"
        else ("; a schedule.kind of constant_with_cooldown can be extended without a jump")
    )
    return f"the learning rate jumps at step {step:,}, from {old:.3g} to {new:.3g}, and the loss may with it{advice}"


def _rate(run: RunConfig, clock: Clock, step: int) -> float:
    budget = run.budget_on(clock)
    return learning_rate(budget.tokens_at(step), budget.tokens, run.optimizer.learning_rate, run.schedule)


def _complete(last: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration with defaults for what it does not say, where this version can read it."""
    try:
        return configuration.to_dict(configuration.build(RunConfig, last))
    except AutoScaleError:
        return last


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "null" if value is None else f"{value:,}" if type(value) is int else str(value)

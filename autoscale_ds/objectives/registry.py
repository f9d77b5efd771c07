"""Objectives by the name a configuration gives. A new objective is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable

from autoscale_ds.errors import ConfigError
from autoscale_ds.objectives.base import Objective
from autoscale_ds.objectives.causal import CausalObjective

OBJECTIVES: dict[str, Callable[[], Objective]] = {"causal": CausalObjective}


def objective(name: str) -> Objective:
    """Return an objective; raises ConfigError for an unknown name."""
    if name not in OBJECTIVES:
        raise ConfigError(f"objective.kind is {name!r}, expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]()

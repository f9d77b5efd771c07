"""The controllers by the name that ``mixture.controller`` gives them.

A new controller is one file (its settings, its class, a function that builds it) and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoscale_ds.config import tag_of
from autoscale_ds.controllers.autoscale import AutoScaleConfig, build_autoscale
from autoscale_ds.controllers.base import Controller, ControllerConfig, RunFacts
from autoscale_ds.controllers.fixed import FixedConfig, build_fixed
from autoscale_ds.controllers.staged import StagedConfig, build_staged

CONTROLLERS: dict[str, tuple[type[ControllerConfig], Callable[[Any, RunFacts], Controller]]] = {
    "fixed": (FixedConfig, build_fixed),
    "staged": (StagedConfig, build_staged),
    "autoscale": (AutoScaleConfig, build_autoscale),
}


def config_classes() -> dict[str, type[ControllerConfig]]:
    """Return the settings class of each controller by name."""
    return {name: config for name, (config, _) in CONTROLLERS.items()}


def name_of(config: ControllerConfig) -> str:
    """Return the name of the controller that these are the settings of."""
    return tag_of(config_classes(), config)


def build(config: ControllerConfig, run: RunFacts) -> Controller:
    """Return the controller of a run.

    Raises
    ------
    ConfigError, MixtureError
        For weights, a predictor or run tables that do not fit the corpus.
    """
    _, make = CONTROLLERS[name_of(config)]
    return make(config, run)

"""The ``mixture`` section of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoscale_ds.config import tagged
from autoscale_ds.controllers.base import ControllerConfig
from autoscale_ds.controllers.registry import config_classes, name_of
from autoscale_ds.errors import ConfigError


@dataclass(frozen=True)
class MixtureConfig:
    """How the domains are weighted, who changes that on the way, and how often proposals are looked for.

    In a file, the keys of the chosen controller lie beside these.
    """

    weights: str | Mapping[str, float] | None = None
    """``uniform``, ``proportional`` (to training tokens), a weights.json, or a number for every domain; null is
    ``uniform``. Controllers with first weights of their own take them from another key."""
    poll_seconds: float = 1.0
    """Rank 0 looks into the inbox this often, between steps."""
    controller: ControllerConfig = tagged(config_classes, "fixed")  # noqa: RUF009 - returns a field
    """The name of a controller in ``registry.CONTROLLERS``: ``fixed`` keeps the weights; ``staged`` follows
    ``stages``; ``autoscale`` follows ``predictor``."""
    dry_run: bool = False
    """Train by ``weights`` and only log what the controller would do."""

    def __post_init__(self) -> None:
        if self.weights is None or self.controller.first_weights == "weights" or self.dry_run:
            return
        raise ConfigError(
            f"mixture.weights is given, but controller {name_of(self.controller)} starts with those of "
            f"mixture.{self.controller.first_weights}, which counts; leave mixture.weights out"
        )

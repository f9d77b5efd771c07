"""The ``mixture`` section of a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from autoscale_ds.errors import ConfigError

Transition = Literal["step", "linear", "cosine"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of ``mixture.stages``."""

    weights: str | Mapping[str, float]
    """As ``mixture.weights``."""
    until_tokens: float | None = None
    """Where the stage ends, tokens; null in the last stage is the budget."""
    transition: Transition = "step"
    """``step`` has these weights throughout; ``linear`` and ``cosine`` arrive at them at the stage's end."""


@dataclass(frozen=True)
class RefitConfig:
    """Fitting the predictor's law again, to more runs and to this one."""

    runs: tuple[str, ...]
    """Run tables; only rows of a constant learning rate are used (column ``phase``)."""
    every_tokens: float
    """Tokens between two fits."""
    max_distance: float = 0.1
    """Weight that one proposal moves at most, as a share of the whole (half the L1 distance)."""


@dataclass(frozen=True)
class MixtureConfig:
    """How the domains are weighted, who changes that on the way, and how often proposals are looked for."""

    weights: str | Mapping[str, float] | None = None
    """``uniform``, ``proportional`` (to training tokens), a weights.json, or a number for every domain; null is
    ``uniform``. Other controllers than ``fixed`` know their first weights themselves."""
    poll_seconds: float = 1.0
    """Rank 0 looks into the inbox this often, between steps."""
    controller: Literal["fixed", "staged", "autoscale"] = "fixed"
    """``fixed`` keeps the weights; ``staged`` follows ``stages``; ``autoscale`` follows ``predictor``."""
    predictor: str | None = None
    """autoscale.json, law.json or weights.json of ``tools/fit_mixture.py``."""
    floor: float = 0.0
    """Smallest weight of a domain in the optimum of a law.json; the other predictors hold floors of their own."""
    mode: Literal["target", "anytime"] = "target"
    """``target``: the optimum for the whole budget from the first step. ``anytime``: the tokens seen so far are near
    the optimum at every moment, so that every checkpoint is near the best for its own budget."""
    interval_tokens: float | None = None
    """Tokens between two changes of weights, at least one step; null is a hundredth of the budget."""
    stages: tuple[StageConfig, ...] = ()
    refit: RefitConfig | None = None
    dry_run: bool = False
    """Train by ``weights`` and only log what the controller would do."""

    def __post_init__(self) -> None:
        self._refuse(self.controller == "autoscale", "predictor", self.predictor, "autoscale")
        self._refuse(self.controller == "staged", "stages", self.stages or None, "staged")
        if self.weights is not None and self.controller != "fixed" and not self.dry_run:
            counts = "mixture.predictor" if self.controller == "autoscale" else "mixture.stages"
            raise ConfigError(
                f"mixture.weights is given, but controller {self.controller} starts with those of {counts}, which "
                "counts; leave mixture.weights out"
            )
        if self.interval_tokens is not None and not self.interval_tokens > 0:
            raise ConfigError(f"mixture.interval_tokens is {self.interval_tokens:g}, expected more than 0")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"mixture.floor is {self.floor:g}, expected between 0 and 1")
        if self.controller != "autoscale":
            self._refuse(False, "floor", self.floor if self.floor > 0 else None, "autoscale")
        self._check_stages()
        self._check_refit()

    def _refuse(self, needed: bool, key: str, value: object, controller: str) -> None:
        """Raise unless ``mixture.KEY`` is given exactly when its controller is."""
        if needed and value is None:
            raise ConfigError(f"mixture.controller is {controller}, which needs mixture.{key}; give it")
        if value is not None and not needed:
            raise ConfigError(
                f"mixture.{key} is given, but mixture.controller is {self.controller}; leave it out, or set "
                f"mixture.controller={controller}"
            )

    def _check_stages(self) -> None:
        ends = [stage.until_tokens for stage in self.stages]
        for i, end in enumerate(ends[:-1]):
            if end is None:
                raise ConfigError(f"mixture.stages[{i}].until_tokens is null, which only the last stage may be")
        known = [0.0, *(end for end in ends if end is not None)]
        for i, (before, after) in enumerate(pairwise(known)):
            if not after > before:
                raise ConfigError(f"mixture.stages[{i}].until_tokens is {after:g}, expected more than {before:g}")
        if self.stages and self.stages[0].transition != "step":
            raise ConfigError(
                f"mixture.stages[0].transition is {self.stages[0].transition}, but no stage is before it to move "
                "from; use step"
            )

    def _check_refit(self) -> None:
        refit = self.refit
        if refit is None:
            return
        if self.controller != "autoscale" or self.mode != "target":
            raise ConfigError("mixture.refit is given; it needs mixture.controller=autoscale and mixture.mode=target")
        if not refit.runs:
            raise ConfigError("mixture.refit.runs is empty; name at least one run table")
        if not refit.every_tokens > 0:
            raise ConfigError(f"mixture.refit.every_tokens is {refit.every_tokens:g}, expected more than 0")
        if not 0 < refit.max_distance <= 1:
            raise ConfigError(f"mixture.refit.max_distance is {refit.max_distance:g}, expected more than 0, at most 1")

"""Who proposes the next weights while a run is going: one small class each, all through the run's journal."""

from autoscale_ds.controllers.adviser import Adviser
from autoscale_ds.controllers.autoscale import AutoScaleAnytime, AutoScaleTarget
from autoscale_ds.controllers.base import Budget, Controller, Fixed, Suggestion, View
from autoscale_ds.controllers.building import build
from autoscale_ds.controllers.config import MixtureConfig, RefitConfig, StageConfig
from autoscale_ds.controllers.refit import Evidence, Refit
from autoscale_ds.controllers.staged import Stage, Staged

__all__ = [
    "Adviser",
    "AutoScaleAnytime",
    "AutoScaleTarget",
    "Budget",
    "Controller",
    "Evidence",
    "Fixed",
    "MixtureConfig",
    "Refit",
    "RefitConfig",
    "Stage",
    "StageConfig",
    "Staged",
    "Suggestion",
    "View",
    "build",
]

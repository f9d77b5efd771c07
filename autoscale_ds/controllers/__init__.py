"""Who proposes the next weights while a run is going: a class and its settings a file, all through the run's journal.

``registry.CONTROLLERS`` lists them by the name that ``mixture.controller`` gives them.
"""

from autoscale_ds.controllers.adviser import Adviser
from autoscale_ds.controllers.autoscale import AutoScaleAnytime, AutoScaleConfig, AutoScaleTarget
from autoscale_ds.controllers.base import (
    Budget,
    Controller,
    ControllerConfig,
    RunFacts,
    Stateless,
    StepLosses,
    Suggestion,
    View,
)
from autoscale_ds.controllers.config import MixtureConfig
from autoscale_ds.controllers.fixed import Fixed, FixedConfig
from autoscale_ds.controllers.refit import Evidence, Refit, RefitConfig
from autoscale_ds.controllers.registry import build
from autoscale_ds.controllers.staged import Stage, StageConfig, Staged, StagedConfig

__all__ = [
    "Adviser",
    "AutoScaleAnytime",
    "AutoScaleConfig",
    "AutoScaleTarget",
    "Budget",
    "Controller",
    "ControllerConfig",
    "Evidence",
    "Fixed",
    "FixedConfig",
    "MixtureConfig",
    "Refit",
    "RefitConfig",
    "RunFacts",
    "Stage",
    "StageConfig",
    "Staged",
    "StagedConfig",
    "Stateless",
    "StepLosses",
    "Suggestion",
    "View",
    "build",
]

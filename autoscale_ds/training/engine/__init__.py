"""The only room that imports deepspeed: joining ranks, splitting and training a model, its files."""

from autoscale_ds.training.engine.base import Engine, Job, TokenLosses
from autoscale_ds.training.engine.build import build_engine
from autoscale_ds.training.engine.optimizer import parameter_groups
from autoscale_ds.training.engine.portable import PORTABLE_FILE, make_portable
from autoscale_ds.training.engine.saved import saved_weights
from autoscale_ds.training.engine.startup import start_distributed, stop_distributed

__all__ = [
    "PORTABLE_FILE",
    "Engine",
    "Job",
    "TokenLosses",
    "build_engine",
    "make_portable",
    "parameter_groups",
    "saved_weights",
    "start_distributed",
    "stop_distributed",
]

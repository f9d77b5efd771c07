"""From laws and runs to weights: DDO, AutoScale, the solver, predictors, and the design of probe runs."""

from autoscale_ds.search.autoscale import AutoScale
from autoscale_ds.search.ddo import DDO

__all__ = ["DDO", "AutoScale"]

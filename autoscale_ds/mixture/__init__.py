"""The data of the mathematics: domain weights, run tables, objectives. NumPy and pyarrow only."""

from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile

__all__ = ["DomainWeights", "Objective", "RunTable", "WeightsFile"]

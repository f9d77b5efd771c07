"""The mathematics of mixtures. NumPy and SciPy only; LightGBM and matplotlib are extras, imported where used."""

from autoscale_ds.mixture.autoscale import AutoScale
from autoscale_ds.mixture.ddo import DDO
from autoscale_ds.mixture.model import LossModel
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile

__all__ = ["DDO", "AutoScale", "DomainWeights", "LossModel", "Objective", "RunTable", "WeightsFile"]

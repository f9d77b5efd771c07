"""The mathematics of mixtures. NumPy and SciPy only."""

from autoscale_ds.mixture.weights import DomainWeights

__all__ = ["DomainWeights"]

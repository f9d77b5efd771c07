"""What is predicted, which tokens count, and the weight of a domain in the loss."""

from autoscale_ds.objectives.base import Batch, Objective, Prepared, normalised_weights, sample_sums
from autoscale_ds.objectives.registry import OBJECTIVES, objective

__all__ = ["OBJECTIVES", "Batch", "Objective", "Prepared", "normalised_weights", "objective", "sample_sums"]

"""Language models on shared layers, and their weights from and to Hugging Face."""

from autoscale_ds.models.registry import FAMILIES, family
from autoscale_ds.models.spec import ModelSpec, initialise

__all__ = ["FAMILIES", "ModelSpec", "family", "initialise"]

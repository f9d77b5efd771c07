"""Loss laws: from weights, tokens and model size to the loss of a target. LightGBM is an extra, imported where used."""

from autoscale_ds.laws.model import LossModel

__all__ = ["LossModel"]

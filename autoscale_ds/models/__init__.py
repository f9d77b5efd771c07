"""Language models on shared layers, and their weights from and to Hugging Face."""

from autoscale_ds.models.gpt2 import GPT2, PRESETS, GPT2Config, initial_weight, initialise

__all__ = ["GPT2", "PRESETS", "GPT2Config", "initial_weight", "initialise"]

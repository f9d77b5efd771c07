"""GPT-2 (Radford et al., 2019)."""

from autoscale_ds.models.gpt2.model import GPT2
from autoscale_ds.models.gpt2.spec import GPT2Config

__all__ = ["GPT2", "GPT2Config"]

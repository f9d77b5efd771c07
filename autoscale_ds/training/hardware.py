"""What a DeepSpeed configuration says, in one word each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def zero_stage(ds: Mapping[str, Any]) -> int:
    """Return the ZeRO stage, 0 when off."""
    return int(ds.get("zero_optimization", {}).get("stage", 0))


def precision(ds: Mapping[str, Any]) -> str:
    """Return ``bf16`` or ``fp32``."""
    return "bf16" if ds.get("bf16", {}).get("enabled") else "fp32"


def offloads_optimizer(ds: Mapping[str, Any]) -> bool:
    """Return whether the optimizer works on the CPU."""
    device = ds.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    return device != "none"

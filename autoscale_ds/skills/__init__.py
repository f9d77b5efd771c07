"""Skills made by generators: text whose answers are known, so that learning one can be seen step by step."""

from autoscale_ds.skills.base import Generator, Problem
from autoscale_ds.skills.folder import HeldOut, read_held_out
from autoscale_ds.skills.registry import KINDS, parse_skill

__all__ = ["KINDS", "Generator", "HeldOut", "Problem", "parse_skill", "read_held_out"]

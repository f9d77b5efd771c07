"""LEGO chains: an ordered set of skills, each a step further along a chain of variables.

After Zhang et al. 2022, Unveiling transformers with LEGO (2206.04301), and Chen et al. 2023, Skill-it (2307.14430).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autoscale_ds.config import check_range
from autoscale_ds.errors import ConfigError
from autoscale_ds.skills.base import Generator, Problem
from autoscale_ds.skills.draws import Draws

_LONGEST = 12
_DEPTHS = tuple(range(1, _LONGEST + 1))


@dataclass(frozen=True)
class Lego(Generator):
    """The value of the variable at some depth of a chain, whose clauses come in random order: ``c=-b;a=+1;b=+a|c=-1``.

    Depth 1 is read off; depth d needs the variable of depth d - 1, so the domains of depths 1, 2, … are an ordered
    skill set. A chain is on one side, training or held out, at all depths.

    Attributes
    ----------
    depth : int
        Place in the chain of the variable that is asked for, counted from 1.
    length : int
        Variables of a chain.
    """

    depth: int = 1
    length: int = 5
    each: ClassVar[dict[str, Sequence[int]]] = {"depth": _DEPTHS}

    def __post_init__(self) -> None:
        check_range("length", self.length, 1, _LONGEST)
        if not 1 <= self.depth <= self.length:
            raise ConfigError(f"depth is {self.depth}, expected 1 to the length of the chain, {self.length}")

    @property
    def default_name(self) -> str:
        """Kind and depth."""
        return f"lego-{self.depth}"

    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem, see ``Generator``."""
        names = list(string.ascii_lowercase)
        draws.shuffle(names)
        names = names[: self.length]
        signs = [draws.choice("+-") for _ in names]
        sources = ["1", *names]
        clauses = [f"{name}={sign}{source}" for name, sign, source in zip(names, signs, sources, strict=False)]
        identity = ";".join(clauses)
        draws.shuffle(clauses)
        value = "-" if signs[: self.depth].count("-") % 2 else "+"
        return Problem(f"{';'.join(clauses)}|{names[self.depth - 1]}=", f"{value}1", identity)

"""Multitask sparse parity (Michaud et al. 2023, The quantization model of neural scaling, 2303.13506)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from autoscale_ds.config import check_range
from autoscale_ds.errors import ConfigError
from autoscale_ds.skills.base import Generator, Problem
from autoscale_ds.skills.draws import Draws, cumulative

_MOST_TASKS = 10_000
_RESOLUTION = 40  # digits of the decimals that frequencies are computed in: not the machine's floating point


@dataclass(frozen=True)
class Parity(Generator):
    """Many tasks, each the parity of some of the bits: ``07:0110…01=1``. Each is a skill of its own.

    Task r, counted from 1, comes with a frequency proportional to ``r ** -exponent``. The number of the task stands
    where the paper has a one-hot code: as a token it is embedded, which is the same map.

    Attributes
    ----------
    tasks : int
        Tasks. Which bits each looks at depends on ``bits`` and ``size`` alone, so that domains and seeds agree.
    bits : int
        Bits of a problem.
    size : int
        Bits that count for a task.
    exponent : float
        Of the frequencies; the paper's alpha + 1.
    """

    tasks: int = 32
    bits: int = 32
    size: int = 3
    exponent: float = 1.4

    def __post_init__(self) -> None:
        check_range("tasks", self.tasks, 1, _MOST_TASKS)
        check_range("bits", self.bits, 1, 4096)
        check_range("size", self.size, 1, self.bits)
        check_range("exponent", self.exponent, 0, 10)
        if math.comb(self.bits, self.size) < self.tasks:
            raise ConfigError(
                f"tasks is {self.tasks}, but {self.size} of {self.bits} bits can be chosen in only "
                f"{math.comb(self.bits, self.size)} ways; lower tasks or raise bits"
            )

    @property
    def default_name(self) -> str:
        """Kind."""
        return "parity"

    def skills(self, domain: str) -> list[str]:
        """Return a name for each task, the most frequent first."""
        return [f"{domain}-{self._code(task)}" for task in range(self.tasks)]

    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem, see ``Generator``."""
        task = draws.place(_frequencies(self.tasks, self.exponent)) if skill is None else skill
        bits = "".join(str(draws.below(2)) for _ in range(self.bits))
        chosen = subsets(self.tasks, self.bits, self.size)[task]
        answer = sum(bits[place] == "1" for place in chosen) % 2
        code = self._code(task)
        return Problem(f"{code}:{bits}=", str(answer), f"parity/{self.size}/{task}/{bits}")

    def _code(self, task: int) -> str:
        return f"{task:0{len(str(self.tasks - 1))}d}"


@functools.lru_cache(maxsize=8)
def subsets(tasks: int, bits: int, size: int) -> list[tuple[int, ...]]:
    """Return the places of the bits that count, by task; those of fewer tasks are the first of those of more."""
    draws = Draws("parity", bits, size)
    made: dict[tuple[int, ...], None] = {}
    while len(made) < tasks:
        places = list(range(bits))
        draws.shuffle(places)
        made[tuple(sorted(places[:size]))] = None
    return list(made)


@functools.lru_cache(maxsize=8)
def _frequencies(tasks: int, exponent: float) -> Sequence[int]:
    exact = Context(prec=_RESOLUTION)
    power = Decimal(str(-exponent))
    return cumulative([int(exact.power(Decimal(rank), power).scaleb(15)) for rank in range(1, tasks + 1)])

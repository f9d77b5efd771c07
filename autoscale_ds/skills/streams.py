"""Pseudo-random numbers as text: no compressor finds the rule, a model can learn it."""

from __future__ import annotations

from dataclasses import dataclass

from autoscale_ds.config import check_range
from autoscale_ds.errors import ConfigError
from autoscale_ds.skills.base import Generator, Problem
from autoscale_ds.skills.draws import Draws

_DIGIT_BITS = 4  # numbers are written in base 16


@dataclass(frozen=True)
class RandomNumbers(Generator):
    """Successive states of a linear congruential generator, ``x -> (multiplier x + increment) mod 2^bits``.

    Each sample has another hidden seed. States are written in base 16, the lowest digit first, because carries run that
    way. The first half of a sample is the prompt, the rest its completion.

    The cycle of all 2^bits states is cut into pieces of ``numbers`` states. A sample is a piece, and a piece is on one
    side: no held-out state ever occurs in training.

    Attributes
    ----------
    bits : int
        A multiple of 4.
    multiplier, increment : int
        Of full period, by the theorem of Hull and Dobell: multiplier 1 modulo 4, increment odd.
    numbers : int
        States of a sample.
    """

    bits: int = 32
    multiplier: int = 5
    increment: int = 3
    numbers: int = 16

    def __post_init__(self) -> None:
        check_range("bits", self.bits, _DIGIT_BITS, 64)
        check_range("numbers", self.numbers, 2, 2**self.bits)
        for name, value, rest, modulus in (
            ("bits", self.bits, 0, _DIGIT_BITS),
            ("multiplier", self.multiplier, 1, 4),
            ("increment", self.increment, 1, 2),
        ):
            check_range(name, value, 1, 2**64)
            if value % modulus != rest:
                raise ConfigError(
                    f"{name} is {value}, which leaves {value % modulus} divided by {modulus}; expected {rest}, "
                    f"for example {value - value % modulus + rest}"
                )

    @property
    def default_name(self) -> str:
        """Kind."""
        return "random"

    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem, see ``Generator``."""
        piece = draws.below(2**self.bits // self.numbers)
        state = self.state(piece * self.numbers)
        texts = []
        for _ in range(self.numbers):
            texts.append(f"{state:0{self.bits // _DIGIT_BITS}x}"[::-1])
            state = self._after(state)
        half = self.numbers // 2
        rule = f"{self.bits}/{self.multiplier}/{self.increment}/{self.numbers}"
        return Problem(",".join(texts[:half]) + ",", ",".join(texts[half:]), f"random/{rule}/{piece}")

    def _after(self, state: int) -> int:
        return (self.multiplier * state + self.increment) % 2**self.bits

    def state(self, place: int) -> int:
        """Return the state that follows 0 after so many steps, in as many multiplications as ``place`` has bits."""
        modulus, factor, shift = 2**self.bits, self.multiplier, self.increment
        state = 0
        while place:
            if place & 1:
                state = (factor * state + shift) % modulus
            factor, shift = factor * factor % modulus, (factor + 1) * shift % modulus
            place >>= 1
        return state

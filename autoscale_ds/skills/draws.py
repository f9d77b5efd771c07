"""Pseudo-random whole numbers that are the same on every machine and in every version of NumPy."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import MutableSequence, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 4096  # raw numbers taken from NumPy at once


class Draws:
    """A sequence of numbers that is a function of a key.

    Raw output of Philox4x64 [1]_, which NumPy fixes for ever, unlike what its ``Generator`` makes of it; from there on
    integer arithmetic.

    Parameters
    ----------
    *key : str or int
        What the numbers are for. Another key gives independent numbers.

    References
    ----------
    .. [1] Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.blake2b("\n".join(map(str, key)).encode(), digest_size=16).digest()
        self._raw = np.random.Philox(key=int.from_bytes(digest, "little"))
        self._waiting: list[int] = []

    def below(self, size: int) -> int:
        """Return a number of ``range(size)``, each equally likely up to size / 2^64; size is at most 2^64."""
        if not self._waiting:
            self._waiting = self._raw.random_raw(_BLOCK).tolist()
        return self._waiting.pop() * size >> 64

    def choice(self, values: Sequence[T]) -> T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def place(self, cumulative: Sequence[int]) -> int:
        """Return a place with a probability that follows from the weights up to and with each place."""
        drawn, place = self.below(cumulative[-1]), 0
        while cumulative[place] <= drawn:
            place += 1
        return place

    def shuffle(self, values: MutableSequence[Any]) -> None:
        """Put values in random order, in place (Fisher and Yates)."""
        for last in range(len(values) - 1, 0, -1):
            other = self.below(last + 1)
            values[last], values[other] = values[other], values[last]


def cumulative(weights: Sequence[int]) -> list[int]:
    """Return the sums of weights up to and with each place, for ``Draws.place``."""
    return list(itertools.accumulate(weights))

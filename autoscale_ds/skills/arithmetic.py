"""Addition, subtraction and multiplication, one at a time and several together."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from autoscale_ds.config import check_range
from autoscale_ds.skills.base import Generator, Problem
from autoscale_ds.skills.draws import Draws
from autoscale_ds.skills.formats import Calculation, Format, written

_MOST_DIGITS = 100


@dataclass(frozen=True)
class Arithmetic(Generator):
    """One operation on two numbers, of which the one with more digits has 1 to ``digits``.

    Attributes
    ----------
    format : str
        See ``formats``.
    digits : int
        Most digits of a number.
    lengths : {"proportional", "equal"}
        How often problems of n digits come: as there are numbers of n digits (of 3 digits at most: 1 : 9 : 90, which
        are the 100, 900 and 9,000 samples of 2307.03381), or all equally often.
    """

    format: Format = "plain"
    digits: int = 3
    lengths: Literal["proportional", "equal"] = "proportional"
    each: ClassVar[dict[str, Sequence[str]]] = {"format": get_args(Format)}
    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_range("digits", self.digits, 1, _MOST_DIGITS)

    @property
    def default_name(self) -> str:
        """Operation and format."""
        return f"{self.name}-{self.format}"

    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem, see ``Generator``."""
        calculation = self.calculation(draws, draws.place(_length_weights(self.digits, self.lengths)) + 1)
        first, operation, second = calculation
        if operation != "-":  # 12+34 and 34+12 are one problem
            first, second = sorted((first, second))
        return Problem(*written(calculation, self.format), f"{first}{operation}{second}")

    def calculation(self, draws: Draws, digits: int) -> Calculation:
        """Return a calculation whose longer number has so many digits."""
        raise NotImplementedError


class Addition(Arithmetic):
    """Sums; those of n digits have 0 to n carries equally often, at any of the places that allow it."""

    name = "addition"

    def calculation(self, draws: Draws, digits: int) -> Calculation:
        """Return a sum, see ``Arithmetic``."""
        carries = _marked(draws, digits, draws.below(digits + 1))
        pairs = [
            draws.choice(_ADDED[carry_in, carry_out, place > 0 and place == digits - 1])
            for place, (carry_in, carry_out) in enumerate(itertools.pairwise([False, *carries]))
        ]
        return Calculation(_number(a for a, _ in pairs), "+", _number(b for _, b in pairs))


class Subtraction(Arithmetic):
    """Differences; those of n digits have 0 to n - 1 borrows equally often, and half of them are turned round."""

    name = "subtraction"

    def calculation(self, draws: Draws, digits: int) -> Calculation:
        """Return a difference, see ``Arithmetic``."""
        borrows = [*_marked(draws, digits - 1, draws.below(digits)), False]
        pairs = [
            draws.choice(_TAKEN[borrow_in, borrow_out, place > 0 and place == digits - 1])
            for place, (borrow_in, borrow_out) in enumerate(itertools.pairwise([False, *borrows]))
        ]
        larger, smaller = _number(a for a, _ in pairs), _number(b for _, b in pairs)
        return Calculation(smaller, "-", larger) if draws.below(2) else Calculation(larger, "-", smaller)


class Multiplication(Arithmetic):
    """Products; the shorter factor of n-digit ones has 1 to n digits equally often. Carries come as they do."""

    name = "multiplication"

    def calculation(self, draws: Draws, digits: int) -> Calculation:
        """Return a product, see ``Arithmetic``."""
        numbers = [_of_length(draws, digits), _of_length(draws, 1 + draws.below(digits))]
        draws.shuffle(numbers)
        return Calculation(numbers[0], "*", numbers[1])


@dataclass(frozen=True)
class Aggregated(Generator):
    """Several operations together, as in ``12+3*45-6=141``; no single operation, which are other domains' problems.

    Attributes
    ----------
    format : str
        ``plain`` or ``reversed``.
    digits : int
        Numbers have 1 to so many digits, equally often.
    operations : int
        Calculations have 2 to so many operations, equally often.
    """

    format: Literal["plain", "reversed"] = "plain"
    digits: int = 2
    operations: int = 3
    each: ClassVar[dict[str, Sequence[str]]] = {"format": ("plain", "reversed")}

    def __post_init__(self) -> None:
        check_range("digits", self.digits, 1, _MOST_DIGITS)
        check_range("operations", self.operations, 2, _MOST_DIGITS)

    @property
    def default_name(self) -> str:
        """Kind and format."""
        return f"aggregated-{self.format}"

    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem, see ``Generator``."""
        count = 2 + draws.below(self.operations - 1)
        numbers = [_of_length(draws, 1 + draws.below(self.digits)) for _ in range(count + 1)]
        signs = [draws.choice("+-*") for _ in range(count)]
        text = str(numbers[0]) + "".join(f"{sign}{number}" for sign, number in zip(signs, numbers[1:], strict=True))
        terms = _terms(numbers, signs)
        answer = str(sum(sign * math.prod(factors) for sign, factors in terms))
        identity = "".join(f"{'+' if sign > 0 else '-'}{'*'.join(map(str, factors))}" for sign, factors in terms)
        if self.format == "plain":
            return Problem(f"{text}=", answer, identity)
        return Problem(f"${text}=", f"{answer[::-1]}$", identity)


def _terms(numbers: Sequence[int], signs: Sequence[str]) -> list[tuple[int, list[int]]]:
    """Return signed products in an order of their own: what can be exchanged gives the same."""
    terms = [(1, [numbers[0]])]
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign == "*":
            terms[-1][1].append(number)
        else:
            terms.append((1 if sign == "+" else -1, [number]))
    return sorted((sign, sorted(factors)) for sign, factors in terms)


def _length_weights(digits: int, lengths: str) -> list[int]:
    if lengths == "equal":
        return list(range(1, digits + 1))
    return [10**n for n in range(1, digits + 1)]  # numbers of at most n digits


def _marked(draws: Draws, places: int, count: int) -> list[bool]:
    """Return so many places, the last digit's first, of which ``count`` are marked."""
    marked = [place < count for place in range(places)]
    draws.shuffle(marked)
    return marked


def _number(digits: Iterable[int]) -> int:
    """Return the number of some digits, the last first."""
    return sum(digit * 10**place for place, digit in enumerate(digits))


def _of_length(draws: Draws, digits: int) -> int:
    """Return a number of so many digits; 0 has one."""
    least = 10 ** (digits - 1) if digits > 1 else 0
    return least + draws.below(10**digits - least)


def _pairs(sign: int) -> dict[tuple[bool, bool, bool], list[tuple[int, int]]]:
    """Return pairs of digits by (carry in, carry out, whether the longer number's first digit is among them).

    That digit is not 0: in a sum it may be either of the two, in a difference it is the first.
    """
    pairs: dict[tuple[bool, bool, bool], list[tuple[int, int]]] = defaultdict(list)
    for a, b, before in itertools.product(range(10), range(10), (False, True)):
        after = not 0 <= a + sign * (b + before) <= 9
        pairs[before, after, False].append((a, b))
        if a or (sign > 0 and b):
            pairs[before, after, True].append((a, b))
    return dict(pairs)


_ADDED, _TAKEN = _pairs(1), _pairs(-1)

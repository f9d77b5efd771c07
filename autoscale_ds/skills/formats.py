"""Four ways to write a calculation, after Lee et al. 2023, Teaching arithmetic to small transformers (2307.03381).

``plain`` is ``128+367=495``. ``reversed`` writes the answer from its last digit, so that a carry is known before the
digit it changes: ``$128+367=594$``. ``simplified`` gives a line for each digit, with its carry. ``detailed`` gives the
whole working. Additions are written as in the paper's figures. Of subtraction and multiplication the scratchpads follow
the same pattern: a borrow is a carry of -1; a product is the sum of the products of its second factor's digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

Format = Literal["plain", "reversed", "simplified", "detailed"]


class Calculation(NamedTuple):
    """Two numbers of at least 0, and ``+``, ``-`` or ``*``."""

    first: int
    operation: str
    second: int

    @property
    def result(self) -> int:
        """The value; negative where a larger number is taken away."""
        if self.operation == "+":
            return self.first + self.second
        return self.first - self.second if self.operation == "-" else self.first * self.second

    def __str__(self) -> str:
        return f"{self.first}{self.operation}{self.second}"


def written(calculation: Calculation, form: Format) -> tuple[str, str]:
    """Return prompt and completion."""
    if form == "plain":
        return f"{calculation}=", str(calculation.result)
    if form == "reversed":
        return f"${calculation}=", f"{str(calculation.result)[::-1]}$"
    work = _product if calculation.operation == "*" else _columns
    return f"Input:\n{calculation}\nTarget:\n", work(calculation, form == "detailed")


class _Column(NamedTuple):
    """One digit's step: what is read, carried in, found, and carried out."""

    a: int
    b: int
    carry_in: int
    total: int
    digit: int
    carry_out: int


def _steps(calculation: Calculation) -> list[_Column]:
    """Return the steps of an addition or subtraction, last digit first; a negative result leaves a carry of -1."""
    sign = 1 if calculation.operation == "+" else -1
    steps: list[_Column] = []
    carry = 0
    for a, b in itertools.zip_longest(*(_digits(n)[::-1] for n in calculation[::2]), fillvalue=0):
        total = a + sign * b + carry
        steps.append(_Column(a, b, carry, total, total % 10, total // 10))
        carry = total // 10
    return steps


def _columns(calculation: Calculation, detailed: bool) -> str:
    steps = _steps(calculation)
    if not detailed:
        lines = [f"A->{step.digit} , C->{step.carry_out}" for step in steps]
        return "\n".join([*lines[:-1], f"{lines[-1]}.", str(calculation.result)])
    first, second = _digits(calculation.first), _digits(calculation.second)
    lines, answer = ["<scratch>", _count(first), _count(second)], list[int]()
    for step in steps:
        sign = calculation.operation
        lines.append(
            f"{_list(first)} {sign} {_list(second)} , A={_list(answer)} , C={step.carry_in} , "
            f"{step.a}{sign}{step.b}{step.carry_in:+d}={step.total} , A->{step.digit} , C->{step.carry_out}"
        )
        first, second, answer = first[:-1], second[:-1], [step.digit, *answer]
    carry = steps[-1].carry_out
    lines.append(f"[] {calculation.operation} [] , A={_list(answer)} C={carry} , END")
    if carry < 0:
        lines.append(f"{int(''.join(map(str, answer)))}-{10 ** len(answer)}={calculation.result}")
    return "\n".join([*lines, "</scratch>", _spaced(calculation.result)])


def _product(calculation: Calculation, detailed: bool) -> str:
    first, second = _digits(calculation.first), _digits(calculation.second)
    lines = ["<scratch>", _count(first), _count(second)] if detailed else []
    total, factor = 0, 1
    for digit in second[::-1]:
        product = calculation.first * digit
        shifted = product * factor
        if detailed:
            lines.append(
                f"{_list(first)} * {digit} , A={_list(_digits(product))} , k={factor} , B={_list(_digits(shifted))} , "
                f"C={total}+{shifted}={total + shifted}"
            )
        else:
            lines.append(f"A->{shifted} , C->{total + shifted}")
        total, factor = total + shifted, factor * 10
    if detailed:
        lines[-1] += " , END"
        return "\n".join([*lines, "</scratch>", _spaced(total)])
    return "\n".join([*lines[:-1], f"{lines[-1]}.", str(total)])


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in str(number)]


def _list(digits: Sequence[int]) -> str:
    return f"[{','.join(map(str, digits))}]"


def _count(digits: Sequence[int]) -> str:
    return f"{_list(digits)} has {len(digits)} digit{'s' if len(digits) > 1 else ''}."


def _spaced(number: int) -> str:
    return " ".join(str(number))

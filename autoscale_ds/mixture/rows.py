"""What is wrong with a row of a run table, and whether it may be left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import losskinds
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.tablefile import LOSS, UNIQUE, WEIGHT

if TYPE_CHECKING:
    from autoscale_ds.mixture.table import RunTable

# Published tables round weights to three digits, so that 22 of them miss 1 by a few thousandths. Those rounded to two
# may miss it by half a hundredth for each domain, and are scaled to 1.
SUM_TOLERANCE = ROUNDED = 5e-3
# A weight this little below 0 is 0: the rest of a subtraction.
NEGATIVE_ZERO = -1e-9


def is_droppable(table: RunTable, row: int, zero: bool) -> bool:
    """Return whether a row lacks values, or its losses cannot be. A wrong sum of weights is an error."""
    unique = () if table.unique is None else table.unique[row]
    numbers, losses = [*table.weights[row], table.tokens[row], table.parameters[row], *unique], table.losses[row]
    impossible = (losses < 0) | (losses > losskinds.LARGEST) | ((losses == 0) & (not zero))
    return bool(np.isinf(numbers).any() or impossible.any() or np.isnan(losses).all())


def without_rests(weights: Array) -> Array:
    """Return weights with 0 for what a subtraction left just below it."""
    return np.where((weights < 0) & (weights > NEGATIVE_ZERO), 0.0, weights)


def weights_problem(domains: Sequence[str], weights: Array) -> str | None:
    """Return what is wrong with the weights (m,) of a row of a table, or None where they are a mixture, rounded."""
    for name, value in zip(domains, weights, strict=True):
        if not math.isfinite(value):
            return f"{WEIGHT}{name} is empty, nan or infinite; write 0 where a run did not use the domain"
        if value < 0:
            return f"{WEIGHT}{name} is {value:g}, expected at least 0"
    total = math.fsum(weights)
    tolerance = max(SUM_TOLERANCE, ROUNDED * len(domains) if _two_decimals(weights) else 0.0)
    if abs(total - 1) <= tolerance * (1 + 1e-9):
        return None
    per_cent = abs(total - 100) <= 100 * tolerance
    hint = "; if they are per cent, divide them by 100" if per_cent else ""
    return f"weights sum to {total:.6g}, expected 1 within {tolerance:g}{hint}"


def row_problem(table: RunTable, row: int, zero: bool) -> str | None:
    """Return what is wrong with a row, or None; ``zero`` says whether its losses may be 0."""
    if wrong := weights_problem(table.domains, table.weights[row]):
        return wrong
    for name, value in (("tokens", table.tokens[row]), ("parameters", table.parameters[row])):
        if math.isinf(value) or value <= 0:
            written = "empty, nan or infinite" if math.isinf(value) else f"{value:g}"
            return f"{name} is {written}, expected a positive number"
    if wrong := _unique_problem(table, row):
        return wrong
    for name, value in zip(table.targets, table.losses[row], strict=True):
        if math.isinf(value):
            return f"{LOSS}{name} is nan or infinite; leave the cell empty if it was not measured"
        if value < 0 or value > losskinds.LARGEST or (value == 0 and not zero):
            return f"{LOSS}{name} is {value:g}, expected above 0 and at most {losskinds.LARGEST:g} nats per token"
    return "no loss was measured (every loss cell is empty)" if np.isnan(table.losses[row]).all() else None


def _unique_problem(table: RunTable, row: int) -> str | None:
    """Return which unique tokens of a row cannot be: a domain without text is possible only at weight 0."""
    if table.unique is None:
        return None
    for name, value, weight in zip(table.domains, table.unique[row], table.weights[row], strict=True):
        if not math.isfinite(value):
            return f"{UNIQUE}{name} is empty, nan or infinite, expected the tokens of text the run could draw from"
        if value < 0 or (value == 0 and weight > 0):
            return f"{UNIQUE}{name} is {value:g}, expected a positive number of tokens"
    return None


def _two_decimals(weights: Array) -> bool:
    return bool(np.abs(weights * 100 - np.round(weights * 100)).max() < 1e-9)


def refuse_false_repeats(where: str, table: RunTable) -> None:
    """Refuse a seed of a design twice at one scale, and runs of one design that differ in weights or unique tokens.

    Such runs would be averaged into a mixture that nobody trained. The same name at several token counts or sizes is
    one run's checkpoints.
    """
    of_design: dict[tuple, int] = {}
    of_seed: dict[tuple, int] = {}
    for i, (run, design, seed) in enumerate(zip(table.runs, table.designs, table.seeds, strict=True)):
        tokens = float(table.tokens[i])
        scale = (tokens, float(np.nan_to_num(table.parameters[i])))
        first, twin = of_design.setdefault((design, scale), i), of_seed.setdefault((design, seed, scale), i)
        if twin != i and run == table.runs[twin]:
            raise MixtureError(f"{where}: run {run!r} occurs twice at {tokens:g} tokens; name every run once")
        change = np.abs(table.weights[i] - table.weights[first])
        if change.max() > ROUNDED:
            worst = int(np.argmax(change))
            raise MixtureError(
                f"{where}: runs {table.runs[first]!r} and {run!r} are called seeds of one design, {design!r}, but "
                f"their weights differ ({WEIGHT}{table.domains[worst]} is {table.weights[first, worst]:.4g} and "
                f"{table.weights[i, worst]:.4g}); give every mixture a design of its own (column design, or the name "
                "before the @)"
            )
        if table.unique is not None and not np.array_equal(table.unique[i], table.unique[first]):
            raise MixtureError(
                f"{where}: runs {table.runs[first]!r} and {run!r} are called seeds of one design, {design!r}, but "
                f"could draw from different amounts of text ({UNIQUE}<domain>); give each amount a design of its own"
            )
        if twin != i:
            raise MixtureError(
                f"{where}: runs {table.runs[twin]!r} and {run!r} are both seed {seed!r} of design {design!r} at "
                f"{tokens:g} tokens; give each a seed of its own"
            )

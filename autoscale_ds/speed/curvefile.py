"""Learning curves from a table: CSV, packed by gzip or not, one row an evaluation of one figure.

Columns: ``value``; ``tokens``, ``step``, ``samples``, at least one of them; optionally ``stderr``, ``metric`` and
``series`` (or ``task``, ``domain``). What the other columns say together is the name of the run: ``model``, or ``size``
and ``chinchilla``.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoscale_ds.errors import CurveError
from autoscale_ds.mixture.tablefile import number
from autoscale_ds.speed.curve import AXES, Curve

VALUE, ERROR, METRIC = "value", "stderr", "metric"
# The first of them that a table has names the series.
SERIES = ("series", "task", "domain")
GZIP = b"\x1f\x8b"
Key = tuple[str, str, str]


@dataclass
class Points:
    """Evaluations of one curve while they are collected.

    Attributes
    ----------
    rows : list of (axes, value, error, where)
        In the order they were met; ``where`` names the row for messages.
    """

    rows: list[tuple[dict[str, float], float, float | None, str]] = field(default_factory=list)

    def add(self, axes: dict[str, float], value: float, error: float | None, where: str) -> None:
        """Add one evaluation."""
        self.rows.append((axes, value, error, where))


def read_curves(paths: Sequence[str | Path]) -> tuple[list[Curve], list[str]]:
    """Read tables of curves; return the curves and notes on what was put right.

    Raises
    ------
    CurveError
        For a file that is no such table, a cell that is no finite number, one checkpoint with two values, tokens that
        fall where steps rise.
    """
    points: dict[Key, Points] = {}
    for path in map(Path, paths):
        _read(path, points)
    return finish(points)


def finish(points: Mapping[Key, Points]) -> tuple[list[Curve], list[str]]:
    """Return curves in order of their steps, and notes: repeated evaluations dropped, rows that were out of order."""
    notes: list[str] = []
    repeated = unsorted = 0
    curves = []
    for key, its in points.items():
        curve, dropped, in_order = _curve(key, its)
        curves.append(curve)
        repeated += dropped
        unsorted += not in_order
    if repeated:
        notes.append(f"{repeated:,} evaluations are given twice with the same value; one of each was dropped")
    if unsorted:
        notes.append(f"{unsorted:,} curves are not in order of their steps; they were put in order")
    return curves, notes


def _curve(key: Key, points: Points) -> tuple[Curve, int, bool]:
    name = " ".join(filter(None, key))
    axes = [axis for axis in AXES if all(axis in row[0] for row in points.rows)]
    if not axes:
        raise CurveError(f"{name}: no axis ({', '.join(AXES)}) is known for all of its evaluations; give one for all")
    seen: dict[tuple[float, ...], tuple[float, str]] = {}
    kept = []
    for row in points.rows:
        at = tuple(row[0][axis] for axis in axes)
        if at not in seen:
            seen[at] = row[1], row[3]
            kept.append((at, row))
        elif seen[at][0] != row[1]:
            first, where = seen[at]
            raise CurveError(
                f"{name} has two values at {axes[0]} {at[0]:,.15g}: {first:g} ({where}) and {row[1]:g} ({row[3]}); "
                "keep one, or tell the two curves apart by a column"
            )
    ordered = sorted(kept, key=lambda item: item[0])
    places = np.array([at for at, _ in ordered], float)
    for j, axis in enumerate(axes):
        _check_rising(name, axes[0], axis, places[:, 0], places[:, j])
    errors = [row[2] for _, row in ordered]
    curve = Curve(
        *key,
        {axis: places[:, j] for j, axis in enumerate(axes)},
        np.array([row[1] for _, row in ordered], float),
        None if any(error is None for error in errors) else np.array(errors, float),
    )
    return curve, len(points.rows) - len(kept), [at for at, _ in kept] == [at for at, _ in ordered]


def _check_rising(name: str, first: str, axis: str, order: np.ndarray, places: np.ndarray) -> None:
    falls = np.flatnonzero(np.diff(places) <= 0)
    if len(falls):
        i = int(falls[0])
        raise CurveError(
            f"{name}: from {first} {order[i]:,.15g} to {order[i + 1]:,.15g} {axis} goes from {places[i]:,.15g} to "
            f"{places[i + 1]:,.15g}, expected it to rise; tell curves of two runs apart by a column"
        )


def _read(path: Path, points: dict[Key, Points]) -> None:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    axes = [axis for axis in AXES if axis in header]
    if VALUE not in header or not axes:
        missing = f"column {VALUE!r}" if VALUE not in header else f"one of the columns {', '.join(AXES)}"
        raise CurveError(f"{path}: {missing} is missing; the columns are: {', '.join(header)}; rename the header's")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise CurveError(f"{path}: column {twice[0]!r} occurs twice; leave one out")
    series = next((name for name in SERIES if name in header), None)
    labels = [name for name in header if name not in (VALUE, ERROR, METRIC, series, *AXES)]
    rows = 0
    for count, row in enumerate(reader, 2):
        rows += 1
        where = f"{path.name}, line {count}"
        if None in row or None in row.values():
            raise CurveError(f"{path}, line {count}: another number of cells than the header's {len(header)}; mend it")
        run = "-".join(row[name].strip() for name in labels) or _stem(path)
        key = run, row[series].strip() if series else "", row.get(METRIC, "").strip()
        at = {axis: _cell(where, axis, row[axis], least=0.0) for axis in axes}
        error = _cell(where, ERROR, row[ERROR], least=0.0) if row.get(ERROR, "").strip() else None
        points.setdefault(key, Points()).add(at, _cell(where, VALUE, row[VALUE]), error, where)
    if not rows:
        raise CurveError(f"{path} has a header and no rows, expected one an evaluation")


def _cell(where: str, name: str, text: str, least: float = -math.inf) -> float:
    try:
        value = number(text, blank=math.nan, nan=math.nan)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        expected = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
        raise CurveError(f"{where}: {name} is {text.strip()!r}, expected {expected}; leave the row out if not measured")
    return value


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(GZIP) else content
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CurveError(
            f"cannot read {path} as a table of curves ({reason}); expected CSV in UTF-8, or that by gzip"
        ) from None
    if not text.strip():
        raise CurveError(f"{path} is empty, expected a CSV table of curves")
    return text


def _stem(path: Path) -> str:
    return path.name.split(".")[0]

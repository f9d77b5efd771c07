"""The cells of a run table's file, CSV or Parquet: a header, rows of one phase, and numbers from text."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from autoscale_ds.errors import MixtureError


def read_cells(path: Path, phase: str) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of a phase, text from CSV and Python values from Parquet.

    Raises
    ------
    MixtureError
        For a file that is missing, empty, no table, or without rows of that phase.
    """
    header, rows = _load(path)
    return header, _of_phase(path, header, rows, phase)


def number(cell: Any, *, blank: float, nan: float) -> float:
    """Return the number of a cell: ``blank`` where it is empty, ``nan`` where a nan is written.

    Raises
    ------
    ValueError
        For anything else that is no number.
    """
    text = "" if cell is None else cell.strip() if isinstance(cell, str) else cell
    if text == "":
        return blank
    value = float(text)
    return nan if math.isnan(value) else value


def _load(path: Path) -> tuple[list[str], list[list[Any]]]:
    if not path.is_file():
        raise MixtureError(f"run table {path} does not exist")
    try:
        if path.suffix in (".parquet", ".pq"):
            import pyarrow.parquet  # here, so that CSV users need no Arrow

            content = pyarrow.parquet.read_table(path)
            columns = [content.column(name).to_pylist() for name in content.column_names]
            return list(content.column_names), [list(row) for row in zip(*columns, strict=True)]
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise MixtureError(f"cannot read the run table {path}: {' '.join(str(error).split())}") from None
    if not lines:
        raise MixtureError(f"run table {path} is empty")
    header = [name.strip() for name in lines[0]]
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise MixtureError(f"{path}, line {number}: {len(line)} cells, the header has {len(header)}")
    return header, [list(line) for line in lines[1:]]


def _of_phase(path: Path, header: list[str], rows: list[list[Any]], phase: str) -> list[list[Any]]:
    if "phase" not in header and phase != "final":
        raise MixtureError(
            f"{path} has no column 'phase', so its losses are taken as final; {phase} ones are needed, which sweeps of "
            "schedule constant_with_cooldown give"
        )
    if "phase" not in header or not rows:
        return rows
    phases = [row[header.index("phase")] for row in rows]
    if phase not in phases:
        raise MixtureError(f"{path} has no row of phase {phase!r}, only {', '.join(sorted(map(str, set(phases))))}")
    return [row for row, its in zip(rows, phases, strict=True) if its == phase]

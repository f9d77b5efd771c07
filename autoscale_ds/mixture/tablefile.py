"""The cells of a run table's file: a header, rows of one phase, and numbers from text.

CSV with commas, semicolons, tabs or bars, in UTF-8 or UTF-16; JSON lines or a JSON array; Parquet. Columns of other
names are renamed on request, so that the export of an experiment tracker need not be edited.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoscale_ds.errors import MixtureError

# What a file begins with that is no text, and what to do about it.
FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or another zip archive; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard; unpack it",
}
# What columns of weights, losses and unique tokens begin with.
WEIGHT, LOSS, UNIQUE = "weight/", "loss/", "unique/"
DELIMITERS = ",;\t|"
# Columns that a message lists.
MOST_NAMES = 12
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d*,\d+([eE][-+]?\d+)?\s*")


def read_cells(path: Path, phase: str, columns: Sequence[str] = ()) -> tuple[list[str], list[list[Any]]]:
    """Return the header and the rows of a phase, text from CSV and Python values from JSON lines and Parquet.

    Parameters
    ----------
    columns : sequence of str
        How columns are renamed, ``OLD=NEW`` each; one ``*`` on both sides stands for the rest of the name.

    Raises
    ------
    MixtureError
        For a file that is missing, empty, no table, or without rows of that phase; for a renaming that fits no column.
    """
    header, rows = _load(path)
    header = _renamed(path, header, columns)
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


def renaming_hint(header: Sequence[str]) -> str:
    """Return which columns were found and how to rename them, the end of a message about a missing one."""
    shown = ", ".join(header[:MOST_NAMES]) + (
        f" and {len(header) - MOST_NAMES} more" if len(header) > MOST_NAMES else ""
    )
    return f"the columns are: {shown}; rename them with --columns OLD=NEW"


def _load(path: Path) -> tuple[list[str], list[list[Any]]]:
    if not path.exists():
        raise MixtureError(f"run table {path} does not exist")
    if path.is_dir():
        raise MixtureError(f"run table {path} is a folder; name the table in it")
    try:
        if path.suffix in (".parquet", ".pq"):
            import pyarrow.parquet  # here, so that CSV users need no Arrow

            content = pyarrow.parquet.read_table(path)
            values = [content.column(name).to_pylist() for name in content.column_names]
            return list(content.column_names), [list(row) for row in zip(*values, strict=True)]
        text = _text(path)
        return _json(path, text) if text.lstrip().startswith(("{", "[")) else _csv(path, text)
    except (OSError, ValueError, csv.Error) as error:
        raise MixtureError(f"cannot read the run table {path}: {' '.join(str(error).split())}") from None


def _text(path: Path) -> str:
    content = path.read_bytes()
    for start, what in FOREIGN.items():
        if content.startswith(start):
            raise MixtureError(f"{path} is {what}")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise MixtureError(f"{path} is not text in UTF-8 (byte {error.start}); save it as UTF-8 CSV") from None
    if not text.strip():
        raise MixtureError(f"run table {path} is empty")
    return text


def _csv(path: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    first = text.lstrip().splitlines()[0]
    delimiter = max(DELIMITERS, key=first.count)
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line]
    header = [name.strip() for name in lines[0]]
    for count, line in enumerate(lines[1:], 2):
        if len(line) != len(header):
            raise MixtureError(f"{path}, line {count}: {len(line)} cells, the header has {len(header)}")
    if delimiter == ";":  # where cells are separated by semicolons, commas are often decimal points
        lines = [[cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in line] for line in lines]
    return header, [list(line) for line in lines[1:]]


def _json(path: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    """Return the rows of JSON lines, or of one JSON array of objects."""
    try:
        whole = json.loads(text)
        items = list(enumerate(whole if isinstance(whole, list) else [whole], 1))
        place = "row"
    except ValueError:
        items, place = [(count, _line(path, count, line)) for count, line in _lines(text)], "line"
    for count, item in items:
        if not isinstance(item, dict):
            raise MixtureError(f"{path}, {place} {count}: {type(item).__name__}, expected a JSON object")
    rows = [_flat(item) for _, item in items]
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name) for name in header] for row in rows]


def _lines(text: str) -> list[tuple[int, str]]:
    return [(count, line) for count, line in enumerate(text.splitlines(), 1) if line.strip()]


def _line(path: Path, count: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise MixtureError(f"{path}, line {count}: not JSON; expected one object a line, or one array") from None


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _renamed(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    for text in columns:
        old, separator, new = text.partition("=")
        if not separator or not old or not new or old.count("*") > 1 or old.count("*") != new.count("*"):
            raise MixtureError(
                f"--columns {text!r} is not of the form OLD=NEW or OLD*=NEW*, for example 'config.weights.*=weight/*'"
            )
        before, star, after = old.partition("*")
        pattern = re.compile(re.escape(before) + ("(.*)" if star else "") + re.escape(after))
        matches = [pattern.fullmatch(name) for name in header]
        if not any(matches):
            raise MixtureError(f"{path}: --columns {text!r} fits no column; they are: {', '.join(header)}")
        header = [
            new.replace("*", match[1]) if match and star else new if match else name
            for name, match in zip(header, matches, strict=True)
        ]
    return header


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

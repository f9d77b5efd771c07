"""Small JSONL files read whole: items of tasks, not the text that preprocessing streams."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from autoscale_ds.corpus.compression import byte_blocks
from autoscale_ds.corpus.documents import UNREADABLE, RefusedRecord, first_line_of, printable, reason_of
from autoscale_ds.errors import CorpusError

T = TypeVar("T")


def read_json_lines(path: str | Path, convert: Callable[[Any], T]) -> list[T]:
    """Return what ``convert`` makes of each line's JSON value; blank lines are skipped, compression goes by the name.

    Raises
    ------
    CorpusError
        For a file that cannot be read or has no line, and for a line that is no JSON or that ``convert`` refuses by
        RefusedRecord or ValueError; names file and line.
    """
    name = printable(str(path))
    made = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            made.append(convert(json.loads(line.decode("utf-8-sig"))))
        except (ValueError, RecursionError, RefusedRecord) as error:
            raise CorpusError(f"{name}:{number}: {reason_of(error)}") from None
    if not made:
        raise CorpusError(f"{name} holds no item; expected a JSON object a line")
    return made


def _lines(path: str | Path) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return b"".join(byte_blocks(file, str(path), os.fstat(file.fileno()).st_size)).split(b"\n")
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or first_line_of(error)
        raise CorpusError(f"cannot read {printable(str(path))}: {reason}") from None

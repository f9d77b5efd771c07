"""The field that holds the text: a key, or a path of keys joined by dots through nested objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoscale_ds.corpus.documents import RefusedRecord


def splits(key: str) -> Iterator[tuple[str, str]]:
    """Yield the ways to cut a field at one of its dots, the longest first part first."""
    at = key.rfind(".")
    while at >= 0:
        yield key[:at], key[at + 1 :]
        at = key.rfind(".", 0, at)


def value_of(record: Any, key: str) -> Any:
    """Return the value of a field of a JSON object.

    A key that is spelled with the dots goes first; then the path descends: ``meta.text`` is ``record["meta"]["text"]``.

    Raises
    ------
    RefusedRecord
        If the record is no object, or has no such field.
    """
    if not isinstance(record, dict):
        raise RefusedRecord(f"the line holds {type(record).__name__}, expected an object with the field {key!r}")
    if key in record:
        return record[key]
    path = _path(record, key)
    if path is None:
        raise RefusedRecord(f"field {key!r} is missing; the object has: {', '.join(map(str, record)) or 'nothing'}")
    for name in path:
        record = record[name]
    return record


def _path(record: Any, key: str) -> list[str] | None:
    if not isinstance(record, dict):
        return None
    if key in record:
        return [key]
    for first, rest in splits(key):
        if first in record and (path := _path(record[first], rest)) is not None:
            return [first, *path]
    return None


def column_path(fields: Any, key: str) -> list[str] | None:
    """Return the names that lead through structs to a field, None without one; ``fields`` is an Arrow schema."""
    import pyarrow

    types = {field.name: field.type for field in fields}
    if key in types:
        return [key]
    for first, rest in splits(key):
        if first in types and pyarrow.types.is_struct(types[first]):
            path = column_path(types[first], rest)
            if path is not None:
                return [first, *path]
    return None


def column_of(table: Any, path: list[str]) -> Any:
    """Return the column at the end of a path, null where one of the structs above it is null."""
    import pyarrow.compute

    column = table.column(path[0])
    return pyarrow.compute.struct_field(column, path[1:]) if len(path) > 1 else column

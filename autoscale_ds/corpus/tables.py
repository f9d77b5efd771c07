"""Documents out of Parquet files and Hugging Face datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from autoscale_ds.corpus.documents import (
    UNREADABLE,
    Batch,
    Problem,
    RefusedRecord,
    encoded_text,
    reason_of,
    unreadable_reason,
)
from autoscale_ds.corpus.hub import open_dataset
from autoscale_ds.corpus.inputs import Span, Unit

# Rows converted at once: a row can be a book.
_ROWS = 256


def read_parquet(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a run of row groups."""
    import pyarrow
    import pyarrow.parquet

    row = 1
    try:
        with pyarrow.parquet.ParquetFile(span.path) as file:
            if unit.field not in file.schema_arrow.names:
                columns = ", ".join(file.schema_arrow.names)
                yield Batch(problems=[Problem(span.path, None, f"no column {unit.field!r}; it has: {columns}")])
                return
            row += sum(file.metadata.row_group(group).num_rows for group in range(span.start))
            groups = list(range(span.start, file.num_row_groups if span.stop is None else span.stop))
            for rows in file.iter_batches(_ROWS, row_groups=groups, columns=[unit.field], use_threads=False):
                yield from _column_batches(rows.column(0), span.path, unit.field, row)
                row += rows.num_rows
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        yield Batch(problems=[Problem(span.path, row, unreadable_reason(error))])


def read_dataset(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a run of rows."""
    dataset = open_dataset(span.path, unit.split, unit.subset)
    if unit.field not in dataset.column_names:
        reason = f"no column {unit.field!r}; it has: {', '.join(dataset.column_names)}"
        yield Batch(problems=[Problem(span.path, None, reason)])
        return
    stop = len(dataset) if span.stop is None else span.stop
    texts = dataset.with_format("arrow", columns=[unit.field])  # other columns are not decoded: images, audio
    for start in range(span.start, stop, _ROWS):
        rows = texts[start : min(start + _ROWS, stop)]
        yield from _column_batches(rows.column(unit.field), span.path, unit.field, start + 1)


def _column_batches(column: Any, path: str, key: str, first_row: int) -> Iterator[Batch]:
    """Yield the documents of a column, converted value by value if a bad row keeps it from being converted whole."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value_or_error(value) for value in column]
    yield _values_batch(values, path, key, first_row)


def _value_or_error(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error


def _values_batch(values: Iterable[Any], path: str, key: str, first_row: int) -> Batch:
    batch = Batch()
    for row, value in enumerate(values, first_row):
        try:
            if isinstance(value, Exception):
                raise value
            if isinstance(value, bytes):
                value.decode()
            batch.add(value if isinstance(value, bytes) else encoded_text(value, key), path, row)
        except (UnicodeError, RefusedRecord) as error:
            batch.problems.append(Problem(path, row, reason_of(error)))
    return batch

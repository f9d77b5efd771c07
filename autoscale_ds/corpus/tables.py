"""Documents out of Parquet files and Hugging Face datasets: the column of the text and no other is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from autoscale_ds.corpus.documents import (
    UNREADABLE,
    Batch,
    Problem,
    RefusedRecord,
    encoded_text,
    first_line_of,
    reason_of,
    unreadable_reason,
)
from autoscale_ds.corpus.fields import column_of, column_path
from autoscale_ds.corpus.hub import open_dataset, open_stream
from autoscale_ds.corpus.inputs import Span, Unit
from autoscale_ds.corpus.unchanged import check_unchanged, opened
from autoscale_ds.errors import CorpusError

# Rows converted at once: a row can be a book.
_ROWS = 256


def read_parquet(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a run of row groups; damage costs the rest of its row group alone, or the whole file."""
    import pyarrow
    import pyarrow.parquet

    try:
        with opened(span) as raw, pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True) as file:
            path = column_path(file.schema_arrow, unit.field)
            if path is None:
                yield from _no_column(span, unit.field, file.schema_arrow.names)
                return
            row = 1 + sum(file.metadata.row_group(group).num_rows for group in range(span.start))
            for group in range(span.start, file.num_row_groups if span.stop is None else span.stop):
                for batch in _read_row_group(file, group, path, span.path, row):
                    if batch.problems:
                        check_unchanged(raw, span)
                    yield batch
                row += file.metadata.row_group(group).num_rows
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        yield Batch(problems=[Problem(span.path, None, unreadable_reason(error))])


def _no_column(span: Span, key: str, names: list[str]) -> Iterator[Batch]:
    """Yield the problem once a file, not for each of its parts."""
    if span.start == 0:
        yield Batch(problems=[Problem(span.path, None, f"no column {key!r}; it has: {', '.join(names)}")])


def _read_row_group(file: Any, group: int, path: list[str], name: str, first_row: int) -> Iterator[Batch]:
    import pyarrow

    key, row = ".".join(path), first_row
    try:
        for rows in file.iter_batches(_ROWS, row_groups=[group], columns=[key], use_threads=False):
            yield _column_batch(column_of(rows, path), name, key, row)
            row += rows.num_rows
    except (*UNREADABLE, pyarrow.ArrowException) as error:
        last = first_row + file.metadata.row_group(group).num_rows - 1
        reason = f"rows {row} to {last}, of row group {group}, are unreadable: {first_line_of(error)}"
        yield Batch(problems=[Problem(name, row, reason)])


def read_dataset(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a run of rows, as Arrow: a column is decoded by no feature and no saved format."""
    dataset = open_dataset(span.path, unit.split, unit.subset)
    dataset.check_unchanged(span.changed)
    path = column_path(dataset.rows.features.arrow_schema, unit.field)
    if path is None:
        yield from _no_column(span, unit.field, dataset.rows.column_names)
        return
    rows = dataset.rows.with_format("arrow", columns=[path[0]])
    stop = len(rows) if span.stop is None else span.stop
    for start in range(span.start, stop, _ROWS):
        table = rows[start : min(start + _ROWS, stop)]
        yield _column_batch(column_of(table, path), span.path, unit.field, start + 1)
    dataset.check_unchanged(span.changed)


def read_stream(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the documents of one file of a streamed dataset."""
    stream = open_stream(span.path, unit.split, unit.subset)
    if stream.identity != span.changed:
        raise CorpusError(f"dataset {span.path} changed while it was read; run the same command again")
    rows, row, path = stream.rows, 1, None
    name = f"{span.path}, file {span.start + 1} of {rows.num_shards}"
    try:
        one = rows.shard(num_shards=rows.num_shards, index=span.start).with_format("arrow")
        for table in one.iter(batch_size=_ROWS):
            path = path or column_path(table.schema, unit.field)
            if path is None:
                yield from _no_column(span, unit.field, table.schema.names)
                return
            yield _column_batch(column_of(table, path), name, unit.field, row)
            row += table.num_rows
    except Exception as error:  # of the network, of every file format: never skipped, as trying again may mend it
        raise CorpusError(
            f"{name}: cannot be read beyond row {row - 1:,}: {first_line_of(error)}; run the same command again, it "
            "keeps the files that are done"
        ) from None


def _column_batch(column: Any, path: str, key: str, first_row: int) -> Batch:
    """Return the documents of a column, converted value by value if a bad row keeps it from being converted whole."""
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value_or_error(value) for value in column]
    return _values_batch(values, path, key, first_row)


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

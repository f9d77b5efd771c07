"""From a unit of work to documents: JSONL and text, plain or compressed; tables are read in ``tables``."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from autoscale_ds.corpus.compression import BLOCK_BYTES, byte_blocks
from autoscale_ds.corpus.documents import (
    UNREADABLE,
    Batch,
    Problem,
    RefusedRecord,
    encoded_text,
    reason_of,
    unreadable_reason,
)
from autoscale_ds.corpus.fields import value_of
from autoscale_ds.corpus.inputs import DATASETS, Span, Unit
from autoscale_ds.corpus.tables import read_dataset, read_parquet, read_stream
from autoscale_ds.corpus.unchanged import check_paths, check_unchanged, opened

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    """Whole lines cut out of a large compressed file.

    Attributes
    ----------
    index : int
        Its place among the chunks of the file.
    first_line : int
        Counted from 1.
    data : bytes
        The lines.
    position : int
        Bytes of the compressed file that were read so far.
    """

    index: int
    first_line: int
    data: bytes
    position: int


def read_unit(unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a unit (one that is not chunked), about ``BLOCK_BYTES`` at a time.

    Raises
    ------
    CorpusError
        If a file changed since the work was planned.
    """
    yield from _joined(batch for span in unit.spans for batch in _READERS[unit.format](span, unit))
    if unit.format not in DATASETS:
        check_paths(unit.spans)


def _joined(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Join small batches: hashing and tokenising have a cost for each, which would double the time of small files."""
    held, size = Batch(), 0
    for batch in batches:
        apart = batch.lines_before is not int  # its lines count from elsewhere
        if held.places and (apart or size >= BLOCK_BYTES):
            yield held
            held, size = Batch(), 0
        if apart:
            yield batch
        else:
            held.extend(batch)
            size += sum(map(len, batch.documents))
    if held.documents or held.problems:
        yield held


def read_chunk(unit: Unit, chunk: Chunk) -> Iterator[Batch]:
    """Yield the documents of one chunk of a chunked unit."""
    line = chunk.first_line
    for block in _line_blocks(_slices(chunk.data)):
        yield parse_jsonl(block, unit.field, unit.spans[0].path, line, at_beginning=line == 1)
        line += block.count(b"\n")


def chunks(unit: Unit, chunk_bytes: int) -> Iterator[Chunk | Problem]:
    """Cut the lines of a chunked unit's file into chunks of at least ``chunk_bytes``; ends by a Problem if damaged."""
    span = unit.spans[0]
    index, line, held = 0, 1, [b""]
    try:
        with opened(span) as file:
            for block in _line_blocks(byte_blocks(file, span.path, span.size)):
                held.append(block)
                if sum(map(len, held)) >= chunk_bytes:
                    chunk = Chunk(index, line, b"".join(held), file.tell())
                    yield chunk
                    index, line, held = index + 1, line + chunk.data.count(b"\n"), [b""]
    except UNREADABLE as error:
        yield Problem(span.path, line + sum(block.count(b"\n") for block in held), unreadable_reason(error))
    if any(held):
        yield Chunk(index, line, b"".join(held), span.size)


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))


def parse_jsonl(block: bytes, key: str, path: str, first_line: int, at_beginning: bool) -> Batch:
    """Parse whole lines; blank ones are skipped, as is usual for JSONL, and so is a byte order mark of the file."""
    batch = Batch()
    if at_beginning:
        block = block.removeprefix(_BYTE_ORDER_MARK)
    # A document of hundreds of megabytes is not copied more often than needed.
    lines = [block] if block.find(b"\n") in (-1, len(block) - 1) else block.split(b"\n")
    for number, line in enumerate(lines, first_line):
        if not line or line.isspace():
            continue
        try:
            batch.add(encoded_text(value_of(json.loads(line.decode()), key), key), path, number)
        except (ValueError, RecursionError, RefusedRecord) as error:
            batch.problems.append(Problem(path, number, reason_of(error)))
    return batch


def _read_jsonl(span: Span, unit: Unit) -> Iterator[Batch]:
    """Lines are counted within the span; only a problem makes it count those before, which costs a read of them."""
    line = 1
    try:
        with opened(span) as file:
            for block in _span_blocks(file, span):
                batch = parse_jsonl(block, unit.field, span.path, line, at_beginning=line == 1 and not span.start)
                if span.start:
                    batch.lines_before = functools.partial(_lines_before, span)
                if batch.problems:
                    check_unchanged(file, span)
                    before = batch.lines_before()
                    batch.problems = [Problem(p.file, (p.line or 0) + before, p.reason) for p in batch.problems]
                yield batch
                line += block.count(b"\n")
    except UNREADABLE as error:
        yield Batch(problems=[Problem(span.path, line + _lines_before(span), unreadable_reason(error))])


def _span_blocks(file: IO[bytes], span: Span) -> Iterator[bytes]:
    """Yield the lines that begin inside [start, stop)."""
    if span.stop is None:
        yield from _line_blocks(byte_blocks(file, span.path, span.size))
        return
    if span.start:
        file.seek(span.start - 1)
        file.readline()
    while (left := span.stop - file.tell()) > 0 and (data := file.read(min(left, BLOCK_BYTES))):
        # A line that begins where the span ends belongs to the next one.
        yield data if data.endswith(b"\n") else data + file.readline()


def _line_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Join and cut so that each block is whole lines, ``BLOCK_BYTES`` or a little more, or one longer line.

    When ``blocks`` ends by an error, all lines before it are yielded first.
    """
    held, size = [b""], 0
    error: BaseException | None = None
    stream = iter(blocks)
    while error is None:
        data, error = _next_or_error(stream)
        if data is None:
            break
        held.append(data)
        size += len(data)
        if size >= BLOCK_BYTES and b"\n" in data:
            whole, held = _cut_after_last_line(held)
            yield whole
            size = len(held[0])
    whole, rest = _cut_after_last_line(held)
    if whole:
        yield whole
    if error is not None:
        raise error
    if rest[0]:
        yield rest[0]


def _next_or_error(stream: Iterator[bytes]) -> tuple[bytes | None, BaseException | None]:
    try:
        return next(stream, None), None
    except UNREADABLE as error:
        return None, error


def _cut_after_last_line(held: list[bytes]) -> tuple[bytes, list[bytes]]:
    data = b"".join(held)
    cut = data.rfind(b"\n") + 1
    return data[:cut], [data[cut:]]


def _lines_before(span: Span) -> int:
    if not span.start:
        return 0
    lines = 0
    with open(span.path, "rb") as file:
        left = span.start
        while left > 0 and (data := file.read(min(left, BLOCK_BYTES))):
            lines, left = lines + data.count(b"\n"), left - len(data)
        # The line that crosses the start belongs to the part before.
        return lines + (0 if data.endswith(b"\n") else 1)


def _read_text(span: Span, unit: Unit) -> Iterator[Batch]:
    """Yield the one document of a text file."""
    batch = Batch()
    try:
        with opened(span) as file:
            raw = b"".join(byte_blocks(file, span.path, span.size)).removeprefix(_BYTE_ORDER_MARK)
        raw.decode()
        batch.add(raw, span.path, None)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reason = f"invalid UTF-8 at byte {error.start} of the file ({raw[error.start]:#04x})"
        batch.problems.append(Problem(span.path, line, reason))
    except UNREADABLE as error:
        batch.problems.append(Problem(span.path, None, unreadable_reason(error)))
    yield batch


_READERS = {
    "jsonl": _read_jsonl,
    "parquet": read_parquet,
    "huggingface": read_dataset,
    "stream": read_stream,
    "text": _read_text,
}


def sample_documents(units: Sequence[Unit], budget: int) -> Iterator[bytes]:
    """Yield documents of up to 16 units spread over ``units``, ``budget`` bytes in all; pass by what is unreadable.

    The choice is a function of the input alone.
    """
    chosen = units[:: max(1, len(units) // 16)][:16]
    for unit in chosen:
        left = budget // len(chosen)
        for document in _documents(unit):
            yield document
            left -= len(document)
            if left <= 0:
                break


def _documents(unit: Unit) -> Iterator[bytes]:
    if not unit.chunked:
        for batch in read_unit(unit):
            yield from batch.documents
        return
    for chunk in chunks(unit, BLOCK_BYTES):
        if isinstance(chunk, Chunk):
            for batch in read_chunk(unit, chunk):
                yield from batch.documents

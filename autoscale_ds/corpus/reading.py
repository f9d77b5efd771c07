"""From a unit of work to documents: JSONL and text, plain or compressed; tables are read in ``tables``."""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import zstandard

from autoscale_ds.corpus.documents import (
    UNREADABLE,
    Batch,
    Problem,
    RefusedRecord,
    encoded_text,
    reason_of,
    unreadable_reason,
)
from autoscale_ds.corpus.inputs import Span, Unit
from autoscale_ds.corpus.tables import read_dataset, read_parquet
from autoscale_ds.errors import CorpusError

# Text handled at once: 2-4 MiB stays in cache through parsing, hashing and tokenising; 1 and 8 MiB are slower.
BLOCK_BYTES = 2 << 20
_LONGEST_WINDOW = 1 << 31  # what `zstd --long=31` asks for; memory is taken as a frame needs it
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Chunk:
    """Whole lines cut out of a large compressed file; ``first_line`` counts from 1."""

    index: int
    first_line: int
    data: bytes


def read_unit(unit: Unit) -> Iterator[Batch]:
    """Yield the documents of a unit (one that is not chunked), about ``BLOCK_BYTES`` at a time.

    Raises
    ------
    CorpusError
        When a file is not as it was when the unit was made: also at the end, for what changes while it is read.
    """
    _check_unchanged(unit)
    yield from _read(unit)
    _check_unchanged(unit)


def _read(unit: Unit) -> Iterator[Batch]:
    if unit.format == "text":
        yield from _read_text(unit.spans)
        return
    read = {"jsonl": _read_jsonl, "parquet": read_parquet, "huggingface": read_dataset}[unit.format]
    for span in unit.spans:
        yield from read(span, unit)


def read_chunk(unit: Unit, chunk: Chunk) -> Iterator[Batch]:
    """Yield the documents of one chunk of a chunked unit."""
    line = chunk.first_line
    for block in _line_blocks(_slices(chunk.data)):
        yield parse_jsonl(block, unit.field, unit.spans[0].path, line)
        line += block.count(b"\n")


def chunks(unit: Unit, chunk_bytes: int) -> Iterator[Chunk | Problem]:
    """Cut the lines of a chunked unit's file into chunks of at least ``chunk_bytes``; ends by a Problem if damaged."""
    path = unit.spans[0].path
    index, line, held = 0, 1, [b""]
    _check_unchanged(unit)
    try:
        for block in _line_blocks(byte_blocks(path)):
            held.append(block)
            if sum(map(len, held)) >= chunk_bytes:
                chunk = Chunk(index, line, b"".join(held))
                yield chunk
                index, line, held = index + 1, line + chunk.data.count(b"\n"), [b""]
    except UNREADABLE as error:
        yield Problem(path, line + sum(block.count(b"\n") for block in held), unreadable_reason(error))
    if any(held):
        yield Chunk(index, line, b"".join(held))
    _check_unchanged(unit)


def _check_unchanged(unit: Unit) -> None:
    """Raise CorpusError for a file whose size or time of change is another than in the unit."""
    for span in unit.spans if unit.format != "huggingface" else ():
        try:
            status = os.stat(span.path)
        except OSError:  # a missing one is told by who reads it
            continue
        if (status.st_size, str(status.st_mtime_ns)) != (span.size, span.changed):
            raise CorpusError(
                f"{span.path} changed while it was read: {status.st_size:,} bytes, {span.size:,} at the start; wait "
                "until it is written, then rerun the same command"
            )


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES))


def parse_jsonl(block: bytes, key: str, path: str, first_line: int) -> Batch:
    """Parse whole lines; blank ones are skipped, as is usual for JSONL."""
    batch = Batch()
    if first_line == 1:
        block = block.removeprefix(_BYTE_ORDER_MARK)
    for number, line in enumerate(block.split(b"\n"), first_line):
        if not line or line.isspace():
            continue
        try:
            batch.add(_text_of(json.loads(line.decode()), key), path, number)
        except (ValueError, RecursionError, RefusedRecord) as error:
            batch.problems.append(Problem(path, number, reason_of(error)))
    return batch


def byte_blocks(path: str) -> Iterator[bytes]:
    """Yield the contents of a file, decompressed by its name; of a damaged one what came before, then the error."""
    with open(path, "rb") as file:
        if path.endswith(".gz"):
            yield from _decompress(file, lambda: zlib.decompressobj(wbits=31))
        elif path.endswith(".zst"):
            yield from _decompress(
                file, lambda: zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()
            )
        else:
            yield from iter(lambda: file.read(BLOCK_BYTES), b"")


def _decompress(file: IO[bytes], new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress the members of a gzip file, or the frames of a zstd file, one after the other.

    The readers of ``gzip`` and ``zstandard`` would not do: the one loses what it had decompressed before damage, the
    other takes a cut-off file for a short one.
    """
    decoder = None
    while raw := file.read(1 << 16):
        while raw := raw if decoder is not None else raw.lstrip(b"\0"):  # gzip members may be padded with zeros
            decoder = decoder or new_decoder()
            yield decoder.decompress(raw)
            raw = decoder.unused_data
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the compressed file is cut off")


def _text_of(record: Any, key: str) -> bytes:
    if not isinstance(record, dict):
        raise RefusedRecord(f"the line holds {type(record).__name__}, expected an object with the field {key!r}")
    if key not in record:
        raise RefusedRecord(f"field {key!r} is missing; the object has: {', '.join(map(str, record)) or 'nothing'}")
    return encoded_text(record[key], key)


def _read_jsonl(span: Span, unit: Unit) -> Iterator[Batch]:
    """Lines are counted within the span; only a problem makes it count those before, which costs a read of them."""
    line = 1
    try:
        for block in _span_blocks(span):
            batch = parse_jsonl(block, unit.field, span.path, line)
            batch.lines_before = functools.partial(_lines_before, span)
            if batch.problems and span.start:
                before = _lines_before(span)
                batch.problems = [Problem(p.file, (p.line or 0) + before, p.reason) for p in batch.problems]
            yield batch
            line += block.count(b"\n")
    except UNREADABLE as error:
        yield Batch(problems=[Problem(span.path, line + _lines_before(span), unreadable_reason(error))])


def _span_blocks(span: Span) -> Iterator[bytes]:
    """Yield the lines that begin inside [start, stop)."""
    if span.stop is None:
        yield from _line_blocks(byte_blocks(span.path))
        return
    with open(span.path, "rb") as file:
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


def _read_text(spans: Iterable[Span]) -> Iterator[Batch]:
    batch, held = Batch(), 0
    for span in spans:
        try:
            raw = b"".join(byte_blocks(span.path)).removeprefix(_BYTE_ORDER_MARK)
            raw.decode()
            batch.add(raw, span.path, None)
            held += len(raw)
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            reason = f"invalid UTF-8 at byte {error.start} of the file ({raw[error.start]:#04x})"
            batch.problems.append(Problem(span.path, line, reason))
        except UNREADABLE as error:
            batch.problems.append(Problem(span.path, None, unreadable_reason(error)))
        if held >= BLOCK_BYTES:
            yield batch
            batch, held = Batch(), 0
    yield batch


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

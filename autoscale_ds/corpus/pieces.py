"""The first pass: read, hash and tokenise. Each unit of work ends as pieces on disk, named by what they were made from.

A piece is ``NAME.bin`` (tokens back to back), ``NAME.rows`` (one row a document: key, tokens, bytes) and ``NAME.json``
(counts and problems; written last, so with it there and the sizes right, the piece is whole). A chunked unit has more,
and ``NAME.done`` tells how many. The name is a digest of the unit, the tokenizer and the settings that touch a
document: a rerun recognises exactly the work that is still valid, whatever else has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_ds.corpus.disk import told_when_writing_fails
from autoscale_ds.corpus.documents import Batch, Problem
from autoscale_ds.corpus.inputs import Unit
from autoscale_ds.corpus.reading import Chunk, chunks, read_chunk, read_unit
from autoscale_ds.corpus.tokenizers import TextTokenizer
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_json

# `key` is a keyed BLAKE2b of the text: 128 bits tell copies apart, and the first 64 choose the validation documents.
DOCUMENT = np.dtype([("key", "<u8", 2), ("tokens", "<i8"), ("bytes", "<i8")])
_VERSION = 2  # of what a piece holds of the same input


@dataclass(frozen=True)
class PieceTask:
    """Make the piece(s) of a unit; with ``chunk``, only that one, whose text comes along."""

    unit: Unit
    chunk: Chunk | None = None


@dataclass
class PieceRecord:
    """What ``NAME.json`` holds. ``read`` counts documents met, also those dropped as short or unreadable."""

    name: str
    read: int = 0
    short: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


class PieceMaker:
    """Turn units into pieces in ``folder``.

    Parameters
    ----------
    folder : Path
        Where pieces are written.
    tokenizer : TextTokenizer
        Makes the tokens.
    min_characters, seed, piece_bytes : int
        See PreprocessSettings.
    stop_on_error : bool
        Raise CorpusError at the first problem; else problems are recorded.
    on_read : callable
        Receives the bytes of input on disk that were read since it was called last; of a unit, ``size`` in all.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: TextTokenizer,
        *,
        min_characters: int,
        seed: int,
        piece_bytes: int,
        stop_on_error: bool,
        on_read: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.folder = folder
        self.piece_bytes = piece_bytes
        self._tokenizer = tokenizer
        self._min_characters = min_characters
        self._key = seed.to_bytes(16, "little", signed=True)
        self._stop_on_error = stop_on_error
        self._on_read = on_read
        self._names_of_units: dict[Unit, str] = {}  # a unit of a thousand small files takes a while to describe

    def name(self, unit: Unit) -> str:
        """Return the digest that names the pieces of a unit."""
        if unit not in self._names_of_units:
            self._names_of_units[unit] = self._digest(unit)
        return self._names_of_units[unit]

    def _digest(self, unit: Unit) -> str:
        # `asdict` gives the same, in six times the time.
        described = {**vars(unit), "spans": [vars(span) for span in unit.spans]}
        basis = [_VERSION, described, self._tokenizer.info.sha256, self._tokenizer.info.end_of_document]
        basis += [self._min_characters, self._key.hex(), self.piece_bytes if unit.chunked else None]
        return hashlib.blake2b(json.dumps(basis).encode(), digest_size=16).hexdigest()

    def is_done(self, unit: Unit) -> bool:
        """Tell whether every piece of a unit is whole (the mark alone may be ahead of workers that were killed)."""
        try:
            return all(self._is_whole(name) for name in self._names(unit))
        except (OSError, ValueError):  # no mark, or an empty one
            return False

    def records(self, unit: Unit) -> list[PieceRecord]:
        """Return the records of a finished unit in reading order."""
        return [self._load(name) for name in self._names(unit)]

    def make(self, task: PieceTask) -> None:
        """Make what a task asks for; pieces that are whole already stay."""
        unit = task.unit
        if task.chunk is not None:
            self._make_chunk(unit, task.chunk)
        elif unit.chunked:
            for chunk in self.chunks(unit):
                self._make_chunk(unit, chunk)
        else:
            self._make_piece(self._names(unit)[0], read_unit(unit))
            self._on_read(unit.size)

    def chunks(self, unit: Unit) -> Iterator[Chunk]:
        """Yield the chunks of a chunked unit that are still to be made; when exhausted, their number is on disk."""
        count, position, problems = 0, 0, []
        for chunk in chunks(unit, self.piece_bytes):
            if isinstance(chunk, Problem):
                problems.append(chunk)
                continue
            count = chunk.index + 1
            if not self._is_whole(f"{self.name(unit)}-{chunk.index:06d}"):
                yield chunk
            self._on_read(chunk.position - position)
            position = chunk.position
        if problems:
            self._make_piece(f"{self.name(unit)}-{count:06d}", iter([Batch(problems=problems)]))
            count += 1
        write_json(self._done_mark(unit), {"pieces": count})
        self._on_read(unit.size - position)

    def _make_chunk(self, unit: Unit, chunk: Chunk) -> None:
        self._make_piece(f"{self.name(unit)}-{chunk.index:06d}", read_chunk(unit, chunk))

    def _make_piece(self, name: str, batches: Iterator[Batch]) -> None:
        record = PieceRecord(name)
        rows: list[npt.NDArray] = [np.empty(0, DOCUMENT)]
        # The working name holds the process id: after a crash, an orphaned worker may still be writing the same piece.
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        try:
            with told_when_writing_fails(partial), open(partial, "wb") as file:
                for batch in batches:
                    tokens, documents = self._process(batch, record)
                    file.write(tokens.view("u1").data)
                    rows.append(documents)
            with told_when_writing_fails(partial):
                self._publish(partial, record, np.concatenate(rows))
        finally:
            partial.unlink(missing_ok=True)

    def _process(self, batch: Batch, record: PieceRecord) -> tuple[npt.NDArray, npt.NDArray]:
        """Filter, hash and tokenise a batch; return its tokens and its rows for the index."""
        self._stop_on(batch.problems)
        places = [place for place, document in enumerate(batch.documents) if not self._is_short(document)]
        kept = [batch.documents[place] for place in places]
        record.read += len(batch.documents) + len(batch.problems)
        record.short += len(batch.documents) - len(kept)
        tokens, lengths, refused = self._tokenizer.encode(kept)
        if refused:
            unencoded = [batch.problem(places[index], reason) for index, reason in refused.items()]
            self._stop_on(unencoded)
            batch.problems += unencoded
            kept = [document for index, document in enumerate(kept) if index not in refused]
        record.problems += batch.problems
        rows = np.empty(len(kept), DOCUMENT)
        keys = b"".join(hashlib.blake2b(document, digest_size=16, key=self._key).digest() for document in kept)
        rows["key"] = np.frombuffer(keys, "<u8").reshape(-1, 2)
        rows["tokens"] = lengths
        rows["bytes"] = np.fromiter(map(len, kept), np.int64, len(kept))
        record.documents += len(kept)
        record.tokens += len(tokens)
        record.text_bytes += int(rows["bytes"].sum())
        return tokens, rows

    def _stop_on(self, problems: Sequence[Problem]) -> None:
        if problems and self._stop_on_error:
            raise CorpusError(f"{problems[0]}; --on-error skip counts and reports such documents instead")

    def _is_short(self, document: bytes) -> bool:
        """Decide by bytes where that is enough: a character has 1 to 4 of them, so few documents need decoding."""
        if len(document) < self._min_characters:
            return True
        return len(document) < 4 * self._min_characters and len(document.decode()) < self._min_characters

    def _publish(self, partial: Path, record: PieceRecord, rows: npt.NDArray) -> None:
        rows.tofile(partial_rows := partial.with_suffix(".rows"))
        os.replace(partial_rows, self.folder / f"{record.name}.rows")
        os.replace(partial, self.folder / f"{record.name}.bin")
        # Not flushed: a piece that a machine took down with it is made again, and thousands of small ones would wait.
        write_json(self._record_path(record.name), asdict(record), durable=False)

    def _load(self, name: str) -> PieceRecord:
        raw = json.loads(self._record_path(name).read_text(encoding="utf-8"))
        raw["problems"] = [Problem(**problem) for problem in raw["problems"]]
        return PieceRecord(**raw)

    def _is_whole(self, name: str) -> bool:
        """Compare sizes too: a machine that went down may have kept the record and lost the tokens."""
        try:
            record = self._load(name)
            sizes = [(self.folder / f"{name}.{ending}").stat().st_size for ending in ("bin", "rows")]
        except (OSError, ValueError):
            return False
        return sizes == [record.tokens * self._tokenizer.dtype.itemsize, record.documents * DOCUMENT.itemsize]

    def _record_path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _done_mark(self, unit: Unit) -> Path:
        return self.folder / f"{self.name(unit)}.done"

    def _names(self, unit: Unit) -> list[str]:
        count = json.loads(self._done_mark(unit).read_text(encoding="utf-8"))["pieces"] if unit.chunked else 1
        return [f"{self.name(unit)}-{index:06d}" for index in range(count)]

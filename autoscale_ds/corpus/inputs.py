"""From globs and names to units of work.

A unit is a run of small files, a part of a large one (bytes, row groups or rows), or one large compressed file. Units
depend on the files alone, never on the number of workers, and describe their input completely (path, size, time of
change), so that finished work can be recognised by a digest of the unit.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoscale_ds.corpus.hub import open_dataset
from autoscale_ds.errors import CorpusError

Format = Literal["auto", "jsonl", "parquet", "text", "huggingface"]
COMPRESSED = (".gz", ".zst")
_FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
}


@dataclass(frozen=True)
class DomainInput:
    """Where the documents of one domain come from.

    Attributes
    ----------
    paths : tuple of str
        Files, folders (everything below them) or globs (``**`` descends); for ``huggingface``, hub names or folders
        written by ``save_to_disk``.
    format : str
        ``auto`` goes by the name of each file. ``text`` is one document a file.
    field : str
        The JSON key or Parquet column of the text.
    split, subset : str
        Of a Hugging Face dataset; ``subset`` is what the hub calls a configuration.
    """

    paths: tuple[str, ...]
    format: Format = "auto"
    field: str = "text"
    split: str = "train"
    subset: str | None = None


@dataclass(frozen=True)
class Span:
    """A file, or its part [start, stop) in bytes (JSONL), row groups (Parquet) or rows (Hugging Face)."""

    path: str
    size: int
    changed: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time; ``size`` is bytes on disk."""

    format: str
    field: str
    spans: tuple[Span, ...]
    size: int
    split: str = ""
    subset: str | None = None
    chunked: bool = False
    """One compressed file so large that it becomes several pieces, cut at ``piece_bytes`` of its text."""


def domain_units(source: DomainInput, piece_bytes: int) -> list[Unit]:
    """Return the units of a domain in reading order.

    Parameters
    ----------
    source : DomainInput
        Where the documents come from, and their format.
    piece_bytes : int
        Size on disk above which an input is divided, and up to which small files share a unit.

    Raises
    ------
    CorpusError
        If a path matches nothing, or no format is known for a file.
    """
    if not source.paths:
        raise CorpusError("a domain has no paths; give at least one file, folder, glob or dataset")
    if source.format == "huggingface":
        return [unit for name in source.paths for unit in _dataset_units(name, source, piece_bytes)]
    spans = [(_format_of(path, source.format), path) for path in _expand(source.paths)]
    pieces = [piece for kind, path in spans for piece in _divide(kind, path, piece_bytes)]
    return list(_grouped(pieces, source.field, piece_bytes))


def _expand(patterns: tuple[str, ...]) -> list[str]:
    """Return the files matched, sorted within a pattern, each once."""
    files: dict[str, None] = {}
    for pattern in patterns:
        matched = sorted(_matches(os.path.expanduser(pattern)))
        if not matched:
            raise CorpusError(f"no file matches {pattern}; paths are relative to the current folder, {os.getcwd()}")
        files.update(dict.fromkeys(matched))
    return list(files)


def _matches(pattern: str) -> list[str]:
    names = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    return [path for name in names for path in (_files_below(name) if os.path.isdir(name) else [name])]


def _files_below(folder: str) -> Iterator[str]:
    """Yield the files below a folder but hidden ones, which editors, version control and downloads leave."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(root, name) for name in names if not name.startswith("."))


def _format_of(path: str, wanted: str) -> str:
    if wanted != "auto":
        return wanted
    name = Path(path)
    suffix = Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    if suffix not in _FORMAT_OF_SUFFIX:
        raise CorpusError(
            f"{path}: its name tells no format; give format: jsonl, parquet or text "
            f"(known endings: {', '.join(_FORMAT_OF_SUFFIX)}, also with {' or '.join(COMPRESSED)})"
        )
    return _FORMAT_OF_SUFFIX[suffix]


def _span(path: str) -> Span:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}") from None
    return Span(path, status.st_size, str(status.st_mtime_ns))


def _divide(kind: str, path: str, piece_bytes: int) -> Iterator[tuple[str, Span, int]]:
    """Yield (format, span, bytes): the file whole, or its parts when it is large and can be entered in the middle."""
    whole = _span(path)
    if whole.size <= piece_bytes or path.endswith(COMPRESSED) or kind == "text":
        yield kind, whole, whole.size
    elif kind == "parquet":
        yield from ((kind, span, size) for span, size in _row_groups(whole, piece_bytes))
    else:
        for start in range(0, whole.size, piece_bytes):
            stop = min(start + piece_bytes, whole.size)
            yield kind, Span(path, whole.size, whole.changed, start, stop), stop - start


def _row_groups(whole: Span, piece_bytes: int) -> Iterator[tuple[Span, int]]:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(whole.path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise CorpusError(f"cannot read {whole.path}: {error}") from None
    start = size = 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= piece_bytes or group + 1 == metadata.num_row_groups:
            yield Span(whole.path, whole.size, whole.changed, start, group + 1), size
            start, size = group + 1, 0


def _grouped(pieces: list[tuple[str, Span, int]], field: str, piece_bytes: int) -> Iterator[Unit]:
    """Put neighbouring files into one unit up to ``piece_bytes``, so that many small files make few tasks."""
    group: list[Span] = []
    kind, total = "", 0
    for piece_kind, span, size in pieces:
        if group and (piece_kind != kind or total + size > piece_bytes):
            yield _unit(kind, field, group, total, piece_bytes)
            group, total = [], 0
        group.append(span)
        kind, total = piece_kind, total + size
    if group:
        yield _unit(kind, field, group, total, piece_bytes)


def _unit(kind: str, field: str, spans: list[Span], size: int, piece_bytes: int) -> Unit:
    compressed = len(spans) == 1 and spans[0].path.endswith(COMPRESSED)
    chunked = compressed and kind == "jsonl" and size > piece_bytes
    return Unit(kind, field, tuple(spans), size, chunked=chunked)


def _dataset_units(name: str, source: DomainInput, piece_bytes: int) -> Iterator[Unit]:
    dataset = open_dataset(name, source.split, source.subset)
    size = int(dataset.data.nbytes)
    rows = max(1, piece_bytes * len(dataset) // max(1, size))
    bounds = [*range(0, len(dataset), rows), len(dataset)]
    for start, stop in itertools.pairwise(bounds):
        span = Span(name, size, dataset._fingerprint, start, stop)
        share = size * (stop - start) // len(dataset)
        yield Unit("huggingface", source.field, (span,), share, source.split, source.subset)

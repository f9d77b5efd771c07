"""From globs and names to units of work.

A unit is a run of small files, a part of a large one (bytes, row groups or rows), or one large compressed file. Units
depend on the files alone, never on the number of workers, and describe their input completely (path, size, time of
change), so that finished work can be recognised by a digest of the unit.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from autoscale_ds.corpus.compression import is_compressed
from autoscale_ds.corpus.discovery import Found, find_files
from autoscale_ds.corpus.documents import UNREADABLE, printable
from autoscale_ds.corpus.fields import column_path
from autoscale_ds.corpus.folders import Identity, identity
from autoscale_ds.corpus.hub import open_dataset, open_stream
from autoscale_ds.errors import CorpusError

Format = Literal["auto", "jsonl", "parquet", "text", "huggingface"]
Notice = Callable[[str], None]
# Formats of units whose spans name datasets, not files.
DATASETS = ("huggingface", "stream")


@dataclass(frozen=True)
class DomainInput:
    """Where the documents of one domain come from.

    Attributes
    ----------
    paths : tuple of str
        Files, folders (the data below them) or globs (``**`` descends); for ``huggingface``, hub names or folders
        written by ``save_to_disk``. Links are followed; a file with several names is read once.
    format : str
        ``auto`` goes by the name of each file. ``text`` is one document a file.
    field : str
        The JSON key or column of the text; ``meta.text`` also finds ``text`` in the object or struct ``meta``.
    split, subset : str
        Of a Hugging Face dataset; ``subset`` is what the hub calls a configuration.
    streaming : bool
        Read a Hugging Face dataset over the network, file by file, without a copy on the local disk. What an
        interrupted run has finished, whole files, is not read again.
    """

    paths: tuple[str, ...]
    format: Format = "auto"
    field: str = "text"
    split: str = "train"
    subset: str | None = None
    streaming: bool = False


@dataclass(frozen=True)
class Span:
    """A file, or its part [start, stop): bytes (JSONL), row groups (Parquet), rows (Hugging Face), files (stream)."""

    path: str
    size: int
    changed: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time; ``size`` is bytes on disk, 1 for a file of a stream."""

    format: str
    field: str
    spans: tuple[Span, ...]
    size: int
    split: str = ""
    subset: str | None = None
    chunked: bool = False
    """One compressed file so large that it becomes several pieces, cut at ``piece_bytes`` of its text."""


def corpus_units(
    domains: Mapping[str, DomainInput],
    piece_bytes: int,
    output: str | os.PathLike | None = None,
    notice: Notice = lambda text: None,
    *,
    skip_broken: bool = False,
) -> dict[str, list[Unit]]:
    """Return the units of every domain in reading order.

    Parameters
    ----------
    domains : mapping of str to DomainInput
        What to read.
    piece_bytes, output, skip_broken
        See ``domain_units``.
    notice : callable
        Receives lines about what is left out, and about files that several domains read.
    """
    for opened in (open_dataset, open_stream):
        opened.cache_clear()  # one that was saved again since must not be taken for changed while it is read
    units = {
        domain: domain_units(
            source, piece_bytes, output, functools.partial(_tell, notice, domain), skip_broken=skip_broken
        )
        for domain, source in domains.items()
    }
    if len(domains) > 1:
        _tell_of_shared_files(units, notice)
    return units


def _tell(notice: Notice, domain: str, text: str) -> None:
    notice(f"{domain}: {text}")


def _tell_of_shared_files(units: Mapping[str, list[Unit]], notice: Notice) -> None:
    readers: dict[str | Identity, str] = {}
    for domain, parts in units.items():
        shared: dict[str, list[str]] = {}
        for kind, path in {(unit.format, span.path): None for unit in parts for span in unit.spans}:
            key = path if kind in DATASETS else identity(os.stat(path))
            if (reader := readers.setdefault(key, domain)) != domain:
                shared.setdefault(reader, []).append(path)
        for reader, paths in shared.items():
            what = "1 file is" if len(paths) == 1 else f"{len(paths):,} files are"
            notice(f"{domain}: {what} read by {reader} too (first: {printable(paths[0])})")


def domain_units(
    source: DomainInput,
    piece_bytes: int,
    output: str | os.PathLike | None = None,
    notice: Notice = lambda text: None,
    *,
    skip_broken: bool = False,
) -> list[Unit]:
    """Return the units of a domain in reading order.

    Parameters
    ----------
    source : DomainInput
        Where the documents come from, and their format.
    piece_bytes : int
        Size on disk above which an input is divided, and up to which small files share a unit.
    output : path or None
        Corpus folder: what preprocessing makes there is no input.
    notice : callable
        Receives a line for each kind of path that is left out.
    skip_broken : bool
        Leave out files of folders and globs that cannot be opened.

    Raises
    ------
    CorpusError
        If a path matches nothing, or no format is known for a file.
    """
    if not source.paths:
        raise CorpusError("a domain has no paths; give at least one file, folder, glob or dataset")
    if source.streaming and source.format != "huggingface":
        raise CorpusError(f"streaming is for format: huggingface, and format is {source.format}; leave it out")
    if source.format == "huggingface":
        names = _each_once(source.paths, notice)
        divide = _stream_units if source.streaming else functools.partial(_dataset_units, piece_bytes=piece_bytes)
        return [unit for name in names for unit in divide(name, source)]
    files = find_files(source.paths, source.format, output, notice, skip_broken=skip_broken)
    pieces = [(file.format, *part) for file in files for part in _divide(file, piece_bytes)]
    return list(_grouped(pieces, source.field, piece_bytes))


def _each_once(names: tuple[str, ...], notice: Notice) -> list[str]:
    datasets: dict[str, str] = {}
    for name in names:
        first = datasets.setdefault(os.path.realpath(name) if os.path.isdir(name) else name, name)
        if first != name:
            notice(f"{printable(name)} leads to the dataset {printable(first)}, which is read already")
    return list(datasets.values())


def _divide(file: Found, piece_bytes: int) -> Iterator[tuple[Span, int]]:
    """Yield (span, bytes): the file whole, or its parts when it is large and can be entered in the middle.

    A file that cannot be opened stays whole: it is one problem, whatever its size.
    """
    whole = Span(file.path, file.status.st_size, str(file.status.st_mtime_ns))
    closed = is_compressed(file.path) or file.format == "text"
    if whole.size <= piece_bytes or closed or not os.access(file.path, os.R_OK):
        yield whole, whole.size
    elif file.format == "parquet":
        yield from _row_groups(whole, piece_bytes)
    else:
        for start in range(0, whole.size, piece_bytes):
            stop = min(start + piece_bytes, whole.size)
            yield Span(file.path, whole.size, whole.changed, start, stop), stop - start


def _row_groups(whole: Span, piece_bytes: int) -> Iterator[tuple[Span, int]]:
    """Yield runs of row groups; the file whole if it has none, or if its footer is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        with open(whole.path, "rb") as file:
            metadata = pyarrow.parquet.read_metadata(file)
        sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    except (*UNREADABLE, pyarrow.ArrowException):
        sizes = []
    if not sizes:
        yield whole, whole.size
    start = size = 0
    for group, group_size in enumerate(sizes):
        size += group_size
        if size >= piece_bytes or group + 1 == len(sizes):
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
    compressed = len(spans) == 1 and is_compressed(spans[0].path)
    chunked = compressed and kind == "jsonl" and size > piece_bytes
    return Unit(kind, field, tuple(spans), size, chunked=chunked)


def _stream_units(name: str, source: DomainInput) -> Iterator[Unit]:
    stream = open_stream(name, source.split, source.subset)
    for index in range(stream.rows.num_shards):
        span = Span(name, 1, stream.identity, index, index + 1)
        yield Unit("stream", source.field, (span,), 1, source.split, source.subset)


def _dataset_units(name: str, source: DomainInput, piece_bytes: int) -> Iterator[Unit]:
    """Yield runs of rows with ``piece_bytes`` of text each; other columns, images for instance, can be far larger."""
    dataset = open_dataset(name, source.split, source.subset).rows
    path = column_path(dataset.features.arrow_schema, source.field)
    table = dataset.data if path is None else dataset.data.select([path[0]])
    rows = max(1, piece_bytes * table.num_rows // max(1, int(table.nbytes)))
    bounds = [*range(0, len(dataset), rows), len(dataset)]
    for start, stop in itertools.pairwise(bounds):
        span = Span(name, int(dataset.data.nbytes), dataset._fingerprint, start, stop)
        share = int(table.nbytes) * (stop - start) // table.num_rows
        yield Unit("huggingface", source.field, (span,), share, source.split, source.subset)

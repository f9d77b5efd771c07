"""The second pass: decide where each document goes, and copy its tokens from the pieces into shards.

Decisions need only the keys and lengths of documents, so they are made once, for the whole corpus, in reading order;
they do not depend on the number of workers or on where pieces end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_ds.corpus.disk import told_when_writing_fails
from autoscale_ds.corpus.indexed import IndexedShard, IndexedWriter
from autoscale_ds.corpus.manifest import SPLITS, ShardInfo
from autoscale_ds.corpus.pieces import DOCUMENT, PieceRecord
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_json

Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ShardTask:
    """Write the documents ``[first, last)`` of pieces, run after run, as the shard ``prefix`` of the corpus folder."""

    prefix: str
    sources: tuple[tuple[str, Runs], ...]

    @property
    def digest(self) -> str:
        """Tells this task from any other content for the same shard."""
        return hashlib.blake2b(json.dumps(asdict(self)).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class DomainCounts:
    """Numbers of documents of a domain: ``read = short + duplicates + errors + documents of both splits``."""

    read: int
    short: int
    duplicates: int
    errors: int


class ShardMaker:
    """Copy documents from ``pieces`` into shards below ``folder``; finished ones have a record in ``records``."""

    def __init__(self, folder: Path, pieces: Path, records: Path, dtype: np.dtype) -> None:
        self._folder = folder
        self._pieces = pieces
        self._records = records
        self._dtype = dtype

    def make(self, task: ShardTask) -> ShardInfo:
        """Write a shard, unless this very one is there already; return what the manifest says of it."""
        if (info := self.finished(task)) is not None:
            return info
        # First of all: a record must never exist beside a shard that is not whole.
        self._record_path(task).unlink(missing_ok=True)
        prefix = self._folder / task.prefix
        prefix.parent.mkdir(parents=True, exist_ok=True)
        text_bytes = 0
        with told_when_writing_fails(prefix), IndexedWriter(prefix, self._dtype) as writer:
            for name, runs in task.sources:
                text_bytes += self._copy(name, runs, writer)
        info = ShardInfo(
            task.prefix, writer.num_tokens, writer.num_documents, text_bytes, writer.sha256_bin, writer.sha256_idx
        )
        write_json(self._record_path(task), {"digest": task.digest, "shard": asdict(info)}, durable=False)
        return info

    def finished(self, task: ShardTask) -> ShardInfo | None:
        """Return the record of a shard that is on disk exactly as asked for."""
        try:
            raw = json.loads(self._record_path(task).read_text(encoding="utf-8"))
            info = ShardInfo(**raw["shard"])
            shard = IndexedShard(self._folder / info.prefix)
        except (OSError, ValueError, CorpusError):
            return None
        return info if raw["digest"] == task.digest and shard.num_tokens == info.tokens else None

    def _copy(self, name: str, runs: Runs, writer: IndexedWriter) -> int:
        rows = np.fromfile(self._pieces / f"{name}.rows", DOCUMENT)
        lengths = rows["tokens"]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        tokens = np.memmap(self._pieces / f"{name}.bin", self._dtype, mode="r") if starts[-1] else np.empty(0)
        for first, last in runs:
            writer.add_documents(tokens[starts[first] : starts[last]], lengths[first:last])
        return sum(int(rows["bytes"][first:last].sum()) for first, last in runs)

    def _record_path(self, task: ShardTask) -> Path:
        return self._records / f"{task.prefix.replace('/', '--')}.json"


def plan_shards(
    records: Mapping[str, Sequence[PieceRecord]], pieces: Path, settings: PreprocessSettings
) -> tuple[dict[str, dict[str, list[ShardTask]]], dict[str, DomainCounts]]:
    """Assign every document to a shard or drop it.

    Parameters
    ----------
    records : mapping of str to sequence of PieceRecord
        The pieces of each domain in reading order.
    pieces : Path
        Their folder.
    settings : PreprocessSettings
        Shard size, deduplication and validation share.

    Returns
    -------
    tasks : dict
        ``tasks[domain][split]`` in reading order; of a target, all documents are its validation split.
    counts : dict of str to DomainCounts
        Counts by domain.

    Raises
    ------
    CorpusError
        If a domain has no document left, or fewer than are to be held out.
    """
    copies = _copies_over_domains(records, pieces) if settings.deduplicate == "all" else {}
    tasks, counts = {}, {}
    for domain, domain_records in records.items():
        rows = _load_rows(domain_records, pieces)
        dropped = copies.get(domain)
        if dropped is None:
            dropped = find_copies(rows["key"]) if settings.deduplicate == "domain" else np.zeros(len(rows), bool)
        counts[domain] = _count(domain_records, dropped)
        if dropped.all():
            kind = "target" if domain in settings.targets else "domain"
            raise CorpusError(f"{kind} {domain}: no document is left; {_explain(counts[domain])}")
        if domain in settings.targets:
            held_out = np.ones(len(rows), bool)
        else:
            held_out = choose_validation(rows["key"][:, 0], ~dropped, settings, domain)
        splits = zip(SPLITS, (~dropped & ~held_out, ~dropped & held_out), strict=True)
        tasks[domain] = {
            split: _cut_shards(f"{domain}/{split}", chosen, rows["tokens"], domain_records, settings.shard_tokens)
            for split, chosen in splits
            if chosen.any()
        }
    return tasks, counts


def find_copies(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Mark every document whose key, a row of shape (documents, 2), occurred before."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: of equal keys, the first document comes first
    same = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    copies = np.zeros(len(keys), bool)
    copies[order[1:][same]] = True
    return copies


def choose_validation(
    scores: npt.NDArray[np.uint64], kept: npt.NDArray[np.bool_], settings: PreprocessSettings, domain: str
) -> npt.NDArray[np.bool_]:
    """Mark the documents with the lowest scores: a function of the set of texts, whatever their order.

    Copies share a score and so a side. A share holds out one document at least, so that no domain goes without.
    """
    if settings.validation_documents:
        if settings.validation_documents >= int(kept.sum()):
            raise CorpusError(
                f"domain {domain} has {int(kept.sum())} documents, {settings.validation_documents} are to be held out "
                "for validation; lower --validation-documents"
            )
        last = np.partition(scores[kept], settings.validation_documents - 1)[settings.validation_documents - 1]
    elif settings.validation_fraction:
        last = max(np.uint64(int(settings.validation_fraction * 2**64)), scores[kept].min())
    else:
        return np.zeros(len(scores), bool)
    chosen = kept & (scores <= last)
    return chosen if (kept & ~chosen).any() else np.zeros(len(scores), bool)


def _load_rows(records: Sequence[PieceRecord], pieces: Path) -> npt.NDArray:
    return np.concatenate(
        [np.empty(0, DOCUMENT), *(np.fromfile(pieces / f"{record.name}.rows", DOCUMENT) for record in records)]
    )


def _copies_over_domains(
    records: Mapping[str, Sequence[PieceRecord]], pieces: Path
) -> dict[str, npt.NDArray[np.bool_]]:
    keys = {domain: _load_rows(domain_records, pieces)["key"].copy() for domain, domain_records in records.items()}
    copies = find_copies(np.concatenate(list(keys.values())))
    bounds = np.cumsum([len(domain_keys) for domain_keys in keys.values()])[:-1]
    return dict(zip(keys, np.split(copies, bounds), strict=True))


def _count(records: Sequence[PieceRecord], dropped: npt.NDArray[np.bool_]) -> DomainCounts:
    return DomainCounts(
        read=sum(record.read for record in records),
        short=sum(record.short for record in records),
        duplicates=int(dropped.sum()),
        errors=sum(len(record.problems) for record in records),
    )


def _explain(counts: DomainCounts) -> str:
    return (
        f"of {counts.read} read, {counts.short} were too short, {counts.duplicates} duplicates, "
        f"{counts.errors} unreadable"
    )


def _cut_shards(
    prefix: str,
    chosen: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int64],
    records: Sequence[PieceRecord],
    shard_tokens: int,
) -> list[ShardTask]:
    """Fill shards in reading order up to ``shard_tokens``; a longer document gets one of its own."""
    documents = np.flatnonzero(chosen)
    ends = np.cumsum(lengths[documents])
    bounds = np.cumsum([0, *(record.documents for record in records)])
    tasks: list[ShardTask] = []
    start = 0
    while start < len(documents):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + shard_tokens, side="right")))
        sources = tuple(_by_piece(documents[start:stop], bounds, records))
        tasks.append(ShardTask(f"{prefix}-{len(tasks):05d}", sources))
        start = stop
    return tasks


def _by_piece(
    documents: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64], records: Sequence[PieceRecord]
) -> Iterator[tuple[str, Runs]]:
    """Yield each piece's documents as runs of neighbours."""
    edges = np.searchsorted(documents, bounds)
    for index in np.flatnonzero(np.diff(edges)).tolist():
        inside = documents[edges[index] : edges[index + 1]] - bounds[index]
        breaks = np.flatnonzero(np.diff(inside) != 1) + 1
        firsts = inside[np.concatenate(([0], breaks))]
        lasts = inside[np.concatenate((breaks - 1, [len(inside) - 1]))] + 1
        yield records[index].name, tuple(zip(firsts.tolist(), lasts.tolist(), strict=True))

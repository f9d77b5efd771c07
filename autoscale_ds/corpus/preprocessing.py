"""Text to a corpus folder: units of work, pieces, shards, and last of all ``corpus.json``.

Two passes. The first reads and tokenises each unit into pieces (``pieces``); the second decides from their keys what is
kept, held out and where shards end, and copies tokens into place (``packing``). The bytes of the result depend on the
settings and the input alone. What is finished is never done again: a rerun finds pieces and shards by what they were
made from. Memory: a few MiB of text a worker, its longest document, or, of a large compressed file, a few times
``piece_megabytes``; the plan takes 32 bytes a document. None of it grows with the corpus but the plan.

What is kept beside the shards: ``tokenizer.json``, ``preprocessing.json`` (settings, input digests, counts) and, where
documents were skipped, ``errors.jsonl`` with file, line and reason of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.disk import exclusive, told_when_writing_fails
from autoscale_ds.corpus.folder import (
    ERRORS_NAME,
    REPORT_NAME,
    WORK_NAME,
    differences,
    digests,
    remove_corpus,
    remove_leftovers,
    write_errors,
)
from autoscale_ds.corpus.inputs import Unit, domain_units
from autoscale_ds.corpus.manifest import MANIFEST_NAME, Manifest, ShardInfo
from autoscale_ds.corpus.packing import DomainCounts, ShardMaker, ShardTask, plan_shards
from autoscale_ds.corpus.pieces import PieceMaker, PieceRecord, PieceTask
from autoscale_ds.corpus.reading import sample_documents
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.tokenizers import TOKENIZER_FILE, TextTokenizer, load_tokenizer, train_tokenizer
from autoscale_ds.corpus.workers import Pool, Team, usable_cores
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_atomic, write_json

# Text on which gigatoken must agree with tokenizers, over all domains: a tenth of a second of the slower one.
_CHECK_BYTES = 1 << 18
# A compressed file above this is read by the parent for all workers, when a worker alone would keep the others waiting.
_STREAM_BYTES = 16 << 20


class Listener:
    """Receives progress and messages; the methods do nothing unless overridden."""

    def notice(self, text: str) -> None:
        """Something the user should know, in one line."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """``stage`` is ``tokenising`` (bytes of input) or ``writing`` (shards)."""


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes
    ----------
    manifest : Manifest
        What ``corpus.json`` holds.
    counts : mapping of str to DomainCounts
        Documents read, too short, duplicate and unreadable, by domain.
    input_bytes : int
        Size of the input on disk.
    backend : str
        ``gigatoken`` or ``tokenizers``.
    already_complete : bool
        The corpus was finished before, by the same settings from the same input; nothing was done.
    """

    manifest: Manifest
    counts: Mapping[str, DomainCounts]
    input_bytes: int
    backend: str
    already_complete: bool = False


@dataclass(frozen=True)
class _Plan:
    """The plan of the work: made by rank 0, sent to every rank."""

    units: dict[str, list[Unit]]
    report: dict[str, Any]
    tokenizer: TextTokenizer


def preprocess(
    settings: PreprocessSettings, listener: Listener | None = None, team: Team | None = None, overwrite: bool = False
) -> Summary | None:
    """Make the corpus that ``settings`` describe, or go on with it where an earlier run ended.

    Parameters
    ----------
    settings : PreprocessSettings
        What to read, how, and where to write.
    listener : Listener or None
        Receives progress; None is silent.
    team : Team or None
        The ranks that share the work; every rank calls this function. Rank 0 returns the summary, others None.
    overwrite : bool
        Remove what is in the output folder first, if preprocessing made it.

    Raises
    ------
    CorpusError
        For input that cannot be read (with ``on_error: stop``), a disk that cannot be written, or a folder that holds
        a finished corpus made otherwise.
    """
    listener, team = listener or Listener(), team or Team()
    folder = Path(settings.output)
    with contextlib.ExitStack() as held:
        team.first(lambda: held.enter_context(exclusive(folder / WORK_NAME / "lock")))
        plan = team.first(lambda: _make_plan(settings, listener, overwrite))
        if isinstance(plan, Summary):
            return plan if team.rank == 0 else None
        return _Run(settings, plan, listener, team).run()


class _Run:
    """One rank's part of the work."""

    def __init__(self, settings: PreprocessSettings, plan: _Plan, listener: Listener, team: Team) -> None:
        self.settings = settings
        self.plan = plan
        self.listener = listener
        self.team = team
        self.folder = Path(settings.output)
        work = self.folder / WORK_NAME
        self.tokenizer = plan.tokenizer
        self.pieces = PieceMaker(
            work / "pieces",
            self.tokenizer,
            min_characters=settings.min_characters,
            seed=settings.seed,
            piece_bytes=settings.piece_bytes,
            stop_on_error=settings.on_error == "stop",
        )
        self.shards = ShardMaker(self.folder, self.pieces.folder, work / "shards", self.tokenizer.dtype)
        self.workers = settings.workers or (usable_cores() if team.size == 1 else 1)

    def run(self) -> Summary | None:
        """Do both passes; rank 0 publishes the manifest and returns the summary."""
        with Pool(self._work, self.workers) as pool:
            self.team.everyone(lambda: self._make_pieces(pool))
            tasks, counts = self.team.first(self._plan_shards)
            written = self.team.everyone(lambda: self._make_shards(pool, tasks))
        shards = {info.prefix: info for part in written for info in part}
        summary = self.team.first(lambda: self._publish(tasks, counts, shards))
        return summary if self.team.rank == 0 else None

    def _work(self, task: PieceTask | ShardTask) -> ShardInfo | None:
        if isinstance(task, ShardTask):
            return self.shards.make(task)
        self.pieces.make(task)
        return None

    def _make_pieces(self, pool: Pool) -> None:
        # Largest first, so that no worker starts a long unit when the others are about to end.
        every = sorted({unit: None for units in self.plan.units.values() for unit in units}, key=lambda u: -u.size)
        mine = self.team.share(every)
        total = sum(unit.size for unit in mine)
        todo = [unit for unit in mine if not self.pieces.is_done(unit)]
        done = total - sum(unit.size for unit in todo)
        self.listener.progress("tokenising", done, total)
        for task, _ in pool.map(self._piece_tasks(todo)):
            done += task.unit.size if task.chunk is None else 0
            self.listener.progress("tokenising", done, total)
            self.team.check()

    def _piece_tasks(self, units: Sequence[Unit]) -> Iterator[PieceTask]:
        fair_share = sum(unit.size for unit in units) / self.workers
        for unit in units:
            if unit.chunked and self.workers > 1 and unit.size > max(fair_share / 2, _STREAM_BYTES):
                yield from (PieceTask(unit, chunk) for chunk in self.pieces.chunks(unit))
            else:
                yield PieceTask(unit)

    def _records(self) -> dict[str, list[PieceRecord]]:
        return {
            domain: [record for unit in units for record in self.pieces.records(unit)]
            for domain, units in self.plan.units.items()
        }

    def _plan_shards(self) -> tuple[dict[str, dict[str, list[ShardTask]]], dict[str, DomainCounts]]:
        records = self._records()
        problems = [problem for pieces in records.values() for piece in pieces for problem in piece.problems]
        if problems and self.settings.on_error == "stop":  # skipped by an earlier run with the other policy
            raise CorpusError(f"{problems[0]}; --on-error skip counts and reports such documents instead")
        return plan_shards(records, self.pieces.folder, self.settings)

    def _make_shards(self, pool: Pool, tasks: Mapping[str, Mapping[str, list[ShardTask]]]) -> list[ShardInfo]:
        mine = self.team.share([task for splits in tasks.values() for split in splits.values() for task in split])
        written = []
        for _, info in pool.map(mine):
            written.append(info)
            self.listener.progress("writing", len(written), len(mine))
            self.team.check()
        return written

    def _publish(
        self,
        tasks: Mapping[str, Mapping[str, list[ShardTask]]],
        counts: dict[str, DomainCounts],
        shards: Mapping[str, ShardInfo],
    ) -> Summary:
        domains = {
            domain: {split: tuple(shards[task.prefix] for task in part) for split, part in splits.items()}
            for domain, splits in tasks.items()
        }
        manifest = Manifest(self.tokenizer.info, domains)
        report = {**self.plan.report, "counts": {domain: asdict(count) for domain, count in counts.items()}}
        with told_when_writing_fails(self.folder / MANIFEST_NAME):
            write_atomic(self.folder / TOKENIZER_FILE, self.tokenizer.json_text)
            write_errors(self.folder / ERRORS_NAME, self._records())
            write_json(self.folder / REPORT_NAME, report)
            remove_leftovers(self.folder, set(shards))
            manifest.save(self.folder)
            shutil.rmtree(self.folder / WORK_NAME)
        size = sum(unit.size for units in self.plan.units.values() for unit in units)
        return Summary(manifest, counts, size, self.tokenizer.backend.name)


def _make_plan(settings: PreprocessSettings, listener: Listener, overwrite: bool) -> _Plan | Summary:
    folder = Path(settings.output)
    if overwrite:
        remove_corpus(folder)
    units = {domain: domain_units(source, settings.piece_bytes) for domain, source in settings.domains.items()}
    report = {"version": 1, "settings": settings.effective(), "inputs": digests(units)}
    if (folder / MANIFEST_NAME).exists():
        return _existing(folder, report, units, settings)
    tokenizer = _tokenizer(settings, units, folder / WORK_NAME)
    for name in ("pieces", "shards"):
        with told_when_writing_fails(folder):
            (folder / WORK_NAME / name).mkdir(parents=True, exist_ok=True)
    if settings.gigatoken and (reason := tokenizer.use_gigatoken(_check_sample(units))) is not None:
        listener.notice(f"{reason}; using tokenizers, about fifteen times slower")
    return _Plan(units, report, tokenizer)


def _existing(
    folder: Path, report: dict[str, Any], units: Mapping[str, Sequence[Unit]], settings: PreprocessSettings
) -> Summary:
    """Return the summary of a finished corpus if it is the one asked for; else refuse, naming what differs."""
    manifest = Manifest.load(folder)
    try:
        old = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
        changes = list(differences(old, report))
    except (OSError, ValueError, KeyError):
        changes = [f"it has no readable {REPORT_NAME}"]
    with contextlib.suppress(CorpusError):  # the hub cannot be reached: take the tokenizer as unchanged
        if settings.train_tokenizer is None:
            loaded = load_tokenizer(settings.tokenizer, settings.end_of_document)
            changes += ["the tokenizer changed"] if loaded.info.sha256 != manifest.tokenizer.sha256 else []
    if changes:
        raise CorpusError(
            f"{folder} holds a finished corpus made otherwise ({changes[0]}); "
            "choose another --output, or --overwrite it"
        )
    shutil.rmtree(folder / WORK_NAME, ignore_errors=True)  # left by a run that was killed between its last two steps
    counts = {domain: DomainCounts(**count) for domain, count in old["counts"].items()}
    size = sum(unit.size for domain in units.values() for unit in domain)
    return Summary(manifest, counts, size, "", already_complete=True)


def _tokenizer(settings: PreprocessSettings, units: Mapping[str, Sequence[Unit]], work: Path) -> TextTokenizer:
    if settings.train_tokenizer is None:
        return load_tokenizer(settings.tokenizer, settings.end_of_document)
    size, budget = settings.train_tokenizer, int(settings.train_megabytes * 2**20)
    basis = json.dumps([size, budget, digests(units)])
    kept = work / f"tokenizer-{hashlib.sha256(basis.encode()).hexdigest()}.json"
    if kept.exists():
        return TextTokenizer(f"trained-bpe-{size}", kept.read_text(encoding="utf-8"))
    sample = (document for domain in units.values() for document in sample_documents(domain, budget))
    tokenizer = train_tokenizer(sample, size)
    with told_when_writing_fails(kept):
        write_atomic(kept, tokenizer.json_text)
    return tokenizer


def _check_sample(units: Mapping[str, Sequence[Unit]]) -> Iterator[bytes]:
    """Yield the beginnings of documents of every domain."""
    share = _CHECK_BYTES // len(units)
    for domain in units.values():
        for document in sample_documents(domain[:1], share):
            yield document[: 1 << 14].decode(errors="ignore").encode()

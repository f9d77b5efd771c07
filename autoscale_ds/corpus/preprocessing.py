"""Text to a corpus folder: units of work, pieces, shards, and last of all ``corpus.json``.

Two passes. The first reads and tokenises each unit into pieces (``pieces``); the second decides from their keys what
is kept, held out and where shards end, and copies tokens into place (``packing``). When all is there, it takes the
place of what the folder held (``publication``). The bytes of the result depend on the settings and the input alone.
What is finished is never done again: a rerun finds pieces and shards by what they were made from. Memory: a few MiB
of text a worker, its longest document, or, of a large compressed file, a few times ``piece_megabytes``; the plan
takes 32 bytes a document. None of it grows with the corpus but the plan.

What is kept beside the shards: ``tokenizer.json``, ``preprocessing.json`` (settings, input digests, counts) and, where
documents were skipped, ``errors.jsonl`` with file, line and reason of each.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from autoscale_ds.corpus.disk import exclusive, told_when_writing_fails
from autoscale_ds.corpus.folder import write_errors
from autoscale_ds.corpus.indexed import shard_files
from autoscale_ds.corpus.inputs import Unit
from autoscale_ds.corpus.manifest import MANIFEST_NAME, Manifest, ShardInfo
from autoscale_ds.corpus.packing import DomainCounts, ShardMaker, ShardTask, plan_shards
from autoscale_ds.corpus.pieces import PieceMaker, PieceRecord, PieceTask
from autoscale_ds.corpus.plan import Listener, Plan, Summary, make_plan
from autoscale_ds.corpus.publication import (
    BUILD_NAME,
    ERRORS_NAME,
    LOCK_NAME,
    REPORT_NAME,
    WORK_NAME,
    publish,
    refuse_foreign,
    shard_digests,
)
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.tasks import task_prefixes, write_task
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE
from autoscale_ds.corpus.workers import Pool, SharedSum, Team, usable_cores
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_atomic, write_json

# A compressed file above this is read by the parent for all workers, when a worker alone would keep the others waiting.
_STREAM_BYTES = 16 << 20


def preprocess(
    settings: PreprocessSettings,
    listener: Listener | None = None,
    team: Team | None = None,
    overwrite: bool = False,
    remove_first: bool = False,
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
        Replace the corpus in the output folder, which stays whole until the new one is complete.
    remove_first : bool
        With ``overwrite``: remove the old one before, where the disk has no room for both.

    Raises
    ------
    CorpusError
        For input that cannot be read (with ``on_error: stop``), a disk that cannot be written, or a folder that holds
        a finished corpus made otherwise.
    """
    listener, team = listener or Listener(), team or Team()
    folder = Path(settings.output)
    with contextlib.ExitStack() as held:
        if not _finished_and_read_only(folder) or overwrite:
            team.first(lambda: held.enter_context(exclusive(folder / WORK_NAME / LOCK_NAME)))
        plan = team.first(lambda: make_plan(settings, listener, overwrite, remove_first))
        if isinstance(plan, Summary):
            return plan if team.rank == 0 else None
        return _Run(settings, plan, listener, team).run()


def _finished_and_read_only(folder: Path) -> bool:
    """Return whether there is a corpus where nobody can write, which needs no lock to be compared."""
    return (folder / MANIFEST_NAME).is_file() and not os.access(folder, os.W_OK)


class _Run:
    """One rank's part of the work."""

    def __init__(self, settings: PreprocessSettings, plan: Plan, listener: Listener, team: Team) -> None:
        self.settings = settings
        self.plan = plan
        self.listener = listener
        self.team = team
        self.folder = Path(settings.output)
        self.build = self.folder / BUILD_NAME
        work = self.folder / WORK_NAME
        self.tokenizer = plan.tokenizer
        self.workers = settings.workers or (usable_cores() if team.size == 1 else 1)
        self.bytes_read = SharedSum(self.workers)
        self.pieces = PieceMaker(
            work / "pieces",
            self.tokenizer,
            min_characters=settings.min_characters,
            seed=settings.seed,
            piece_bytes=settings.piece_bytes,
            stop_on_error=settings.on_error == "stop",
            on_read=self.bytes_read.add,
        )
        self.shards = ShardMaker(self.build, self.pieces.folder, work / "shards", self.tokenizer.dtype)

    def run(self) -> Summary | None:
        """Do both passes; rank 0 publishes the manifest and returns the summary."""
        with Pool(self._work, self.workers, self.bytes_read) as pool:
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

        def show() -> None:
            self.listener.progress("tokenising", done + self.bytes_read.total(), total)

        show()
        for _ in pool.map(self._piece_tasks(todo), show):
            show()
            self.team.check()
        show()

    def _piece_tasks(self, units: Sequence[Unit]) -> Iterator[PieceTask]:
        fair_share = sum(unit.size for unit in units) / self.workers
        for unit in units:
            # Alone, this process would show nothing of its progress before the end of a unit.
            if unit.chunked and (self.workers == 1 or unit.size > max(fair_share / 2, _STREAM_BYTES)):
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
        tasks, counts = plan_shards(records, self.pieces.folder, self.settings)
        prefixes = [task.prefix for splits in tasks.values() for part in splits.values() for task in part]
        prefixes += [prefix for name in self.settings.tasks for prefix in task_prefixes(name)]
        refuse_foreign(self.folder, _files_of(prefixes))
        return tasks, counts

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
        parts = {
            name: {split: tuple(shards[task.prefix] for task in part) for split, part in splits.items()}
            for name, splits in tasks.items()
        }
        domains = {name: parts[name] for name in self.settings.domains}
        targets = {name: parts[name]["validation"] for name in self.settings.targets}
        with told_when_writing_fails(self.build):
            completions = {
                name: write_task(self.build, name, source, self.tokenizer)
                for name, source in self.settings.tasks.items()
            }
        manifest = Manifest(self.tokenizer.info, domains, self.tokenizer.made_with, targets, completions)
        report = {
            **self.plan.report,
            "counts": {domain: asdict(count) for domain, count in counts.items()},
            "shards": shard_digests(manifest),
        }
        with told_when_writing_fails(self.build):
            write_atomic(self.build / TOKENIZER_FILE, self.tokenizer.json_text)
            write_json(self.build / REPORT_NAME, report)
            prefixes = [shard.prefix for shard in manifest.shards()]
            files = [*_files_of(prefixes), TOKENIZER_FILE, REPORT_NAME, MANIFEST_NAME]
            files += [ERRORS_NAME] if write_errors(self.build / ERRORS_NAME, self._records()) else []
            manifest.save(self.build)
        publish(self.folder, files)
        size = sum(unit.size for units in self.plan.units.values() for unit in units)
        return Summary(manifest, counts, size, self.tokenizer.backend.name)


def _files_of(prefixes: Iterable[str]) -> list[str]:
    return [str(path) for prefix in prefixes for path in shard_files(Path(prefix))]

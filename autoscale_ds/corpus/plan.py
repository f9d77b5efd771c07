"""What a run of preprocessing is to do: looked at as a whole before anything in the folder is changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.disk import told_when_writing_fails
from autoscale_ds.corpus.folder import differences, digests
from autoscale_ds.corpus.inputs import Unit, corpus_units
from autoscale_ds.corpus.manifest import MANIFEST_NAME, Manifest
from autoscale_ds.corpus.packing import DomainCounts
from autoscale_ds.corpus.publication import (
    BUILD_NAME,
    ERRORS_NAME,
    REPORT_NAME,
    WORK_NAME,
    finish,
    own_files,
    read_report,
    refuse_foreign,
    refuse_foreign_tokenizer,
    remove_own_files,
    shard_digests,
)
from autoscale_ds.corpus.reading import sample_documents
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.tasks import read_task, task_digests
from autoscale_ds.corpus.tokenizers import TextTokenizer, load_tokenizer, train_tokenizer
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_atomic

# Text on which gigatoken must agree with tokenizers, over all domains: a tenth of a second of the slower one.
_CHECK_BYTES, _CHECK_UNITS = 1 << 18, 64


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
class Plan:
    """What is to be done: decided by rank 0, sent to every rank. ``preprocessing.json`` begins with ``report``."""

    units: dict[str, list[Unit]]
    report: dict[str, Any]
    tokenizer: TextTokenizer


def make_plan(settings: PreprocessSettings, listener: Listener, overwrite: bool, remove_first: bool) -> Plan | Summary:
    """Look at everything the work depends on; only then change anything in the folder."""
    folder = Path(settings.output)
    for name in (MANIFEST_NAME, REPORT_NAME, ERRORS_NAME):
        if (folder / name).is_dir():
            raise CorpusError(f"{folder / name} is a folder where preprocessing writes a file; move it away")
    finish(folder)
    skip_broken = settings.on_error == "skip"
    units = corpus_units(settings.inputs, settings.piece_bytes, folder, listener.notice, skip_broken=skip_broken)
    inputs = {**digests(units), **dict(task_digests(settings.tasks))}
    report: dict[str, Any] = {"version": 2, "settings": settings.effective(), "inputs": inputs}
    if (folder / MANIFEST_NAME).exists() and not overwrite:
        return _existing(folder, report, units, settings)
    for source in settings.tasks.values():
        read_task(source)  # what cannot be read is said before hours of work
    tokenizer = _tokenizer(settings, units, folder / WORK_NAME)
    report["tokenizer_files"] = tokenizer.source_digests
    refuse_foreign(folder, [REPORT_NAME, ERRORS_NAME])
    refuse_foreign_tokenizer(folder, tokenizer)
    if tokenizer.dropout:
        listener.notice(f"the tokenizer's BPE dropout ({tokenizer.dropout:g}) is off: ids must not depend on chance")
    if settings.gigatoken and (reason := tokenizer.use_gigatoken(_check_sample(units))) is not None:
        listener.notice(f"{reason}; using tokenizers, about fifteen times slower")
    if overwrite and remove_first:
        remove_own_files(folder)
    elif (folder / MANIFEST_NAME).exists():
        _tell_of_the_old_corpus(folder, listener)
    for name in (f"{WORK_NAME}/pieces", f"{WORK_NAME}/shards", BUILD_NAME):
        with told_when_writing_fails(folder):
            (folder / name).mkdir(parents=True, exist_ok=True)
    return Plan(units, report, tokenizer)


def _tell_of_the_old_corpus(folder: Path, listener: Listener) -> None:
    size = sum((folder / name).stat().st_size for name in own_files(folder))
    if size:
        listener.notice(
            f"the corpus in {folder} ({size / 1e6:,.1f} MB) stays until the new one is complete; "
            "--remove-first removes it before"
        )


def _existing(
    folder: Path, report: dict[str, Any], units: Mapping[str, Sequence[Unit]], settings: PreprocessSettings
) -> Summary:
    """Return the summary of a finished corpus if it is the one asked for; else refuse, naming what differs."""
    manifest = Manifest.load(folder)
    old = read_report(folder)
    try:
        changes = list(differences(old, report))
        if old.get("shards", recorded := shard_digests(manifest)) != recorded:
            changes = [f"its {MANIFEST_NAME} was not written by the run that {REPORT_NAME} tells of"]
    except KeyError:
        changes = [f"it has no readable {REPORT_NAME}"]
    with contextlib.suppress(CorpusError):  # the hub cannot be reached: take the tokenizer as unchanged
        if settings.train_tokenizer is None:
            loaded = load_tokenizer(settings.tokenizer, settings.end_of_document)
            changes += ["the tokenizer changed"] if loaded.info.sha256 != manifest.tokenizer.sha256 else []
            if loaded.info.end_of_document != manifest.tokenizer.end_of_document:
                changes.append(f"documents would end with {loaded.end_name!r} now")
    if changes:
        raise CorpusError(
            f"{folder} holds a finished corpus made otherwise ({changes[0]}); "
            "choose another --output, or --overwrite it"
        )
    counts = {domain: DomainCounts(**count) for domain, count in old["counts"].items()}
    size = sum(unit.size for domain in units.values() for unit in domain)
    return Summary(manifest, counts, size, "", already_complete=True)


def _tokenizer(settings: PreprocessSettings, units: Mapping[str, Sequence[Unit]], work: Path) -> TextTokenizer:
    if settings.train_tokenizer is None:
        return load_tokenizer(settings.tokenizer, settings.end_of_document)
    units = {name: units[name] for name in settings.domains}  # a tokenizer fitted to held-out text would flatter it
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
    """Yield the beginnings of documents of units spread over all domains."""
    every = [unit for domain in units.values() for unit in domain]
    chosen = every[:: max(1, len(every) // _CHECK_UNITS)][:_CHECK_UNITS]
    for unit in chosen:
        for document in sample_documents([unit], _CHECK_BYTES // len(chosen)):
            yield document[: 1 << 14].decode(errors="ignore").encode()

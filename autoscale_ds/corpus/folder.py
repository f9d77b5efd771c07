"""The files of a corpus folder beside the shards: written, compared and removed here."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.indexed import shard_files
from autoscale_ds.corpus.inputs import Unit
from autoscale_ds.corpus.manifest import MANIFEST_NAME, Manifest
from autoscale_ds.corpus.pieces import PieceRecord
from autoscale_ds.corpus.tokenizers import TOKENIZER_FILE
from autoscale_ds.files import write_atomic

REPORT_NAME = "preprocessing.json"
ERRORS_NAME = "errors.jsonl"
WORK_NAME = ".work"


def digests(units: Mapping[str, Sequence[Unit]]) -> dict[str, dict[str, Any]]:
    """Return files, bytes and a digest of (path, size, time of change) of each domain's input."""
    result = {}
    for domain, domain_units_ in units.items():
        files = {span.path: (span.size, span.changed) for unit in domain_units_ for span in unit.spans}
        digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        result[domain] = {"files": len(files), "bytes": sum(size for size, _ in files.values()), "digest": digest}
    return result


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield, in words, what two reports do not have in common: settings first, then inputs."""
    # As JSON, since that is how the old report went to disk.
    settings = json.loads(json.dumps(new["settings"]))
    for name, value in settings.items():
        before = old["settings"].get(name)
        if name == "domains" and list(before or {}) != list(value):
            yield f"domains were {', '.join(before or {})}, now {', '.join(value)}"
        elif before != value:
            yield f"{name} was {before!r:.100}, now {value!r:.100}"
    for domain, digest in new["inputs"].items():
        if old["inputs"].get(domain) != digest:
            yield f"the input files of {domain} changed"


def write_errors(path: Path, records: Mapping[str, Iterable[PieceRecord]]) -> None:
    """Write a JSON line a problem, or make sure that there is no file when there is no problem."""
    lines = [
        json.dumps({"domain": domain, **asdict(problem)}, ensure_ascii=False)
        for domain, pieces in records.items()
        for piece in pieces
        for problem in piece.problems
    ]
    if lines:
        write_atomic(path, "\n".join(lines) + "\n")
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, prefixes: set[str]) -> None:
    """Remove shards that an interrupted run with other settings finished, and the partial files of killed ones."""
    for record in (folder / WORK_NAME / "shards").glob("*.json"):
        prefix = record.stem.replace("--", "/")
        if prefix not in prefixes:
            _remove_shard(folder / prefix)
    for pattern in ("*/*-[0-9]*.partial.*", ".*.partial"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def remove_corpus(folder: Path) -> None:
    """Remove the files that preprocessing makes, the manifest first; other files stay."""
    shards = []
    if (folder / MANIFEST_NAME).exists():
        manifest = Manifest.load(folder)
        shards = [shard.prefix for splits in manifest.domains.values() for split in splits.values() for shard in split]
    names = (MANIFEST_NAME, REPORT_NAME, ERRORS_NAME, TOKENIZER_FILE)
    if shards and not (folder / REPORT_NAME).exists():
        shards = []  # adopted shards belong to their maker and stay
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for prefix in shards:
        _remove_shard(folder / prefix)
    for child in (folder / WORK_NAME).glob("*"):
        if child.is_dir():
            shutil.rmtree(child)


def _remove_shard(prefix: Path) -> None:
    for path in shard_files(prefix):
        path.unlink(missing_ok=True)

"""The files of a corpus folder beside the shards: what they hold, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.inputs import Unit
from autoscale_ds.corpus.manifest import MEASURED
from autoscale_ds.corpus.pieces import PieceRecord
from autoscale_ds.files import write_atomic


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
        if name in ("domains", *MEASURED):
            before = before or {}  # corpora made before there were targets say nothing of them
            if list(before) != list(value):
                yield f"{name} were {', '.join(before) or 'none'}, now {', '.join(value) or 'none'}"
                continue
        if before != value:
            yield f"{name} was {before!r:.100}, now {value!r:.100}"
    for domain, digest in new["inputs"].items():
        if old["inputs"].get(domain) != digest:
            yield f"the input files of {domain} changed"


def write_errors(path: Path, records: Mapping[str, Iterable[PieceRecord]]) -> bool:
    """Write a JSON line a problem, if there is any; tell whether there was."""
    lines = [
        json.dumps({"domain": domain, **asdict(problem)}, ensure_ascii=False)
        for domain, pieces in records.items()
        for piece in pieces
        for problem in piece.problems
    ]
    if lines:
        write_atomic(path, "\n".join(lines) + "\n")
    return bool(lines)

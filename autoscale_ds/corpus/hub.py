"""Hugging Face datasets: opened from a folder, the hub or its cache; and whether the hub can be reached.

Compute nodes often cannot reach the hub, and its client retries for long before it says so.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.documents import first_line_of
from autoscale_ds.errors import CorpusError

_ENDPOINT = "https://huggingface.co"


@functools.cache
def hub_obstacle() -> str | None:
    """Return why the hub cannot be reached, or None when it can (or only a proxy could tell)."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    if urllib.request.getproxies():
        return None
    address = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", _ENDPOINT))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), timeout=5).close()
    except OSError as error:
        return f"{address.hostname}: {error.strerror or error}"
    return None


@dataclass(frozen=True)
class OpenedDataset:
    """A dataset, and what its files were like when it was opened: (path, size, time of change) of each."""

    name: str
    rows: Any
    files: tuple[tuple[str, int, int], ...]

    def check_unchanged(self, planned: str) -> None:
        """Raise CorpusError if a file changed: what was mapped into memory is then neither the old nor the new.

        ``planned`` is the fingerprint at the time of the plan, which a folder keeps and the hub's cache may not.
        """
        changed = next((old[0] for old, now in zip(self.files, _status(self.rows), strict=True) if old != now), None)
        if changed is None and Path(self.name).is_dir() and self.rows._fingerprint != planned:
            changed = "its fingerprint"
        if changed is not None:
            raise CorpusError(
                f"dataset {self.name}: {changed} changed while it was read; wait until it is written, then run the "
                "same command again"
            )


@functools.lru_cache(maxsize=4)
def open_dataset(name: str, split: str, subset: str | None) -> OpenedDataset:
    """Open a dataset saved with ``save_to_disk``, or one of the Hugging Face hub (or of its local cache)."""
    rows = _open(name, split, subset)
    return OpenedDataset(name, rows, _status(rows))


@dataclass(frozen=True)
class OpenedStream:
    """A dataset that is read file by file where it lies; ``identity`` changes with its files or the hub's revision."""

    rows: Any
    identity: str


@functools.lru_cache(maxsize=4)
def open_stream(name: str, split: str, subset: str | None) -> OpenedStream:
    """Open a dataset of the hub, or a folder of data files, without a copy on the local disk."""
    obstacle = None if Path(name).is_dir() else hub_obstacle()
    if obstacle is not None:
        raise CorpusError(
            f"cannot stream dataset {name}: {obstacle}; without the hub, give a folder of its data files, or leave "
            "streaming out and give a folder written by save_to_disk"
        )
    import datasets

    try:
        builder = datasets.load_dataset_builder(name, subset)
        rows = builder.as_streaming_dataset(split=split)
    except Exception as error:  # the hub's client raises many undocumented exceptions
        raise CorpusError(f"cannot stream dataset {name}: {first_line_of(error)}") from None
    files = (builder.config.data_files or {}).get(split)
    origin = (builder.hash, list(files or ()), getattr(files, "origin_metadata", None))
    return OpenedStream(rows, hashlib.sha256(repr(origin).encode()).hexdigest())


def _status(rows: Any) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of change of a dataset's files, -1 for one that is gone."""
    result = []
    for path in sorted({file["filename"] for file in rows.cache_files}):
        try:
            status = os.stat(path)
            result.append((path, status.st_size, status.st_mtime_ns))
        except OSError:
            result.append((path, -1, -1))
    return tuple(result)


def _open(name: str, split: str, subset: str | None) -> Any:
    obstacle = None if Path(name).is_dir() else hub_obstacle()
    if obstacle is not None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when `datasets` is imported: it uses its cache, without retries
    import datasets

    datasets.disable_progress_bars()
    try:
        if not Path(name).is_dir():
            return datasets.load_dataset(name, subset, split=split)
        saved = datasets.load_from_disk(name)
        return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    except KeyError:
        raise CorpusError(f"dataset {name} has no split {split!r}; it holds: {', '.join(saved)}") from None
    except Exception as error:  # the hub's client raises many undocumented exceptions
        raise CorpusError(
            f"cannot open dataset {name}: {obstacle or first_line_of(error)}; "
            "without the hub, give a folder written by save_to_disk"
        ) from None

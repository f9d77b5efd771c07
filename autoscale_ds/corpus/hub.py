"""Hugging Face datasets: opened from a folder, the hub or its cache; and whether the hub can be reached.

Compute nodes often cannot reach the hub, and its client retries for long before it says so.
"""

from __future__ import annotations

import functools
import os
import socket
import urllib.parse
import urllib.request
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


@functools.lru_cache(maxsize=4)
def open_dataset(name: str, split: str, subset: str | None) -> Any:
    """Open a dataset saved with ``save_to_disk``, or one of the Hugging Face hub (or of its local cache)."""
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

"""Whether the Hugging Face hub can be asked at all: compute nodes often cannot, and its client retries for long."""

from __future__ import annotations

import functools
import os
import socket
import urllib.parse
import urllib.request

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

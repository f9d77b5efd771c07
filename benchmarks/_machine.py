"""What a measurement was taken on, and where its result is kept.

A script in this folder must drop its own folder from ``sys.path`` before any other import: Python puts it there first,
and ``benchmarks/tokenize.py`` would then stand in for the standard library's ``tokenize`` (``linecache``, ``inspect``
and torch import it). These lines at the top of a script do it, and make this module importable::

    import sys
    from pathlib import Path

    sys.path.pop(0)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    from benchmarks._machine import describe, write_result
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from autoscale_ds.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"


def describe(*packages: str) -> dict[str, Any]:
    """Return processor, usable cores, memory (GiB), accelerators, Python, and the versions of ``packages``."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerators": _accelerators(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/<name>.json`` and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, result)
    return path


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerators() -> list[str]:
    """Name the GPUs without importing torch, which would cost a CPU benchmark seconds and memory."""
    names = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = path.read_text(encoding="utf-8").splitlines()
        names += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model")]
    return names


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

"""What a checkpoint holds besides the model: ``run.json``, versioned and typed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoscale_ds.errors import CheckpointError, VersionError

VERSION = 1
_CHECKSUM = "crc32"


@dataclass(frozen=True)
class RunState:
    """State of a run at a checkpoint.

    Attributes
    ----------
    stream : mapping
        ``MixturePlanner.state()`` of the last consumed batch; its ``step`` names the checkpoint.
    journal : sequence of mapping
        Copy of the events accepted so far.
    tokens : int
        Tokens consumed.
    interval : mapping or None
        Sums since the last log line.
    decided_step : int
        Last step at which the controller was asked.
    controller : mapping or None
        Name and own state of the controller, see ``Adviser.state``; None in checkpoints from before it was kept.
    layout : mapping or None
        What the files depend on besides the model, see ``parallel_rules.record``.
    updates : int
        Optimizer updates done; left-out ones do not count.
    files : mapping of str to int
        Bytes of every file of the checkpoint.
    checksums : mapping of str to str
        CRC-32 of its files by path; without those of checkpoints from before they were made.
    """

    stream: Mapping[str, Any]
    journal: Sequence[Mapping[str, Any]]
    tokens: int
    interval: Mapping[str, Any] | None = None
    decided_step: int = 0
    controller: Mapping[str, Any] | None = None
    layout: Mapping[str, Any] | None = None
    updates: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.stream["step"])

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``run.json``, with a checksum of them."""
        raw = {"version": VERSION, **asdict(self)}
        return {**raw, _CHECKSUM: _checksum(raw)}

    @classmethod
    def from_json(cls, raw: Any, path: Path) -> RunState:
        """Return the state in a ``run.json``; files written before versions were counted are version 1.

        Raises
        ------
        CheckpointError
            For another version, a value that is missing, or one that is not as it was written.
        """
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path} holds {type(raw).__name__}, expected the state of a run")
        version = raw.get("version", 1)
        if version != VERSION:
            raise VersionError(
                f"{path} has version {version!r}, this program reads version {VERSION}; continue the run with the "
                "program that wrote it"
            )
        if _CHECKSUM in raw and raw[_CHECKSUM] != _checksum({k: v for k, v in raw.items() if k != _CHECKSUM}):
            raise CheckpointError(f"{path} is damaged: its values do not have the checksum they were written with")
        values = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        if isinstance(values.get("interval"), dict):
            values["interval"] = _by_name(values["interval"], raw)
        values.setdefault("decided_step", raw.get("asked", 0))  # its name before versions were counted
        for name, kinds in _TYPES.items():
            if not isinstance(values.get(name, _DEFAULTS.get(name)), kinds):
                raise CheckpointError(
                    f"{path} has {values.get(name)!r:.60} as {name!r}, so the run cannot be continued from it"
                )
        return cls(**values)


def _checksum(raw: Mapping[str, Any]) -> str:
    """Return the CRC-32 of the values; numbers are written so that they are read back exactly."""
    return f"{zlib.crc32(json.dumps(raw, sort_keys=True).encode()):08x}"


def _by_name(interval: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return interval sums by domain; checkpoints from before they were named hold them in the order of the names."""
    names = sorted(raw["stream"]["cursors"]) if isinstance(raw.get("stream"), dict) else []
    return {
        key: dict(zip(names, values, strict=True)) if isinstance(values, list) else values
        for key, values in interval.items()
    }


_NONE = type(None)
_DEFAULTS: dict[str, Any] = {"decided_step": 0, "updates": 0, "checksums": {}}
_TYPES: dict[str, tuple[type, ...]] = {
    "stream": (dict,),
    "journal": (list,),
    "tokens": (int,),
    "interval": (dict, _NONE),
    "decided_step": (int,),
    "controller": (dict, _NONE),
    "layout": (dict, _NONE),
    "updates": (int,),
    "files": (dict,),
    "checksums": (dict,),
}

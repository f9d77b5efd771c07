"""Where a run folder keeps what other programs read: no torch is needed to find it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Paths inside a run folder.

    Attributes
    ----------
    path : Path
        The run folder; it need not exist.
    """

    path: Path

    @property
    def journal(self) -> Path:
        """Accepted changes of the weights, one JSON line each."""
        return self.path / "mixture" / "journal.jsonl"

    @property
    def metrics(self) -> Path:
        """Records of training and validation, one JSON line each."""
        return self.path / "metrics.jsonl"

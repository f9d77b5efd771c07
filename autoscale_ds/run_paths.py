"""Where a run folder keeps what other programs read: no torch is needed to find it."""

from __future__ import annotations

from pathlib import Path


class RunPaths:
    """Paths inside a run folder.

    Parameters
    ----------
    path : str or Path
        The run folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def journal(self) -> Path:
        """Accepted changes of the weights, one JSON line each."""
        return self.path / "mixture" / "journal.jsonl"

    @property
    def metrics(self) -> Path:
        """Records of training and validation, one JSON line each."""
        return self.path / "metrics.jsonl"

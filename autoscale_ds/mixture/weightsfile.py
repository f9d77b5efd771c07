"""weights.json: weights with the budget they are for, their source and their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.jsonfiles import Field, read_json, write_or_say
from autoscale_ds.mixture.weights import DomainWeights


@dataclass(frozen=True)
class WeightsFile:
    """What ``swap_weights.py --weights`` takes.

    Attributes
    ----------
    weights : DomainWeights
        The mixture.
    tokens : float or None
        The training budget they are meant for, tokens.
    source : str
        How they were found, one line.
    intervals : mapping of str to (low, high)
        90 % interval of each weight; empty when unknown.
    """

    weights: DomainWeights
    tokens: float | None = None
    source: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> WeightsFile:
        """Read a weights file, or a bare JSON mapping of domain to weight."""
        raw = read_json(path)
        if not isinstance(raw, dict) or not raw:
            raise MixtureError(f'{path} holds no weights; expected {{"weights": {{domain: weight}}}}')
        weights = raw["weights"] if isinstance(raw.get("weights"), dict) else raw
        try:
            checked = DomainWeights(weights)
        except MixtureError as error:
            raise MixtureError(f"{path}: {error}") from None
        if weights is raw:
            return cls(checked)
        file = Field(raw)
        try:
            tokens = None if raw.get("tokens") is None else file["tokens"].number(above=0)
            known = file["intervals"].mapping() if raw.get("intervals") else {}
            intervals = {name: _interval(ends) for name, ends in known.items()}
            if odd := sorted(set(intervals) - set(checked)):
                raise ValueError(f"intervals has {odd[0]!r}, which weights has not")
        except ValueError as error:
            raise MixtureError(f"{path} is damaged: {error}; write it again, or leave the field out") from None
        return cls(checked, tokens, str(raw.get("source", "")), intervals)

    def expanded(self, bundle: Bundle | None) -> WeightsFile:
        """Return the file with the parts of a virtual domain in its place."""
        if bundle is None:
            return self
        return replace(self, weights=bundle.expanded(self.weights), intervals=bundle.intervals(self.intervals))

    def write(self, path: str | Path) -> None:
        """Write the file atomically."""
        write_or_say(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "weights": self.weights.as_dict(),
            "tokens": self.tokens,
            "source": self.source,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
        }


def _interval(field: Field) -> tuple[float, float]:
    ends = [end.number(least=0) for end in field.items()]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise field.wrong("two numbers, the smaller first")
    return ends[0], ends[1]

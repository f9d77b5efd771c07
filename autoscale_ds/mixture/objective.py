"""What is minimised: one number from the losses of several targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.jsonfiles import read_json
from autoscale_ds.mixture.table import RunTable

KINDS = ("mean-perplexity", "mean-loss", "weighted-loss", "bits-per-byte")


@dataclass(frozen=True)
class Objective:
    """A weighted mean over targets, of losses or of perplexities.

    Attributes
    ----------
    weights : mapping of str to float
        Target to weight; positive somewhere, normalised when applied.
    perplexity : bool
        Mean of ``exp(loss)`` instead of losses. High-perplexity targets then dominate.
    name : str
        How the objective is called in messages and files.
    """

    weights: Mapping[str, float]
    perplexity: bool = False
    name: str = "mean-loss"

    @classmethod
    def of_kind(
        cls,
        kind: str,
        targets: Sequence[str],
        *,
        weights: Mapping[str, float] | None = None,
        bytes_per_token: Mapping[str, float] | None = None,
    ) -> Objective:
        """Build ``mean-perplexity``, ``mean-loss``, ``weighted-loss`` (needs weights) or ``bits-per-byte``.

        Bits per byte are ``loss / (ln 2 * bytes per token)``, so they need the bytes a token of every target.
        """
        if kind not in KINDS:
            raise MixtureError(f"objective {kind!r} is unknown; choose one of {', '.join(KINDS)}, or give a file")
        if kind == "weighted-loss":
            if weights is None:
                raise MixtureError("objective weighted-loss needs a weight for each target; give them as a JSON file")
            return cls._checked(weights, targets, kind)
        if kind == "bits-per-byte":
            if bytes_per_token is None:
                raise MixtureError("objective bits-per-byte needs the bytes a token of each target; give --corpus DIR")
            return cls._checked({t: 1 / (np.log(2) * bytes_per_token.get(t, np.nan)) for t in targets}, targets, kind)
        return cls(dict.fromkeys(targets, 1.0), kind == "mean-perplexity", kind)

    @classmethod
    def named(cls, text: str, targets: Sequence[str], bytes_per_token: Mapping[str, float] | None = None) -> Objective:
        """Return a kind by its name, or the objective of a JSON file."""
        if text in KINDS:
            return cls.of_kind(text, targets, bytes_per_token=bytes_per_token)
        if not Path(text).exists():
            raise MixtureError(f"objective {text!r} is neither a file nor one of {', '.join(KINDS)}")
        return cls.read(text, targets)

    @classmethod
    def read(cls, path: str | Path, targets: Sequence[str]) -> Objective:
        """Read ``{target: weight}`` or ``{"weights": {target: weight}, "kind": "mean-perplexity"}`` from JSON."""
        raw = read_json(path)
        if not isinstance(raw, dict) or not raw:
            raise MixtureError(f"{path} holds no objective; expected a JSON mapping of target to weight")
        nested = isinstance(raw.get("weights"), dict)
        objective = cls._checked(raw["weights"] if nested else raw, targets, "weighted-loss")
        perplexity = nested and raw.get("kind") == "mean-perplexity"
        return cls(
            objective.weights, perplexity, f"{'perplexity' if perplexity else 'loss'} weighted by {Path(path).name}"
        )

    @classmethod
    def _checked(cls, weights: Mapping[str, Any], targets: Sequence[str], name: str) -> Objective:
        for target, weight in weights.items():
            if target not in targets:
                raise MixtureError(f"objective names target {target!r}; the targets are: {', '.join(targets)}")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < np.inf:
                raise MixtureError(f"objective weight of {target!r} is {weight!r}, expected a number of at least 0")
        if not sum(weights.values()) > 0:
            raise MixtureError("every objective weight is 0; at least one target must count")
        return cls({t: float(w) for t, w in weights.items() if w > 0}, False, name)

    def vector(self, targets: Sequence[str]) -> Array:
        """Return the normalised weights in the order of these targets, shape (k,)."""
        vector = np.array([self.weights.get(name, 0.0) for name in targets])
        if not vector.sum() > 0:
            raise MixtureError(f"none of the objective's targets is known here; known: {', '.join(targets)}")
        return vector / vector.sum()

    def value(self, losses: Array, targets: Sequence[str]) -> Array:
        """Return the objective of losses (..., k), shape (...)."""
        vector = self.vector(targets)
        used = vector > 0  # targets of weight 0 may be missing
        values = np.exp(losses[..., used]) if self.perplexity else losses[..., used]
        return np.asarray(values @ vector[used])

    def slope(self, losses: Array, targets: Sequence[str]) -> Array:
        """Return the derivative with respect to each target's loss, shape (..., k)."""
        vector = self.vector(targets)
        return vector * np.exp(losses) if self.perplexity else np.broadcast_to(vector, losses.shape).copy()

    def of_table(self, table: RunTable) -> Array:
        """Return the objective of each run, shape (n,), NaN where a needed loss is missing."""
        return self.value(table.losses, table.targets)

"""Domains that keep their proportions among each other and count as one: what an earlier search settled.

When domains are added to a corpus, or some of them change, the best proportions among the others stay near what they
were (Olmix, arXiv 2602.12237). A sweep that takes them as one virtual domain needs runs only for what changed.
Tables and laws then know the virtual domain; weights that are written for a run name its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.weights import DomainWeights

# Columns of a run table: part/<virtual domain>/<domain>, the same share in every row.
PART = "part/"
# Proportions that differ by more, as shares of the virtual domain, are others. Weights files are rounded.
SAME = 1e-3


@dataclass(frozen=True)
class Bundle:
    """A virtual domain.

    Attributes
    ----------
    name : str
        What it is called in tables and laws; no domain is called so.
    shares : DomainWeights
        Share of each of its domains.
    """

    name: str
    shares: DomainWeights

    @classmethod
    def of(cls, optimum: Mapping[str, float], domains: Sequence[str]) -> Bundle:
        """Return the virtual domain of those domains of an optimum that stay; ``domains`` are all there are now."""
        kept = {name: weight for name, weight in optimum.items() if name in domains}
        if not sum(kept.values()) > 0:
            raise MixtureError(f"the weights of {', '.join(kept)} are all 0: they have no proportions to keep")
        name = "reused"
        while name in domains:
            name += "_"
        return cls(name, DomainWeights.normalised(kept))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Bundle:
        """Return what ``to_json`` wrote."""
        return cls(str(raw["name"]), DomainWeights(raw["shares"]))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"name": self.name, "shares": self.shares.as_dict()}

    def names(self, domains: Sequence[str]) -> list[str]:
        """Return the virtual domain and the others, in their order."""
        return [self.name, *(name for name in domains if name not in self.shares)]

    def expanded(self, weights: Mapping[str, float]) -> DomainWeights:
        """Return weights of real domains from weights with the virtual one."""
        parts = {name: weights[self.name] * share for name, share in self.shares.items()}
        return DomainWeights.normalised(parts | {name: w for name, w in weights.items() if name != self.name})

    def reduced(self, weights: Mapping[str, float]) -> DomainWeights:
        """Return weights with the virtual domain from weights of real ones.

        Raises
        ------
        MixtureError
            When the parts have other proportions: no weight of the virtual domain stands for them.
        """
        missing = [name for name in self.shares if name not in weights]
        if missing:
            raise MixtureError(f"the mixture has no weight for {missing[0]!r}, expected one for every domain")
        total = sum(weights[name] for name in self.shares)
        for name, share in self.shares.items():
            if total > 0 and abs(weights[name] / total - share) > SAME:
                raise MixtureError(
                    f"{name!r} is {weights[name] / total:.3f} of the domains that are reused as one, expected its "
                    f"{share:.3f}: laws of this sweep know no other proportions"
                )
        rest = {name: w for name, w in weights.items() if name not in self.shares}
        return DomainWeights.normalised({self.name: total, **rest})

    def tokens(self, of: Mapping[str, float]) -> dict[str, float]:
        """Return tokens of text with the virtual domain: it repeats once the first of its parts does."""
        first = min(float(of[name]) / share for name, share in self.shares.items() if share > 0)
        return {self.name: first, **{name: float(count) for name, count in of.items() if name not in self.shares}}

    def intervals(self, of: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """Return intervals of real weights from those with the virtual domain."""
        found = {name: ends for name, ends in of.items() if name != self.name}
        if self.name in of:
            low, high = of[self.name]
            found |= {name: (low * share, high * share) for name, share in self.shares.items()}
        return found

    @property
    def columns(self) -> dict[str, float]:
        """The columns that say it in a run table."""
        return {f"{PART}{self.name}/{name}": share for name, share in self.shares.items()}

    @classmethod
    def of_columns(cls, columns: Mapping[str, np.ndarray], domains: Sequence[str]) -> Bundle | None:
        """Return the virtual domain that the columns of a table tell, None where there are none.

        Raises
        ------
        MixtureError
            For columns of two virtual domains, of one that is no domain of the table, or whose rows differ.
        """
        shares: dict[str, float] = {}
        names = {name.removeprefix(PART).partition("/")[0] for name in columns}
        if not names:
            return None
        if len(names) > 1 or not names <= set(domains):
            raise MixtureError(
                f"the columns {PART}… name {', '.join(sorted(names))}, expected one domain of the table "
                f"({', '.join(domains)})"
            )
        (name,) = names
        for column, values in columns.items():
            if np.ptp(values) > SAME:
                raise MixtureError(f"column {column} changes between rows: fit runs of one --reuse at a time")
            shares[column.removeprefix(f"{PART}{name}/")] = float(values[0])
        return cls(name, DomainWeights.normalised(shares))

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

    def refuse_overlap(self, domains: Sequence[str]) -> None:
        """Raise MixtureError unless it is one of these domains and none of its parts is."""
        if self.name not in domains:
            raise MixtureError(f"{self.name!r} stands for several domains, but is none of {', '.join(domains)}")
        if both := [name for name in self.shares if name in domains]:
            raise MixtureError(f"{both[0]!r} is a part of {self.name!r} and a domain of its own; give it one place")

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
        """Return weights with the virtual domain from weights of real ones; those that have it already as they are.

        Raises
        ------
        MixtureError
            When the parts have other proportions: no weight of the virtual domain stands for them.
        """
        if self.name in weights:
            return DomainWeights.normalised(weights)
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
        """Return tokens of text with the virtual domain: it repeats once the first of its parts does.

        Raises
        ------
        MixtureError
            When a part is missing.
        """
        if missing := [name for name in self.shares if name not in of]:
            raise MixtureError(f"the text of {missing[0]!r} is not known; it is known of: {', '.join(of)}")
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
            For columns of two virtual domains, of one that is no domain of the table, with a part that is, whose rows
            differ, or whose shares do not sum to 1.
        """
        if not columns:
            return None
        parts = {column: column.removeprefix(PART).partition("/")[::2] for column in columns}
        names = {virtual for virtual, _ in parts.values()}
        if len(names) > 1 or not all(part for _, part in parts.values()):
            raise MixtureError(
                f"the columns {', '.join(columns)} tell no virtual domain, expected {PART}<domain>/<part> of one domain"
            )
        for column, values in columns.items():
            if not np.isfinite(values).all() or np.min(values) < 0:
                raise MixtureError(f"column {column} has a cell that is blank or no share, expected one in every row")
            if np.ptp(values) > SAME:
                raise MixtureError(f"column {column} changes between rows: fit runs of one --reuse at a time")
        shares = {part: float(columns[column][0]) for column, (_, part) in parts.items()}
        if abs(sum(shares.values()) - 1) > SAME * len(shares):
            raise MixtureError(
                f"the columns {', '.join(columns)} sum to {sum(shares.values()):.4g}, expected 1: is a part missing?"
            )
        bundle = cls(names.pop(), DomainWeights.normalised(shares))
        bundle.refuse_overlap(domains)
        return bundle


def are_same(one: Bundle | None, other: Bundle | None) -> bool:
    """Return whether two stand for the same domains in the same proportions, as far as files are rounded."""
    if one is None or other is None:
        return one is other
    if one.name != other.name or set(one.shares) != set(other.shares):
        return False
    return all(abs(share - other.shares[name]) <= SAME for name, share in one.shares.items())

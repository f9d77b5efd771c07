"""Domain weights: how much of every batch each domain gets, by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from sys import intern
from typing import Any

from autoscale_ds.errors import MixtureError

SUM_TOLERANCE = 1e-6


class DomainWeights(Mapping[str, float]):
    """An immutable point of the simplex with named corners.

    Non-negative, finite, summing to 1 within 1e-6; anything else is refused. Nothing is clipped or renormalised;
    zero means off. Two weights are equal when the same names carry the same numbers, in any order.

    Raises
    ------
    MixtureError
        Naming the domain and the value.

    Examples
    --------
    >>> DomainWeights({"web": 0.75, "code": 0.25})["code"]
    0.25
    """

    __slots__ = ("_weights",)

    def __init__(self, weights: Mapping[str, float]) -> None:
        if not isinstance(weights, Mapping) or not weights:
            raise MixtureError(f"weights must be a mapping of domain names to numbers, got {weights!r:.200}")
        # Interned: the thousand versions of a long journal share one copy of the names.
        self._weights = {intern(str(name)): _number(name, value) for name, value in weights.items()}
        total = math.fsum(self._weights.values())
        if abs(total - 1) > SUM_TOLERANCE * (1 + 1e-9):
            raise MixtureError(f"weights sum to {total:.9g}, expected 1 within {SUM_TOLERANCE:g}")

    @classmethod
    def normalised(cls, amounts: Mapping[str, float]) -> DomainWeights:
        """Return weights in proportion to non-negative amounts (tokens, say): the explicit way to rescale."""
        numbers = {name: _number(name, value) for name, value in amounts.items()}
        total = math.fsum(numbers.values())
        if not total > 0:
            raise MixtureError(f"amounts sum to {total:g}; at least one must be positive")
        return cls({name: value / total for name, value in numbers.items()})

    @classmethod
    def uniform(cls, domains: list[str]) -> DomainWeights:
        """Return the same weight for every domain."""
        return cls.normalised(dict.fromkeys(domains, 1.0))

    def rescaled(self, fixed: Mapping[str, float]) -> DomainWeights:
        """Return weights with ``fixed`` ones set and the others scaled, in proportion, to fill up to 1."""
        rest = 1 - math.fsum(_number(name, value) for name, value in fixed.items())
        others = {name: weight for name, weight in self.items() if name not in fixed}
        total = math.fsum(others.values())
        if rest < -SUM_TOLERANCE:
            raise MixtureError(f"the weights given sum to {1 - rest:.9g}, more than 1; nothing is left for the others")
        if total == 0 and rest > SUM_TOLERANCE:
            raise MixtureError(
                f"the weights given sum to {1 - rest:.9g} and all others are 0: nothing can be scaled up"
            )
        scale = max(rest, 0.0) / total if total else 0.0
        return DomainWeights({name: fixed.get(name, weight * scale) for name, weight in self.items()})

    def check_domains(self, domains: list[str]) -> None:
        """Raise MixtureError unless exactly these domains are named."""
        unknown, missing = sorted(set(self) - set(domains)), sorted(set(domains) - set(self))
        if unknown:
            raise MixtureError(f"unknown domain {unknown[0]!r}; the domains are: {', '.join(domains)}")
        if missing:
            raise MixtureError(f"domain {missing[0]!r} has no weight; give every domain one (0 turns it off)")

    def as_dict(self) -> dict[str, float]:
        """Return a plain dictionary."""
        return dict(self._weights)

    def __getitem__(self, domain: str) -> float:
        return self._weights[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(frozenset(self._weights.items()))

    def __repr__(self) -> str:
        return f"DomainWeights({self._weights!r})"


def _number(name: str, value: Any) -> float:
    if type(value) is float and 0 <= value < math.inf:  # nearly all; a journal may hold millions
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise MixtureError(f"weight of {name!r} is {value!r}, expected a number")
    number = float(value)
    if not math.isfinite(number):
        raise MixtureError(f"weight of {name!r} is {number}, expected a finite number")
    if number < 0:
        raise MixtureError(f"weight of {name!r} is {number:g}, expected at least 0 (0 turns the domain off)")
    return number

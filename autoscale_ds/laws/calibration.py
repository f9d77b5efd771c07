"""How far the intervals of a law are widened, as measured on runs left out of the fit (see ``holdout.py``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from autoscale_ds.mixture.arrays import Array

# Share of a predicted change over scale by which a law is off, one standard deviation, where the table has too few
# scales to measure it. On Data Mixing Laws' runs it was .2 to .5 for sizes and .1 to .3 for tokens.
UNKNOWN = 0.5


@dataclass(frozen=True)
class Calibration:
    """Widening of the 90 % intervals.

    Attributes
    ----------
    inside : mapping of str to float
        Target to the factor on the standard deviation of a run; 1 where it is missing.
    tokens, parameters : float
        Standard deviation of the error beyond the table's scales, as a share of the change predicted from its edge.
    origins : mapping of str to int
        How many times the largest tokens and parameters were left out to measure them; 0 where they are ``UNKNOWN``.
    """

    inside: Mapping[str, float] = field(default_factory=dict)
    tokens: float = UNKNOWN
    parameters: float = UNKNOWN
    origins: Mapping[str, int] = field(default_factory=dict)

    def factors(self, targets: Sequence[str]) -> Array:
        """Return the factor of each target, shape (k,)."""
        return np.array([self.inside.get(name, 1.0) for name in targets])

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

"""Thresholds, absolute and relative to a curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoscale_ds import cli
from autoscale_ds.errors import CurveError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.speed.curve import Curve

VALUE, FINAL, WAY, ERRORS = "value", "final", "way", "errors"
FORMS = "0.9 (a value), way:0.5 (from floor to best), final:0.9 (of the final value) or errors:3 (beyond the floor)"


@dataclass(frozen=True)
class Threshold:
    """What a curve has to come to.

    Attributes
    ----------
    kind : str
        ``value``: the amount itself; ``final``: that share of the final value; ``way``: that share of the way from the
        floor to the best value; ``errors``: that many standard errors beyond the floor.
    amount : float
        See ``kind``.

    Notes
    -----
    Final and best are means of as many consecutive evaluations as the window has, so that no single one decides. The
    floor is given (a score of guessing), or else the first value. The standard error is the curve's median one.
    """

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Return the threshold that a text of the forms ``0.9``, ``way:0.5``, ``final:0.9``, ``errors:3`` names.

        Raises
        ------
        CurveError
            For any other text.
        """
        kind, colon, amount = text.rpartition(":")
        kind = kind if colon else VALUE
        try:
            number = cli.real()(amount)
        except Exception:
            number = None
        if kind not in (VALUE, FINAL, WAY, ERRORS) or number is None or (kind != VALUE and number <= 0):
            raise CurveError(f"threshold {text!r} given, expected {FORMS}")
        if kind == WAY and number > 1:
            raise CurveError(f"threshold {text!r} lies beyond the best value, expected a share of the way of at most 1")
        return cls(kind, number)

    def level(self, curve: Curve, *, window: int, falling: bool, floor: float | None = None) -> float:
        """Return the value of the threshold for a curve.

        Raises
        ------
        CurveError
            When the curve has no standard errors and they are asked for.
        """
        if self.kind == VALUE:
            return self.amount
        means = moving_mean(curve.values, window)
        if self.kind == FINAL:
            return self.amount * float(means[-1])
        start = float(curve.values[0]) if floor is None else floor
        if self.kind == WAY:
            best = float(means.min() if falling else means.max())
            return start + self.amount * (best - start)
        if curve.error is None:
            raise CurveError(
                f"{curve.name} has no standard errors, which threshold errors:{self.amount:g} needs; give a column "
                "stderr, or another threshold"
            )
        return start + (-1 if falling else 1) * self.amount * curve.error

    def __str__(self) -> str:
        return f"{self.amount:g}" if self.kind == VALUE else f"{self.kind}:{self.amount:g}"


def moving_mean(values: Array, window: int) -> Array:
    """Return the means (n - window + 1,) of consecutive values; one mean of all where there are fewer."""
    window = min(window, len(values))
    return np.convolve(values, np.full(window, 1 / window), "valid")


def floor_of(floors: Mapping[str, float] | float | None, series: str) -> float | None:
    """Return the floor of a series: of its name, else of ``""``, which stands for all others."""
    if floors is None or isinstance(floors, float):
        return floors
    return floors.get(series, floors.get(""))

"""What repeated text is worth: a law at the weights that new text of the same worth would have.

A run of D tokens reads a domain of U tokens of text ``r = w D / U`` times over. Its ``w D`` tokens count as they are
while ``r <= 1``, and as ``U (1 + R (1 - exp(-(r - 1) / R)))`` beyond [1]_: the first repetitions are worth nearly as
much as new text, and no number of them more than R times U. R is fitted for each target. Every weight is replaced by
those tokens over D, and the law itself is not changed.

References
----------
.. [1] Muennighoff et al., "Scaling Data-Constrained Language Models", arXiv 2305.16264, eq. 5; R is 15.4 there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from autoscale_ds.laws.base import Inputs, Natural, Parameter, Setting
from autoscale_ds.laws.exposure import Exposure, ExposureBudget
from autoscale_ds.laws.fitting import Formula
from autoscale_ds.laws.separable import Additive
from autoscale_ds.mixture.arrays import Array

_COUNTED = "w_i beyond U_i/D counted as U_i/D (1 + R (1 - exp(-(w_i D/U_i - 1)/R)))"
# Passes beyond the first that are told apart; more of them are worth the same to 1e-9.
_MOST_PASSES = 1e9


def effective_weights(weights: Array, passes: Array, worth: Array) -> tuple[Array, Array, Array]:
    """Return the weights that new text of the same worth would have, and their derivatives.

    Parameters
    ----------
    weights : array (n, m)
    passes : array (n, m)
        Times that a run would read each domain over if it read nothing else.
    worth : array ()
        R: how many repetitions all further ones together are worth.

    Returns
    -------
    arrays (n, m)
        Effective weights, their derivative by each weight, and by R.
    """
    once = 1 / np.maximum(passes, 1e-300)  # the weight that reads a domain once
    repeats = np.clip(weights * passes - 1, 0.0, _MOST_PASSES)
    left = np.exp(-repeats / worth)
    repeated = repeats > 0
    effective = np.where(repeated, once * (1 + worth * (1 - left)), weights)
    by_worth = np.where(repeated, once * (1 - left * (1 + repeats / worth)), 0.0)
    return effective, left, by_worth


class Repetition(Formula):
    """A law in which repeated text counts less than new text."""

    inner: ClassVar[Formula]
    needs_unique: ClassVar[bool] = True

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return the law's own parameters, and R with a prior of a factor of e around 15."""
        worth = Parameter("R", float(np.log(15)), float(np.log(0.1)), float(np.log(1e3)), width=1.0, form="log")
        return [*self.inner.parameters(setting, y), worth]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        counted, _, by_worth = _counted(p, x)
        losses, by = self.inner.evaluate(p, counted, setting)
        return losses, {**by, "R": (self.inner.slope(p, counted, setting) * by_worth).sum(1)}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        counted, by_weight, _ = _counted(p, x)
        return self.inner.slope(p, counted, setting) * by_weight

    def fewest_rows(self, setting: Setting) -> int:
        """Return one run more than the law itself asks for."""
        return self.inner.fewest_rows(setting) + 1


def _counted(p: Natural, x: Inputs) -> tuple[Inputs, Array, Array]:
    """Return the inputs at effective weights, and the derivatives of those by each weight and by R."""
    assert x.passes is not None, "LossModel.inputs refuses a law of repetition without unique tokens"
    effective, by_weight, by_worth = effective_weights(x.weights, x.passes, p["R"])
    return replace(x, weights=effective), by_weight, by_worth


class RepeatedExposure(Repetition):
    """``exposure`` in which repeated text counts less."""

    inner: ClassVar[Formula] = Exposure()
    name: ClassVar[str] = "exposure-repetition"
    formula: ClassVar[str] = f"{Exposure.formula}, {_COUNTED}"


class RepeatedExposureBudget(Repetition):
    """``exposure-budget`` in which repeated text counts less."""

    inner: ClassVar[Formula] = ExposureBudget()
    name: ClassVar[str] = "exposure-budget-repetition"
    formula: ClassVar[str] = f"{ExposureBudget.formula}, {_COUNTED}"
    needs_tokens: ClassVar[bool] = True


class RepeatedAdditive(Repetition):
    """``additive`` in which repeated text counts less."""

    inner: ClassVar[Formula] = Additive()
    name: ClassVar[str] = "additive-repetition"
    formula: ClassVar[str] = f"{Additive.formula}, {_COUNTED}"

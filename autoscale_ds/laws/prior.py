"""What a law believes before any run: values drawn from its prior."""

from __future__ import annotations

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import registry
from autoscale_ds.laws.base import Inputs, Setting
from autoscale_ds.laws.estimation import natural
from autoscale_ds.laws.fitting import Formula
from autoscale_ds.mixture.arrays import Array

# Draws that give a correlation within about a twentieth.
DRAWS = 400


def prior_values(weights: Array, law: str = "exposure", *, draws: int = DRAWS, seed: int = 0) -> Array:
    """Return losses of mixtures (n, m) at one scale under parameters drawn from a law's prior, shape (draws, n).

    Each draw is centred and scaled to a mean square of 1 over the mixtures: what a loss is, and how much mixtures
    change it, no prior knows.
    """
    n, m = weights.shape
    formula = registry.LAWS[registry.check_name(law)]
    if not isinstance(formula, Formula):
        raise MixtureError(f"law {law} has no prior to draw from")
    setting = Setting(tuple(map(str, range(m))), 0)
    layout = formula.parameters(setting, np.array([1.0, 2.0]))
    x = Inputs(weights, np.zeros(n), np.zeros(n))
    rng = np.random.default_rng([seed, 13])
    drawn = np.empty((draws, n))
    for row in drawn:
        pieces = []
        for q in layout:
            count = m if q.per_domain else 1
            piece = q.start + (q.width or 0.0) * rng.standard_normal(count)
            pieces.append(np.clip(piece, q.lower, q.upper))
        row[:] = formula.evaluate(natural(layout, np.concatenate(pieces), m), x, setting)[0]
    drawn -= drawn.mean(1, keepdims=True)
    return drawn / np.maximum(np.sqrt((drawn**2).mean(1, keepdims=True)), 1e-300)

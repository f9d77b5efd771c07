"""90 % intervals contain the truth in 85 to 95 % of 200 draws, for every law."""

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.laws import model
from autoscale_ds.laws.registry import LAWS

FORMULAS = [name for name, law in LAWS.items() if law.smooth]

pytestmark = pytest.mark.slow
DRAWS = 200
MANY_SCALES = {"tokens": (1e9, 2e9, 4e9), "sizes": (1e7, 5e7)}


def covered(name: str) -> tuple[float, float]:
    """Return how often intervals contain the loss without noise, and the loss of a new run."""
    law, run = [], []
    first = 1000 * FORMULAS.index(name)  # every law has its own noise
    for draw in range(first, first + DRAWS):
        truth = World(
            name,
            m=4,
            targets=1,
            seed=draw,
            **(MANY_SCALES if LAWS[name].needs_tokens else {}),
        )
        fitted = model.fit_law(truth.table(50, noise=0.01, seed=draw), name, starts=1, draws=12)
        exact, noisy = (truth.table(20, noise=noise, seed=draw + 100_000) for noise in (0.0, 0.01))
        x = fitted.inputs(exact.weights, exact.tokens, exact.parameters)
        for table, of_a_run, found in ((exact, False, law), (noisy, True, run)):
            low, high = fitted.intervals(x, of_a_run=of_a_run)
            found.append(((low <= table.losses) & (table.losses <= high)).mean())
    return float(np.mean(law)), float(np.mean(run))


@pytest.mark.parametrize("name", FORMULAS)
def test_intervals_cover(name):
    law, run = covered(name)
    assert 0.85 <= law <= 0.95
    assert 0.85 <= run <= 0.95

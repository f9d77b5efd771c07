"""90 % intervals contain the truth in 85 to 95 % of 200 draws, for every law.

Counted over 200 worlds the share has a standard error of about .01, and the last bits of a fit differ between
processors: two standard errors beyond the ends are allowed.
"""

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.laws import table_fits
from autoscale_ds.laws.registry import LAWS

FORMULAS = [name for name, law in LAWS.items() if law.smooth]

pytestmark = pytest.mark.slow
DRAWS = 200
MANY_SCALES = {"tokens": (1e9, 2e9, 4e9), "sizes": (1e7, 5e7)}


def covered(name: str) -> list[tuple[float, float]]:
    """Return how often intervals contain the loss without noise, and that of a new run, with standard errors."""
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
        fitted = table_fits.fit_law(truth.table(50, noise=0.01, seed=draw), name, starts=1, draws=12)
        exact, noisy = (truth.table(20, noise=noise, seed=draw + 100_000) for noise in (0.0, 0.01))
        x = fitted.inputs_of(exact)
        for table, of_a_run, found in ((exact, False, law), (noisy, True, run)):
            low, high = fitted.intervals(x, of_a_run=of_a_run)
            found.append(((low <= table.losses) & (table.losses <= high)).mean())
    return [(float(np.mean(each)), float(np.std(each) / np.sqrt(DRAWS))) for each in (law, run)]


@pytest.mark.parametrize("name", FORMULAS)
def test_intervals_cover(name):
    for share, error in covered(name):
        assert 0.85 - 2 * error <= share <= 0.95 + 2 * error
        assert error < 0.015  # the margin is no licence

"""Laws of repetition: what repeated text is worth, in closed form, in fits and in what is made of them."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import lawfile, selection, table_fits
from autoscale_ds.laws.repetition import effective_weights
from autoscale_ds.mixture import Objective, RunTable
from autoscale_ds.search.solver import Goal, optimize, seen_bounds


def test_repeated_tokens_count_as_the_paper_says():
    # Muennighoff et al., eq. 5: U + U R (1 - exp(-(r - 1) / R)); here U = 1/8 of the run's tokens, R = 15.
    weights, passes, worth = np.array([[0.0625, 0.125, 0.25, 1.0]]), np.full((1, 4), 8.0), np.asarray(15.0)
    effective, by_weight, by_worth = effective_weights(weights, passes, worth)
    expected = [0.0625, 0.125, (1 + 15 * (1 - np.exp(-1 / 15))) / 8, (1 + 15 * (1 - np.exp(-7 / 15))) / 8]
    np.testing.assert_allclose(effective[0], expected, rtol=1e-12)
    np.testing.assert_allclose(by_weight[0], [1, 1, np.exp(-1 / 15), np.exp(-7 / 15)], rtol=1e-12)
    h = 1e-5
    ends = [effective_weights(weights, passes, worth + s * h)[0] for s in (1, -1)]
    np.testing.assert_allclose(by_worth, (ends[0] - ends[1]) / (2 * h), atol=1e-9)
    # Text without end is never repeated; no text at all is worth nothing, however often it is read.
    assert effective_weights(weights, np.zeros((1, 4)), worth)[0].tolist() == weights.tolist()
    nothing = effective_weights(weights, np.full((1, 4), 1e12), worth)
    assert all(np.isfinite(each).all() for each in nothing)
    assert nothing[0].max() < 1e-10


@pytest.fixture(scope="module")
def repeated() -> tuple[World, RunTable]:
    """Runs of a world in which most domains are read several times over, R = 4."""
    world = World("exposure-repetition", m=3, targets=1, seed=4)
    for parameters in world.parameters:
        parameters["R"] = np.asarray(4.0)
    return world, world.table(50, noise=0.003)


@pytest.fixture(scope="module")
def chosen(repeated):
    """The law that auto chooses for them."""
    return selection.fit(repeated[1], "auto", draws=6)


def test_what_repetition_is_worth_is_found_again_and_auto_chooses_it(repeated, chosen):
    exact = table_fits.fit_law(repeated[0].table(50, noise=1e-4), "exposure-repetition", draws=0)
    (fitted,) = exact.targets.values()
    assert float(fitted.natural["R"]) == pytest.approx(4, rel=0.1)  # its prior is around 15
    assert "exposure-repetition" in chosen.law
    errors = {row["law"]: row.get("error") for row in chosen.selection}
    assert errors["exposure-repetition"] < 0.7 * errors["exposure"]


def test_where_nothing_repeats_laws_of_repetition_are_left_out_and_say_why(repeated):
    table = repeated[1]
    for unique, why in ((None, "has no columns unique/"), (np.full((50, 3), 1e12), "has no run that read a text more")):
        other = replace(table, unique=unique)
        assert why in table_fits.unsupported(other, "exposure-repetition")
        with pytest.raises(MixtureError, match=why):
            selection.fit(other, "exposure-repetition")


def test_a_law_of_repetition_asks_for_unique_tokens_and_the_optimum_minds_them(repeated, chosen, tmp_path):
    table = repeated[1]
    lawfile.save(chosen, tmp_path / "law.json")
    law = lawfile.load(tmp_path / "law.json")
    x = chosen.inputs_of(table)
    np.testing.assert_allclose(law.predict(x), chosen.predict(x), rtol=1e-9)
    goal = Goal(law, Objective.of_kind("mean-loss", tuple(law.targets)), 1e9)
    with pytest.raises(MixtureError, match="give --corpus DIR, or --unique") as error:
        optimize(goal, seen_bounds(law))
    assert "\n" not in str(error.value)
    with pytest.raises(MixtureError, match="unique tokens of 'domain2' are not known"):
        law.with_unique({"domain0": 1e9, "domain1": 1e9})
    little = dict(zip(law.domains, (1e7, 1e12, 1e12), strict=True))
    best = {
        name: optimize(replace(goal, model=law.with_unique(unique)), seen_bounds(law))
        for name, unique in (("little", little), ("plenty", dict.fromkeys(law.domains, 1e12)))
    }
    assert best["little"].weights["domain0"] < best["plenty"].weights["domain0"] - 0.05
    low, high = best["little"].intervals["domain0"]
    assert low <= best["little"].weights["domain0"] <= high
    alone = {"domain0": 1.0, "domain1": 0.0, "domain2": 0.0}
    assert "is read 100 times over" in " ".join(law.with_unique(little).warnings(alone, 1e9, None))

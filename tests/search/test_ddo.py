"""DDO against the figures released with AutoScale (arXiv 2407.20177)."""

import numpy as np
import pytest
from published import DOMAINS, FIGURES, ddo_table

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.search import DDO
from autoscale_ds.search.allocation import allocate
from autoscale_ds.search.ddo import Curve, fit_curve

DDO_FIGURES = FIGURES["ddo_1.2B"]
FLOOR = DDO_FIGURES["floor_uniform_units"] / 7


def fitted(low: float = 0.2) -> DDO:
    table = ddo_table(low)
    return DDO.from_table(table, "base", Objective.of_kind("mean-perplexity", table.targets))


def uniform_units(weights) -> np.ndarray:
    return 7 * np.array([weights[name] for name in DOMAINS])


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_released_curve_is_reproduced_to_four_digits(domain):
    curve = fitted().curves[domain]
    assert (curve.a, curve.b, curve.c) == pytest.approx(DDO_FIGURES["fit_abc"][domain], rel=1e-4)


def test_the_released_optimum_is_reproduced():
    weights = fitted().optimum(floor=FLOOR)
    assert uniform_units(weights) == pytest.approx(DDO_FIGURES["optimum_uniform_units"], abs=1e-4)


def test_a_low_factor_of_a_third_moves_the_optimum_by_a_tenth():
    fifth, third = fitted(1 / 5).optimum(floor=FLOOR), fitted(1 / 3).optimum(floor=FLOOR)
    # The figure's own note: "With 1/3 the optimum moves by 0.097 in L1."
    assert sum(abs(fifth[name] - third[name]) for name in DOMAINS) == pytest.approx(0.097, abs=5e-4)


def test_the_allocation_meets_its_kkt_conditions():
    curves = np.array(list(DDO_FIGURES["fit_abc"].values()))
    a, b = curves[:, 0], curves[:, 1]
    x = allocate(a, b, 7.0, floors=np.full(7, 0.2), caps=np.array([np.inf] * 4 + [1.5] + [np.inf] * 2))
    slope = b * (x + a) ** (-b - 1)
    inside = (x > 0.2) & (x < 1.5 - 1e-12)
    inside[[0, 2]] = True
    assert x.sum() == pytest.approx(7.0)
    assert x[4] == pytest.approx(1.5)
    free = np.array([i for i in range(7) if x[i] > 0.2 + 1e-9 and i != 4])
    assert np.ptp(slope[free]) < 1e-9
    assert slope[4] >= slope[free].mean()  # more would help where the cap holds
    assert all(slope[i] <= slope[free].mean() + 1e-12 for i in range(7) if x[i] <= 0.2 + 1e-9)


def test_the_optimum_around_a_base_that_is_not_uniform_meets_its_kkt_conditions():
    base = DomainWeights({"a": 0.5, "b": 0.3, "c": 0.2})
    curves = {"a": Curve(2.0, 1.2, 0.8), "b": Curve(1.0, 0.8, 0.5), "c": Curve(3.0, 2.0, 0.9)}
    best = DDO(base, 1e9, curves).optimum()
    # Marginal gain per token: d/dn of (n / base_n + a)^-b.
    gain = [c.b * (best[n] / base[n] + c.a) ** (-c.b - 1) / base[n] for n, c in curves.items()]
    assert sum(best.values()) == pytest.approx(1)
    assert gain == pytest.approx([gain[0]] * 3, rel=1e-9)


def test_caps_and_floors_bind():
    weights = fitted().optimum(floor=0.1, caps={"c4": 0.2})
    assert min(weights.values()) >= 0.1 - 1e-12
    assert weights["c4"] <= 0.2 + 1e-12


def test_impossible_floors_are_refused():
    with pytest.raises(MixtureError, match="floors need"):
        fitted().optimum(floor=0.2)


def test_a_missing_low_run_is_named():
    table = ddo_table().take([i for i, run in enumerate(ddo_table().runs) if run != "low/books"])
    with pytest.raises(MixtureError, match="'books' has no low run"):
        DDO.from_table(table, "base", Objective.of_kind("mean-perplexity", table.targets))


def test_an_unknown_base_run_is_refused():
    table = ddo_table()
    with pytest.raises(MixtureError, match="'start' is in the table 0 times"):
        DDO.from_table(table, "start", Objective.of_kind("mean-loss", table.targets))


def test_a_curve_that_rises_is_refused():
    with pytest.raises(MixtureError, match="does not fall"):
        fit_curve([0.3, 1, 3], [0.9, 1.0, 1.1])


def test_more_than_three_points_are_fitted_by_least_squares():
    x = np.array([0.2, 0.5, 1.0, 2.0, 4.0])
    curve = fit_curve(x, (x + 2.0) ** -1.5 + 0.8)
    assert (curve.a, curve.b, curve.c) == pytest.approx((2.0, 1.5, 0.8), rel=1e-4)

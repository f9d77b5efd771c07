"""AutoScale against the released extrapolations (arXiv 2407.20177)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import DOMAINS, FIGURES, optimum

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search import AutoScale

RELEASED = FIGURES["autoscale"]


def released_path() -> AutoScale:
    return AutoScale.fit([(0.3e9, optimum("0.3e9")), (1.2e9, optimum("1.2e9"))])


def test_rung_totals_are_the_released_ones():
    totals = [sum(released_path().tokens_at(t).values()) for t in (2, 3, 4, 5)]
    assert totals == pytest.approx(RELEASED["rung_totals_tokens"], rel=1e-6)


def test_tokens_at_the_first_rung_and_half_way_are_the_released_ones():
    path = released_path()
    assert list(path.tokens_at(2).values()) == pytest.approx(RELEASED["tokens_at_first_rung"], rel=1e-6)
    assert list(path.tokens_at(0.5).values()) == pytest.approx(RELEASED["interpolation_0.6B_tokens"], rel=1e-6)


@pytest.mark.parametrize("budget", RELEASED["budget_exact_weights"])
def test_budget_exact_weights_are_the_released_ones(budget):
    weights = released_path().predict(float(budget))
    assert [weights[name] for name in DOMAINS] == pytest.approx(RELEASED["budget_exact_weights"][budget], abs=1e-4)


def test_the_scales_themselves_are_returned_unchanged():
    path = released_path()
    for tokens, name in ((0.3e9, "0.3e9"), (1.2e9, "1.2e9")):
        assert path.predict(tokens).as_dict() == pytest.approx(optimum(name).as_dict(), abs=1e-9)


def test_a_domain_on_its_floor_stays_there():
    floor = 0.2 / 7
    path = AutoScale.fit([(0.3e9, optimum("0.3e9")), (1.2e9, optimum("1.2e9"))], floor=floor)
    weights = path.predict(10e9)
    assert weights["github"] == pytest.approx(floor)  # on the floor at both scales
    assert weights["arxiv"] == pytest.approx(floor)  # on the floor at one
    assert min(weights.values()) >= floor - 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 5))
def test_exact_paths_through_many_scales_are_recovered(seed, scales):
    rng = np.random.default_rng(seed)
    start, growth = rng.uniform(15, 20, 5), rng.uniform(0.5, 2.0, 5)
    t = np.cumsum(rng.uniform(0.2, 1.0, scales))
    tokens = np.exp(start + growth * t[:, None])
    optima = [(float(row.sum()), DomainWeights.normalised(dict(zip("abcde", row, strict=True)))) for row in tokens]
    path = AutoScale.fit(optima)
    beyond = np.exp(start + growth * (t[-1] + 1.5))
    expected = beyond / beyond.sum()
    assert list(path.predict(float(beyond.sum())).values()) == pytest.approx(expected, rel=1e-6)


def test_the_same_scale_twice_is_refused():
    with pytest.raises(MixtureError, match="the same"):
        AutoScale.fit([(1e9, optimum("0.3e9")), (1e9, optimum("1.2e9"))])


def test_one_scale_is_refused():
    with pytest.raises(MixtureError, match="two budgets"):
        AutoScale.fit([(1e9, optimum("0.3e9"))])


def test_all_domains_on_the_floor_is_refused():
    halves = DomainWeights({"a": 0.3, "b": 0.7})
    with pytest.raises(MixtureError, match="every domain rests on the floor"):
        AutoScale.fit([(1e9, halves), (2e9, DomainWeights({"a": 0.7, "b": 0.3}))], floor=0.3)


def test_zero_tokens_without_a_floor_are_refused():
    with pytest.raises(MixtureError, match="zero tokens"):
        AutoScale.fit([(1e9, DomainWeights({"a": 0.0, "b": 1.0})), (2e9, DomainWeights({"a": 0.5, "b": 0.5}))])


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_no_positive_number_is_refused(budget):
    with pytest.raises(MixtureError, match="positive"):
        released_path().predict(budget)


def test_a_budget_before_the_path_grows_is_explained():
    # Domain a shrinks from 0.9e9 to 0.1e9 tokens, so totals under about 0.9e9 occur nowhere on the growing branch.
    path = AutoScale.fit([(1e9, DomainWeights({"a": 0.9, "b": 0.1})), (10e9, DomainWeights({"a": 0.01, "b": 0.99}))])
    with pytest.raises(MixtureError, match="never has as few"):
        path.predict(1e7)

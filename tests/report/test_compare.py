import math

import numpy as np
import pytest

from autoscale_ds.report.compare import geometric, interval, mean_curve, speed_up, tokens_to_reach

# 95 % points of Student's t, from any printed table.
T1, T2 = 6.313752, 2.919986


def test_tokens_to_reach_is_exact_on_a_power_law():
    tokens = [1e6, 3e6, 9e6, 30e6]
    values = [100 * t**-0.1 for t in tokens]
    # 100 t^-0.1 = v  <=>  t = (100 / v)^10
    target = 100 * 5e6**-0.1
    assert tokens_to_reach(tokens, values, target) == pytest.approx(5e6)


def test_tokens_to_reach_by_hand():
    # log 8 -> log 2 is crossed half-way at 4, so tokens are the geometric mean of 100 and 400.
    assert tokens_to_reach([100, 400], [8, 2], 4) == pytest.approx(200)


def test_after_an_evaluation_at_zero_tokens_the_line_is_in_tokens():
    assert tokens_to_reach([0, 400], [8, 2], 4) == pytest.approx(200)


def test_a_target_met_at_an_evaluation_is_that_evaluation():
    assert tokens_to_reach([1, 2, 3], [5, 4, 3], 4) == pytest.approx(2)
    assert tokens_to_reach([10, 20], [5, 4], 6) == 10


def test_the_first_crossing_counts_when_the_curve_rises_again():
    assert tokens_to_reach([100, 400, 800, 1600], [8, 2, 9, 1], 4) == pytest.approx(200)


def test_a_target_never_reached_is_none():
    assert tokens_to_reach([1, 2], [5, 4], 3.9) is None
    assert tokens_to_reach([], [], 3.9) is None


def test_missing_and_infinite_evaluations_are_passed_over():
    assert tokens_to_reach([50, 100, 200, 400], [math.inf, 8, None, 2], 4) == pytest.approx(200)
    assert tokens_to_reach([50, 100], [math.inf, 2], 4) == 100


def test_speed_up_pairs_seeds_and_takes_the_interval_of_the_ratios():
    found = speed_up({0: 200.0, 1: 900.0}, {0: 100.0, 1: 300.0})
    # ratios 2 and 3: mean of logs (log 2 + log 3) / 2, standard error |log 3 - log 2| / 2
    half = T1 * abs(math.log(3) - math.log(2)) / 2
    assert found.paired
    assert found.count == 2
    assert found.ratio == pytest.approx(math.sqrt(6))
    assert found.low == pytest.approx(math.sqrt(6) * math.exp(-half), rel=1e-5)
    assert found.high == pytest.approx(math.sqrt(6) * math.exp(half), rel=1e-5)


def test_speed_up_of_different_seeds_is_welchs_interval():
    found = speed_up({0: 100.0, 1: 200.0, 2: 400.0}, {5: 50.0, 6: 100.0, 7: 200.0})
    # equal variances (log 2)^2 and sizes: Welch has 4 degrees of freedom, 95 % point 2.131847
    half = 2.131847 * math.log(2) * math.sqrt(2 / 3)
    assert not found.paired
    assert found.ratio == pytest.approx(2)
    assert found.high == pytest.approx(2 * math.exp(half), rel=1e-5)


def test_one_seed_gives_a_ratio_and_no_interval():
    found = speed_up({0: 300.0}, {0: 100.0})
    assert (found.ratio, found.low, found.high) == (pytest.approx(3), None, None)
    assert speed_up({0: 300.0}, {1: 100.0}).low is None


def test_a_seed_that_did_not_reach_leaves_no_ratio():
    assert speed_up({0: 300.0, 1: 200.0}, {0: 100.0, 1: None}).ratio is None
    assert speed_up({0: 300.0, 1: None}, {0: 100.0, 1: 90.0}).ratio is None
    assert speed_up({}, {0: 1.0}).ratio is None


def test_intervals_are_students():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(T2 / math.sqrt(3), rel=1e-6)
    assert interval([4.0]).low is None
    assert geometric([1.0, 4.0]).mean == pytest.approx(2.0)
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_a_mean_curve_covers_what_all_curves_cover():
    grid, mean, low, high = mean_curve([([0, 10, 20], [4, 2, 1]), ([0, 10], [6, 4])])
    np.testing.assert_allclose(grid, [0, 10])
    np.testing.assert_allclose([mean, low, high], [[5, 3], [4, 2], [6, 4]])


def test_a_mean_curve_interpolates_where_evaluations_differ():
    grid, mean, *_ = mean_curve([([0, 10], [4, 2]), ([0, 5, 10], [4, 4, 2])])
    np.testing.assert_allclose(grid, [0, 5, 10])
    np.testing.assert_allclose(mean, [4, 3.5, 2])

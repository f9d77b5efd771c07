"""What a run tells: against closed forms, and against brute force."""

import numpy as np
import pytest
from scipy.stats import norm

from autoscale_ds.search.surface import Points, Scale, Surface, distances, knowledge_gradient


def test_the_worth_of_knowing_the_difference_of_two_is_that_of_the_normal_loss_function():
    # Two mixtures, .3 apart; the run tells their difference with a standard deviation of .5.
    expected = 0.5 * norm.pdf(0.3 / 0.5) - 0.3 * norm.cdf(-0.3 / 0.5)
    assert knowledge_gradient(np.array([0.0, -0.3]), np.array([0.0, 0.5])) == pytest.approx(expected, rel=1e-12)
    assert knowledge_gradient(np.array([0.0, -0.3]), np.array([0.2, -0.3])) == pytest.approx(expected, rel=1e-12)


def test_the_worth_is_what_brute_force_finds_for_any_lines():
    rng = np.random.default_rng(0)
    grid = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for _ in range(20):
        means, slopes = rng.normal(size=6), rng.normal(size=6) * rng.choice([0, 1], 6)
        brute = np.mean(np.max(means[:, None] + slopes[:, None] * grid, axis=0)) - means.max()
        assert knowledge_gradient(means, slopes) == pytest.approx(brute, abs=1e-4)


def test_a_run_that_tells_the_same_of_all_mixtures_is_worth_nothing():
    belief = Surface(np.array([1.0, 1.1, 1.2]), np.full((3, 3), 0.04))
    assert belief.worth(np.array([0, 1]), np.array([2]), 0.0) == pytest.approx([0.0])
    assert belief.regret(np.array([0, 1])) == pytest.approx(0.0, abs=1e-9)


def test_the_regret_of_two_is_that_by_hand_and_a_run_lowers_it_by_its_worth():
    # The difference has mean .1 and variance .04 + .09; regret is E (difference)^-.
    belief = Surface(np.array([1.0, 1.1]), np.diag([0.04, 0.09]))
    both, spread = np.array([0, 1]), np.sqrt(0.13)
    by_hand = spread * norm.pdf(0.1 / spread) - 0.1 * norm.cdf(-0.1 / spread)
    assert belief.regret(both) == pytest.approx(by_hand, rel=0.05)
    # A run of the second without noise leaves the first's .04: what it is worth is the fall of the mean of the minimum.
    assert belief.worth(both, np.array([1]), 0.0)[0] == pytest.approx(
        0.3 * norm.pdf(0.1 / 0.3) - 0.1 * norm.cdf(-0.1 / 0.3)
    )
    rng = np.random.default_rng(1)
    after, drawn = belief.after_run(1, 0.0), belief.mean[1] + 0.3 * rng.standard_normal(2000)
    left = [Surface(np.array([1.0, each]), after.covariance).regret(both) for each in drawn[:400]]
    assert np.mean(left) == pytest.approx(belief.regret(both) - belief.worth(both, np.array([1]), 0.0)[0], abs=0.012)


def test_a_run_narrows_the_belief_as_the_posterior_of_a_linear_law_does():
    # f(w) = a w_0 + b w_1, a and b normal: the covariance after a run is that of the Bayesian linear regression.
    prior, noise = np.array([[0.5, 0.1], [0.1, 0.3]]), 0.2
    x = np.array([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5], [0.0, 1.0]])
    belief = Surface(np.zeros(4), x @ prior @ x.T).after_run(1, noise).after_run(3, noise)
    posterior = np.linalg.inv(np.linalg.inv(prior) + x[[1, 3]].T @ x[[1, 3]] / noise**2)
    assert belief.covariance == pytest.approx(x @ posterior @ x.T, abs=1e-12)


def test_a_d_optimal_batch_takes_what_the_runs_before_leave_open():
    # Points 0 and 1 are nearly the same; 2 is less uncertain but its own.
    covariance = np.array([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 0.5]])
    assert Surface(np.zeros(3), covariance).most_telling([0, 1, 2], 2, 0.01) == [0, 2]


def test_the_most_valuable_runs_are_those_of_the_largest_worth_per_cost_one_after_the_other():
    # Two decisions; each run tells of one of them, the last two of the second at other prices.
    covariance = np.zeros((5, 5))
    covariance[np.ix_([0, 2], [0, 2])] = 0.01
    covariance[np.ix_([1, 3, 4], [1, 3, 4])] = 0.04
    belief = Surface(np.array([1.0, 1.0, 1.0, 1.0, 1.0]), covariance)
    picks = belief.most_valuable(np.array([0, 1]), np.array([2, 3, 4]), np.array([1.0, 3.0, 1.5]), 2, 0.01)
    assert [pick for pick, _ in picks] == [2, 0]
    assert picks[0][1] > picks[1][1] > 0


def test_points_that_were_run_are_not_offered_again():
    weights = np.array([[0.5, 0.5], [0.2, 0.8]])
    points = Points.at(weights, Scale(1e6, 1e5)) + Points.at(weights, Scale(2e6, 1e5))
    left = points.without(Points.at(weights[:1], Scale(1.01e6, 1e5)), 1.05)
    assert list(zip(left.weights[:, 0], left.tokens, strict=True)) == [(0.2, 1e6), (0.5, 2e6), (0.2, 2e6)]


def test_a_mixture_is_itself_however_its_weights_were_rounded():
    exact, rounded = np.array([[1 / 3, 2 / 3, 0.0]]), np.array([[0.333, 0.666, 0.0], [0.0, 0.0, 1.0]])
    assert distances(exact, rounded)[0] == pytest.approx([0.0, 1.0], abs=1e-3)
    assert distances(rounded[:1], rounded[:1])[0, 0] == pytest.approx(0.0, abs=1e-7)

"""Decisions: against results by hand, and intervals of a gain that hold."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import model, table_fits
from autoscale_ds.laws.calibration import Calibration
from autoscale_ds.laws.estimation import internal
from autoscale_ds.laws.fitting import Fit
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.search.decision import DRIFT, Belief, decide
from autoscale_ds.search.solver import Goal, minimum

UNIFORM = DomainWeights({"domain0": 0.5, "domain1": 0.5})


def linear(slopes, noise=0.002, tokens=(1e9,), **parameters) -> Goal:
    """A law ``c + a w_0 [+ B_D / D^beta]`` of two domains whose draws have these slopes a, at 1e9 tokens."""
    world = World("linear", m=2, targets=1, tokens=tokens)
    setting = world.settings[0]
    layout = world.law.parameters(setting, np.array([2.0, 3.0]))
    values = {"c": 2.0, "B_D": 0.5, "beta": 0.3} | parameters
    drawn = np.array([internal(layout, values | {"t": [slope, 0.0]}) for slope in slopes])
    fitted = Fit(world.law, setting, layout, drawn.mean(0), noise, drawn)
    law = model.LossModel("linear", world.domains, world.scales, {"domain0": fitted})
    return Goal(law, Objective.of_kind("mean-loss", ("domain0",)), 1e9)


def decided(slopes, risk=None, **changes):
    goal = linear(slopes, **changes)
    return decide(Belief((goal,)), UNIFORM, Bounds.of(goal.model.domains), risk=risk)


def test_a_sure_gain_is_a_change_with_the_figures_by_hand():
    found = decided([-0.2] * 18 + [0.1] * 2)
    assert found.best["domain0"] == pytest.approx(1)
    assert found.gain[0] == pytest.approx((18 * 0.1 - 2 * 0.05) / 20)
    assert found.probability == pytest.approx(0.9)
    assert found.regret == pytest.approx(2 * 0.1 / 20)  # where the slope is 0.1, weight 0 would have been right
    assert found.noise == pytest.approx(0.002)
    assert found.change
    assert found.weights == found.best
    assert found.sentence.startswith("change: expected gain 0.085 (90 % ")
    assert found.tokens_saved is None


def test_a_gain_that_is_not_sure_enough_keeps_and_the_regret_is_that_of_keeping():
    found = decided([-0.2] * 17 + [0.1] * 3)
    assert not found.change
    assert found.weights == UNIFORM
    assert found.best["domain0"] == pytest.approx(1)
    assert found.regret == pytest.approx((17 * 0.1 + 3 * 0.05) / 20)
    assert found.sentence.endswith("less than 0.9")


def test_a_sure_gain_within_the_noise_of_one_run_keeps():
    found = decided([-0.2] * 20, noise=0.2)
    assert found.probability == 1
    assert not found.change
    assert "and not more than the noise of one run (0.2)" in found.sentence


def test_with_a_risk_no_step_is_taken_that_may_be_a_loss():
    assert decided([-0.2] * 17 + [0.1] * 3, risk=0.9).best == UNIFORM
    assert decided([-0.2] * 20, risk=0.9).best["domain0"] == pytest.approx(1)


def test_tokens_saved_are_those_at_which_the_curves_meet():
    found = decided([-0.02] * 20, tokens=(0.5e9, 2e9))
    # c + a / 2 + 0.5 x^-0.3 at the budget equals c + a + 0.5 x'^-0.3; the law's unit is 1e9 tokens.
    reached = ((0.5 + 0.01) / 0.5) ** (-1 / 0.3)
    assert found.tokens_saved[0] == pytest.approx(1e9 * (1 - reached), rel=5e-3)


def test_laws_count_alike_and_calibration_widens_their_draws():
    first, second = linear([-0.2] * 20), linear([0.1] * 30)
    both = Belief((first, second)).gains(np.array([[1.0, 0.0]]), np.array([0.5, 0.5]))
    assert both.shape == (40, 1)
    assert both.mean() == pytest.approx((0.1 - 0.05) / 2)
    spread = linear([-0.3, -0.1] * 10)
    wide = replace(spread, model=replace(spread.model, calibration=Calibration({"domain0": 2.0})))
    gains = Belief((wide,)).gains(np.array([[1.0, 0.0]]), np.array([0.5, 0.5]))
    assert sorted(set(np.round(gains[:, 0], 6))) == pytest.approx([0.0, 0.2])


def test_of_an_average_of_laws_one_is_right_with_the_probability_of_its_share():
    first, second = linear([-0.2] * 20), linear([0.1] * 20)
    average = model.Average((second.model.targets["domain0"], first.model.targets["domain0"]), (0.25, 0.75))
    law = replace(first.model, law="average of linear, linear", targets={"domain0": average})
    found = decide(Belief((replace(first, model=law),)), UNIFORM, Bounds.of(law.domains))
    assert found.best["domain0"] == pytest.approx(1)
    assert found.gain == pytest.approx((0.75 * 0.1 - 0.25 * 0.05, -0.05, 0.1))
    assert found.probability == pytest.approx(0.75)
    assert not found.change  # draws of both laws paired would have called it sure


def test_the_only_scale_of_a_table_leaves_open_how_gains_change_by_another():
    goal = linear([-0.2] * 2000)
    best, even = np.array([[1.0, 0.0], [0.75, 0.25]]), np.array([0.5, 0.5])
    there = Belief((goal,)).gains(best, even)
    assert np.ptp(there, 0) == pytest.approx(0)
    beyond = Belief((replace(goal, tokens=np.e * 1e9),)).gains(best, even)
    assert beyond.mean(0) == pytest.approx(there.mean(0), rel=0.03)
    assert beyond.std(0) == pytest.approx(DRIFT * there.mean(0), rel=0.05)
    assert beyond[:, 1] == pytest.approx(beyond[:, 0] / 2)  # one and the same effect changes
    several = replace(linear([-0.2] * 20, tokens=(0.5e9, 2e9)), tokens=1.5e9)
    assert np.ptp(Belief((several,)).gains(best, even), 0) == pytest.approx(0)


@pytest.mark.slow
def test_intervals_of_a_gain_hold_the_true_one():
    inside = []
    for seed in range(24):
        truth = World("exposure", m=4, targets=3, seed=seed)
        law = table_fits.fit_law(truth.table(50, noise=0.005, seed=seed, zeros=0.1), "exposure", starts=1, draws=32)
        goal = Goal(law, Objective.of_kind("mean-loss", tuple(law.targets)), 1e9)
        weights = minimum(goal, Bounds.of(law.domains))
        best, other = np.array([weights[name] for name in law.domains]), np.full(4, 0.25)
        gains = Belief((goal,)).gains(best[None], other)[:, 0]
        before, after = truth.losses(np.array([other, best]), np.full(2, 1e9), np.full(2, 1e8)).mean(1)
        low, high = np.quantile(gains, [0.05, 0.95], method="weibull")
        inside.append(low <= before - after <= high)
    assert np.mean(inside) >= 0.75  # 24 at .9 fall below once in 40 times; the seeds are fixed


def test_a_law_without_draws_and_laws_of_other_domains_are_refused():
    with pytest.raises(MixtureError, match="has no draws, so nothing says how sure it is; fit it again"):
        Belief((linear([-0.2]),))
    goal = linear([-0.2] * 3)
    other = replace(goal, model=replace(goal.model, domains=("a", "b")))
    with pytest.raises(MixtureError, match="'a' is in the domains of only one of the laws; give laws fitted"):
        Belief((goal, other))
    other = replace(goal, model=replace(goal.model, domains=("domain1", "domain0")))
    with pytest.raises(MixtureError, match="their domains in different orders"):
        Belief((goal, other))
    other = replace(goal, model=replace(goal.model, targets={"else": goal.model.targets["domain0"]}))
    with pytest.raises(MixtureError, match="'domain0' is in the targets of only one of the laws"):
        Belief((goal, other))

"""The solver: bounds, priors, objectives, and how sure it is of the answer."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from synthetic import World, mixtures

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import lawfile, model, table_fits
from autoscale_ds.laws.estimation import internal
from autoscale_ds.laws.fitting import Fit
from autoscale_ds.mixture import Objective
from autoscale_ds.mixture.simplex import Bounds, dirichlet
from autoscale_ds.search.solver import Goal, minimum, optimize


def exact(truth: World, draws: int = 0) -> model.LossModel:
    """The law of a world itself, nothing fitted."""
    fits = {}
    for target, values, setting in zip(truth.targets, truth.parameters, truth.settings, strict=True):
        layout = truth.law.parameters(setting, np.array([1.0, 2.0]))
        theta = internal(layout, values)
        fits[target] = Fit(truth.law, setting, layout, theta, 0.002, np.repeat(theta[None], draws, 0))
    return model.LossModel(truth.law.name, truth.domains, truth.scales, fits)


def goal_of(law: model.LossModel, kind: str = "mean-loss", **changes) -> Goal:
    return Goal(law, Objective.of_kind(kind, tuple(law.targets)), 1e9, **changes)


def vector(weights, law) -> np.ndarray:
    return np.array([weights[name] for name in law.domains])


@pytest.mark.parametrize("name", ["exposure", "additive", "data-mixing", "chinchilla"])
def test_no_random_mixture_beats_the_optimum(name):
    law = exact(World(name, m=5, targets=5, seed=3))
    goal = goal_of(law)
    found = optimize(goal, Bounds.of(law.domains))
    near = Bounds.of(law.domains).scale_in(
        vector(found.weights, law) * np.exp(0.2 * np.random.default_rng(0).normal(size=(5000, 5))) + 1e-4
    )
    samples = np.vstack([mixtures(5000, 5, np.random.default_rng(1), 0.0), near])
    assert goal.value(samples).min() >= found.value - 1e-6


def test_floors_caps_and_sum_hold():
    law = exact(World("exposure", m=5, targets=5, seed=3))
    free = optimize(goal_of(law), Bounds.of(law.domains)).weights
    largest = max(free, key=free.get)
    found = optimize(goal_of(law), Bounds.of(law.domains, 0.05, {largest: 0.2})).weights
    assert min(found.values()) >= 0.05 - 1e-9
    assert found[largest] == pytest.approx(0.2, abs=1e-6)
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(12))
def test_an_optimum_lies_in_its_interval_to_the_last_bit(seed):
    """Also where all draws agree, so that the interval has no width: figures refuse negative error bars."""
    law = exact(World("exposure", m=7, targets=7, seed=seed))
    found = optimize(goal_of(law), Bounds.of(law.domains, 0.02), seed=seed)
    for name, (low, high) in found.intervals.items():
        assert low <= found.weights[name] <= high


def test_a_strong_prior_is_returned_and_a_weak_one_forgotten():
    law = exact(World("exposure", m=4, targets=4, seed=3))
    prior = np.array([0.7, 0.1, 0.1, 0.1])
    free = vector(optimize(goal_of(law), Bounds.of(law.domains)).weights, law)
    tight = vector(optimize(goal_of(law, prior=prior, kl=1e3), Bounds.of(law.domains)).weights, law)
    loose = vector(optimize(goal_of(law, prior=prior, kl=1e-7), Bounds.of(law.domains)).weights, law)
    assert tight == pytest.approx(prior, abs=1e-3)
    assert loose == pytest.approx(free, abs=1e-2)


def test_what_the_prior_turns_off_stays_off():
    law = exact(World("exposure", m=3, targets=3, seed=3))
    found = optimize(goal_of(law, prior=np.array([0.5, 0.5, 0.0]), kl=0.1), Bounds.of(law.domains))
    assert found.weights[law.domains[2]] == 0.0


def test_one_target_alone_draws_the_weight_to_its_domain():
    law = exact(World("chinchilla", m=4, targets=4, seed=3))
    goal = Goal(law, Objective({"domain2": 1.0}), 1e9)
    assert optimize(goal, Bounds.of(law.domains)).weights["domain2"] == pytest.approx(1, abs=1e-3)


def test_mean_perplexity_is_the_mean_of_exponentials():
    losses = np.log(np.array([[10.0, 20.0]]))
    assert Objective.of_kind("mean-perplexity", ("a", "b")).value(losses, ("a", "b")) == pytest.approx(15)


def test_bits_per_byte_divide_by_the_bytes_of_a_token():
    objective = Objective.of_kind("bits-per-byte", ("a", "b"), bytes_per_token={"a": 4.0, "b": 2.0})
    # weights 1/4 : 1/2 after normalisation
    assert objective.vector(("a", "b")) == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.slow
def test_weight_intervals_cover_the_true_optimum(monkeypatch):
    """Of the weights of 120 worlds .888 were covered, with a standard error of .018."""
    monkeypatch.setattr("autoscale_ds.search.solver._range_within", lambda goal, bounds, best, *_: (best, best))
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:  # which inherits the patch
        inside = np.array(list(pool.map(_intervals_that_hold_the_optimum, range(120), chunksize=5)))
    error = inside.mean(1).std() / np.sqrt(len(inside))  # the weights of one world are not independent
    assert 0.85 - 2 * error <= inside.mean() <= 0.95 + 2 * error
    assert error < 0.02


def _intervals_that_hold_the_optimum(seed):
    truth = World("exposure", m=4, targets=2, seed=seed)  # each target more is a fit more
    law = table_fits.fit_law(truth.table(60, noise=0.005, seed=seed, zeros=0.1), "exposure", starts=1, draws=20)
    best = minimum(goal_of(exact(truth)), Bounds.of(law.domains))
    found = optimize(goal_of(law), Bounds.of(law.domains)).intervals
    return [found[name][0] - 1e-4 <= best[name] <= found[name][1] + 1e-4 for name in law.domains]


def test_a_flat_optimum_is_called_flat():
    truth = World("linear", m=3, targets=1, seed=1)
    truth.parameters[0]["t"] = np.array([0.0, 1e-4, 2e-4])
    found = optimize(goal_of(exact(truth)), Bounds.of(truth.domains))
    assert found.flat
    assert found.within_noise["domain2"][1] > 0.9


def test_a_sharp_optimum_is_not():
    truth = World("linear", m=3, targets=1, seed=1)
    truth.parameters[0]["t"] = np.array([0.0, 1.0, 2.0])
    found = optimize(goal_of(exact(truth)), Bounds.of(truth.domains))
    assert not found.flat
    assert found.within_noise["domain0"][0] > 0.99


def test_range_within_noise_reaches_exactly_the_noise():
    # One linear target: weight i can rise by slack / (t_i - t_0) before the loss does by slack.
    truth = World("linear", m=3, targets=1, seed=1)
    truth.parameters[0]["t"] = np.array([0.0, 0.1, 0.2])
    found = optimize(goal_of(exact(truth)), Bounds.of(truth.domains))
    slack = 1.6448536 * 0.002
    assert found.within_noise["domain1"][1] == pytest.approx(slack / 0.1, rel=0.05)
    assert found.within_noise["domain2"][1] == pytest.approx(slack / 0.2, rel=0.05)


def test_caps_that_cannot_hold_the_budget_are_refused():
    with pytest.raises(MixtureError, match=r"caps sum to 0\.6"):
        Bounds.of(["a", "b"], 0.0, {"a": 0.3, "b": 0.3})


@pytest.mark.parametrize("floor", [-0.1, 0.4, float("nan")])
def test_a_floor_that_does_not_fit_is_refused(floor):
    with pytest.raises(MixtureError, match="floor"):
        Bounds.of(["a", "b", "c"], floor)


def test_scaling_into_bounds_keeps_the_order_and_the_sum():
    bounds = Bounds.of(list("abcd"), 0.1, {"a": 0.3})
    points = bounds.scale_in(dirichlet(np.ones(4), 64, 0))
    assert points.sum(1) == pytest.approx(np.ones(64))
    assert (points >= 0.1 - 1e-12).all()
    assert (points[:, 0] <= 0.3 + 1e-12).all()


def test_low_discrepancy_dirichlet_has_the_mean_and_variance_of_dirichlet():
    concentration = np.array([2.0, 1.0, 0.5])
    points = dirichlet(concentration, 4096, 0)
    total = concentration.sum()
    mean = concentration / total
    assert points.mean(0) == pytest.approx(mean, abs=2e-3)
    assert points.var(0) == pytest.approx(mean * (1 - mean) / (total + 1), rel=0.03)


def test_trees_are_optimised_by_sampling(tmp_path, monkeypatch):
    pytest.importorskip("lightgbm", reason="LightGBM is an extra: pip install 'autoscale_ds[laws]'")
    monkeypatch.setattr("autoscale_ds.search.solver.TREE_SAMPLES", 3000)
    truth = World("exposure", m=3, targets=2, seed=1)
    lawfile.save(table_fits.fit_law(truth.table(60), "regmix", draws=2), tmp_path / "law.json")
    law = lawfile.load(tmp_path / "law.json")
    found = optimize(goal_of(law), Bounds.of(law.domains, 0.05))
    assert sum(found.weights.values()) == pytest.approx(1)
    assert min(found.weights.values()) >= 0.05 - 1e-9

"""Intervals of DDO and AutoScale: they hold the truth as often as they say, and shrink with the noise."""

import numpy as np
import pytest

from autoscale_ds.mixture import DomainWeights, Objective, RunTable, WeightsFile
from autoscale_ds.search import AutoScale
from autoscale_ds.search.ddo import Curve
from autoscale_ds.search.ddo_sweep import DDOSweep
from autoscale_ds.search.design import ddo_plan
from autoscale_ds.search.uncertainty import intervals, path_draws, path_intervals

NAMES = ["a", "b", "c"]
CURVES = {"a": Curve(0.5, 1.2, 0.6), "b": Curve(1.0, 0.8, 0.5), "c": Curve(0.3, 0.5, 0.3)}
BASE = DomainWeights.uniform(NAMES)
OBJECTIVE = Objective.of_kind("mean-loss", ("x",))


def value(weights, tokens):
    """The sum of every domain's curve, in units that make the base run's 1."""
    amounts = {name: weights[name] * tokens * 3 for name in NAMES}
    return 1 + sum(float(curve(amounts[name]) - curve(1.0)) for name, curve in CURVES.items())


def sweep(noise, seeds, rng):
    """A DDO sweep at one token whose runs share, seed by seed, an offset that no mixture changes."""
    offset = rng.normal(0, 5 * noise, seeds)
    rows = [
        (f"{run.run}@{s}", run.weights, run.tokens, value(run.weights, run.tokens) + offset[s] + rng.normal(0, noise))
        for run in ddo_plan(BASE, 1.0)
        for s in range(seeds)
    ]
    runs, weights, tokens, losses = zip(*rows, strict=True)
    shares = np.array([[w[name] for name in NAMES] for w in weights])
    unknown = np.full(len(runs), np.nan)
    return RunTable(runs, tuple(NAMES), ("x",), shares, np.array(tokens), unknown, np.array(losses)[:, None])


def fit(table, draws=60):
    found = DDOSweep.of(table, "base", OBJECTIVE)
    return found.fitted.optimum(), intervals([each.optimum() for each in found.redrawn(draws=draws)])


def widths(ranges):
    return sum(high - low for low, high in ranges.values())


@pytest.mark.slow
def test_nine_of_ten_intervals_hold_what_endless_seeds_would_give():
    truth, _ = fit(sweep(1e-9, 2, np.random.default_rng(0)))
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(25):
        _, ranges = fit(sweep(0.003, 4, rng))
        inside += [ranges[name][0] <= truth[name] <= ranges[name][1] for name in NAMES]
    assert 0.8 <= np.mean(inside) <= 1.0  # 75 weights, three to a table: 0.9 within two standard errors


def test_intervals_shrink_with_the_noise_and_hold_the_estimate():
    estimate, narrow = fit(sweep(1e-4, 3, np.random.default_rng(1)))
    _, wide = fit(sweep(4e-3, 3, np.random.default_rng(1)))
    assert widths(narrow) < widths(wide) / 4
    assert all(low - 1e-3 <= estimate[name] <= high + 1e-3 for name, (low, high) in narrow.items())


def test_the_path_inherits_the_intervals_of_its_optima():
    def file(weights, spread):
        ranges = {name: (w / spread, w * spread) for name, w in weights.items()}
        return WeightsFile(DomainWeights(weights), intervals=ranges)

    one, two = {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.4, "b": 0.3, "c": 0.3}
    optima = [(1e6, DomainWeights(one)), (2e6, DomainWeights(two))]
    predicted = AutoScale.fit(optima).predict(8e6)
    precise, vague = ([(1e6, file(one, s)), (2e6, file(two, s))] for s in (1.001, 1.1))
    narrow, wide = (intervals([path(8e6) for path in path_draws(files, wrong=0)]) for files in (precise, vague))
    assert all(low <= predicted[name] <= high for name, (low, high) in narrow.items())
    assert 20 * widths(narrow) < widths(wide)
    # two steps beyond the last of two scales, an error of the ratio is doubled and added to that of the weight
    assert widths(wide) > 2 * sum(two[name] * (1.1 - 1 / 1.1) for name in NAMES)
    # however well the optima are known, the path may be wrong by as much as it moves
    for files in (precise, vague):
        whole = path_intervals(files, 8e6, predicted)
        assert widths(whole) > widths(wide)
        assert path_intervals(files, 1.9e6) == intervals([path(1.9e6) for path in path_draws(files, wrong=0)])
        assert all(
            low <= min(predicted[n], two[n]) and max(predicted[n], two[n]) <= high
            for n, (low, high) in whole.items()
            if n != "c"
        )
    assert path_intervals([(1e6, file(one, 1.1)), (2e6, WeightsFile(DomainWeights(two)))], 8e6) == {}


def test_no_interval_of_a_path_reaches_below_its_floor():
    floor, ranges = 0.05, {"a": (0.3, 0.9), "b": (0.01, 0.3), "c": (0.01, 0.2)}
    optima = [
        (scale, WeightsFile(DomainWeights(weights), scale, "", ranges))
        for scale, weights in ((1e9, {"a": 0.6, "b": 0.3, "c": 0.1}), (2e9, {"a": 0.7, "b": 0.22, "c": 0.08}))
    ]
    found = path_intervals(optima, 4e9, floor=floor)
    assert min(low for low, _ in found.values()) >= floor - 1e-12

"""Intervals that hold on runs left out: checkpoints that are alike, laws that are wrong, scales beyond the table."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import selection, table_fits
from autoscale_ds.laws.calibration import UNKNOWN
from autoscale_ds.laws.holdout import origins, thinned
from autoscale_ds.laws.score import score, within_scale
from autoscale_ds.mixture import Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.search import solver

TOKENS = (1e9, 2e9, 4e9, 8e9)


def with_runs(table, shared, seed=3):
    """Add noise that all checkpoints of a run share, the rows of one mixture and size."""
    designs = np.column_stack([np.round(table.weights, 6), table.parameters])
    _, run = np.unique(designs, axis=0, return_inverse=True)
    noise = shared * np.random.default_rng(seed).normal(size=(run.max() + 1, len(table.targets)))
    return replace(table, losses=table.losses + noise[run.ravel()])


def coverage(fitted, table):
    return score(fitted, table)["mean"]["coverage"]


def test_checkpoints_of_a_run_do_not_count_as_runs():
    truth = World("exposure", m=4, targets=1, seed=4, tokens=TOKENS)
    single = with_runs(truth.table(40, noise=0.002, crossed=True), 0.02)
    fitted, alone = (
        table_fits.fit_law(t, "exposure", draws=24) for t in (single, single.take(single.tokens == TOKENS[-1]))
    )
    x = alone.inputs(single.weights[:20], TOKENS[-1], single.parameters[:20])
    of_all = fitted.spread(fitted.inputs(single.weights[:20], TOKENS[-1], single.parameters[:20])).mean()
    # Four checkpoints of 40 runs tell hardly more about a mixture than one of each.
    assert of_all > 0.6 * alone.spread(x).mean()
    assert fitted.noise[0] == pytest.approx(0.02, rel=0.4)


@pytest.mark.slow
def test_runs_of_left_out_mixtures_lie_within_their_intervals():
    covered = []
    for seed in range(6):
        truth = World("exposure", m=4, targets=2, seed=seed, tokens=TOKENS)
        table = with_runs(truth.table(40, noise=0.005, crossed=True, seed=seed), 0.015, seed)
        unseen = with_runs(truth.table(40, noise=0.005, crossed=True, seed=seed + 50), 0.015, seed + 50)
        covered.append(coverage(selection.fit(table, "exposure", draws=16), unseen))
    # 6 x 40 runs of 2 targets; rows of a run are alike, so 480 count: .9 within 3 binomial standard errors is .04.
    assert np.mean(covered) == pytest.approx(0.9, abs=0.05)


@pytest.mark.slow
def test_a_law_that_misfits_says_so():
    """What is linear in the log is fitted by a line: only left-out runs can tell how wrong that is."""
    truth = World("exposure", m=5, targets=2, seed=2)
    table, unseen = truth.table(60, noise=0.001), truth.table(200, noise=0.001, seed=5)
    plain, calibrated = table_fits.fit_law(table, "linear"), selection.fit(table, "linear")
    assert coverage(calibrated, unseen) > 0.85
    assert coverage(calibrated, unseen) >= coverage(plain, unseen) - 0.02


@pytest.mark.slow
def test_one_step_beyond_the_table_in_tokens_the_intervals_hold():
    truth = World("additive", m=4, targets=3, seed=6, tokens=(*TOKENS, 16e9), sizes=(1e8,))
    everything = truth.table(30, noise=0.004, crossed=True)
    known, beyond = (everything.take(rows) for rows in (everything.tokens < 10e9, everything.tokens > 10e9))
    for law in ("exposure", "log-linear", "linear"):  # the truth is another: all extrapolate wrongly
        fitted = selection.fit(known, law, draws=16)
        assert fitted.calibration.origins["tokens"] >= 1
        assert coverage(fitted, beyond) >= 0.8, law


def test_where_nothing_larger_can_be_left_out_the_error_is_assumed():
    table = World("exposure", m=4, targets=1, tokens=(1e9, 2e9)).table(20, crossed=True)
    calibration = selection.fit(table, "exposure", draws=2).calibration
    assert (calibration.tokens, calibration.origins["tokens"]) == (UNKNOWN, 0)


def test_origins_leave_two_scales_below_and_one_beyond():
    values = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 3)
    cuts = list(origins(values))
    assert 1 <= len(cuts) <= 3
    for below, beyond in cuts:
        assert len(set(values[below])) >= 2
        assert values[beyond].min() > values[below].max()
    assert list(origins(np.array([1.0, 1.0, 2.0]))) == []
    assert list(origins(np.zeros(4))) == []
    spread = list(origins(np.geomspace(1, 100, 60)))
    assert [len(below) + len(beyond) for below, beyond in spread] == [60] * 3


def test_large_tables_keep_five_token_counts_from_first_to_last():
    tokens = tuple(float(t) for t in range(10, 32))
    table = World("exposure", m=4, targets=1, tokens=tokens).table(30, crossed=True)
    small = thinned(table)
    assert len(table) == 660
    assert len(small) == 150
    assert (small.tokens.min(), small.tokens.max()) == (10.0, 31.0)
    assert len(thinned(small)) == 150


def test_differences_within_a_scale_know_no_level():
    table = World("exposure", m=4, targets=2, tokens=TOKENS).table(10, crossed=True)
    moved = table.losses + np.log(table.tokens)[:, None]
    assert within_scale(moved, table) == pytest.approx(within_scale(table.losses, table))
    lone = replace(table, tokens=np.geomspace(1e9, 8e9, len(table)))
    assert np.abs(within_scale(2 + 3 * np.log(lone.tokens)[:, None], lone)).max() < 1e-6


def test_the_best_mixture_and_the_forecast_may_need_other_laws():
    """One candidate orders mixtures perfectly at a wrong level, the other knows the level and no order."""
    table = World("exposure", m=4, targets=2, tokens=TOKENS).table(30, crossed=True)
    shift = {"mixtures": table.losses + 0.5 + 0.1 * np.log(table.tokens)[:, None]}
    level = {"mixtures": table.losses - 0.7 * within_scale(table.losses, table)}
    assert selection.error(table, shift, "optimum") < 1e-9
    assert selection.error(table, shift, "optimum") < selection.error(table, level, "optimum")
    assert selection.error(table, level, "forecast") < selection.error(table, shift, "forecast")


def test_trees_are_not_chosen_and_not_asked_beyond_the_table():
    pytest.importorskip("lightgbm")
    table = World("exposure", m=4, targets=1, tokens=TOKENS).table(12, crossed=True)
    assert "regmix" not in selection.fit(table, draws=2).law
    trees = table_fits.fit_law(table, "regmix", draws=2)
    trees.refuse_beyond(2e9, None)
    with pytest.raises(MixtureError, match=r"trees stay constant outside the table's 1e.09 to 8e.09"):
        trees.refuse_beyond(16e9, None)
    with pytest.raises(MixtureError, match=r"cannot say what happens at 1e.08 tokens"):
        trees.refuse_beyond(1e8, None)


def test_a_domain_gets_no_more_than_some_run_gave_it_unless_allowed():
    truth = World("exposure", m=4, targets=1, seed=1)
    table = truth.table(60)
    best = solver.minimum(
        solver.Goal(table_fits.fit_law(table, "exposure", draws=0), Objective.of_kind("mean-loss", table.targets), 1e9),
        Bounds.of(list(table.domains)),
    )
    name = max(best, key=best.get)
    kept = table.take(table.weights[:, table.domains.index(name)] < 0.5 * best[name])
    fitted = selection.fit(kept, "exposure", draws=2)
    goal = solver.Goal(fitted, Objective.of_kind("mean-loss", fitted.targets), 1e9)
    held = solver.minimum(goal, solver.seen_bounds(fitted))
    free = solver.minimum(goal, solver.seen_bounds(fitted, allow_unseen=True))
    seen = kept.weights[:, table.domains.index(name)].max()
    assert free[name] > seen + 0.05
    assert held[name] == pytest.approx(seen)
    warned = fitted.warnings(held, 1e9, None, optimum=True)
    assert any(f"{name} is held at" in text and "--allow-unseen" in text for text in warned)
    # Caps that leave no mixture give way: what the user asked for holds.
    others = dict.fromkeys([other for other in fitted.domains if other != name], 0.1)
    assert solver.seen_bounds(fitted, 0.0, others).caps[fitted.domains.index(name)] == 1.0


def test_tokens_and_size_beyond_the_table_are_both_said_the_louder_the_farther():
    truth = World("exposure", m=4, targets=1, tokens=TOKENS, sizes=(1e7, 1e8))
    fitted = selection.fit(truth.table(12, crossed=True), "exposure", draws=2)
    weights = dict.fromkeys(fitted.domains, 0.25)
    assert fitted.warnings(weights, 8e9, 1e8) == []
    tokens, size = fitted.warnings(weights, 24e9, 3e8)
    assert "2.4e+10 tokens are 3 times the largest" in tokens
    assert "where larger runs were left out" in tokens
    assert "too few numbers of parameters" in size
    assert "1/2 of the smallest of the table (1e+09)" in fitted.warnings(weights, 5e8, 1e8)[0]
    assert "MUCH FARTHER" in fitted.warnings(weights, 1e12, 1e8)[0]


def test_runs_of_one_mixture_teach_nothing_about_weights():
    table = World("exposure", m=4, targets=1).table(12)
    same = replace(table, weights=np.repeat(table.weights[:1], 12, axis=0))
    for law in ("auto", "exposure"):
        with pytest.raises(MixtureError, match="all 12 runs have the same mixture"):
            selection.fit(same, law)


@pytest.mark.parametrize(("rows", "tokens"), [(4, (1e9,)), (8, (1e9, 2e9, 4e9))])
def test_a_table_too_small_to_leave_runs_out_is_still_fitted(rows, tokens):
    """Of so few runs some splits leave fewer than a fit asks for; those say nothing about the intervals."""
    table = World("linear", m=2, targets=1, tokens=tokens).table(rows)
    fitted = selection.fit(table, "linear", draws=2)
    low, high = fitted.intervals(fitted.inputs(table.weights, table.tokens, table.parameters))
    assert (low < high).all()

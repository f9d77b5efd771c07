"""Curves of known runs are found again, their intervals hold, and what cannot be predicted is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import score_runs

from autoscale_ds.errors import ScoreError
from autoscale_ds.laws import estimation
from autoscale_ds.scores import ScoreTable, curves, fitting, scorefile

LADDER = Path(__file__).parents[3] / "shared" / "data" / "curves" / "olmo_ladder.csv.gz"
CHANCE = {"easy": 0.25, "hard": 0.25, "pairs": 0.5}


@pytest.fixture(scope="module")
def model():
    return fitting.fit(score_runs.ladder(lost=True), CHANCE)


def test_derivatives_of_both_curves_equal_differences():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.6, 2.0, 9)
    inputs = curves._inputs(1e8, 1e9, rng.uniform(1e8, 1e9, 9), rng.uniform(1e9, 1e11, 9))
    cases = [
        (curves.bits_layout(1e8, 1e9, x), lambda p: curves._log_bits(p, inputs)),
        (curves.score_layout(x, x / 3, 0.25), lambda p: curves._score(p, x)),
    ]
    for layout, evaluate in cases:
        problem = estimation.problem(evaluate, layout, np.zeros(9))
        theta = problem.centre + 0.1 * rng.random(len(layout))
        steps = 1e-6 * np.eye(len(layout))
        by = [(problem.model(theta + step)[0] - problem.model(theta - step)[0]) / 2e-6 for step in steps]
        np.testing.assert_allclose(problem.model(theta)[1], np.stack(by, 1), rtol=1e-5, atol=1e-7)


def test_clean_runs_give_the_true_scores_four_times_larger():
    """With hardly any noise the extrapolation is as good as exact, although the high end is never seen."""
    table = score_runs.ladder(bits_noise=1e-4, score_noise=1e-4)
    clean = fitting.fit(table, CHANCE)
    tokens = np.array([3e10, 3e11])
    for task, its in clean.predict([score_runs.LARGE] * 2, tokens).items():
        truth = score_runs.bits(task, score_runs.LARGE, tokens)
        np.testing.assert_allclose(its.bits, truth, rtol=2e-3)
        np.testing.assert_allclose(its.scores, score_runs.score(task, truth), atol=4e-3)


def test_intervals_hold_nine_in_ten_runs_of_a_larger_size():
    """Four tables, three tasks, four lengths: each a new fit and new runs, seeds fixed."""
    inside, widths = [], []
    for seed in range(4):
        fitted = fitting.fit(score_runs.ladder(seed=seed, bits_noise=0.015), CHANCE, seed=seed)
        new = score_runs.ladder((score_runs.LARGE,), seed=100 + seed, bits_noise=0.015)
        ends = new.take(new.is_end)
        for k, its in enumerate(fitted.predict(ends.parameters, ends.tokens).values()):
            inside.extend((its.low <= ends.scores[:, k]) & (ends.scores[:, k] <= its.high))
            widths.extend(its.high - its.low)
    assert np.mean(inside) >= 0.8
    assert np.median(widths) < 0.12


def test_a_score_that_follows_nothing_is_called_unpredictable_and_the_others_are_not(model):
    doubts = {name: task.check.doubt for name, task in model.tasks.items()}
    assert doubts.pop("lost")
    assert set(doubts.values()) == {None}
    assert all(task.check.runs == 4 + 4 + 4 for task in model.tasks.values())  # the largest two sizes, the longest runs


def test_a_score_that_is_constant_is_called_unpredictable():
    table = score_runs.ladder(score_runs.SIZES[:3], score_runs.LENGTHS[:2]).with_tasks(["easy"])
    fitted = fitting.fit(replace(table, scores=np.full_like(table.scores, 0.5)))
    assert "does not follow" in fitted.tasks["easy"].check.doubt


def test_runs_are_left_out_with_all_larger_sizes_and_the_longest_of_each_size():
    table = score_runs.ladder()
    *sizes, lengths = fitting.left_out(table)
    for size, (fitted, held) in zip(score_runs.SIZES[2:], sizes, strict=True):
        assert set(table.parameters[held]) == {size}
        assert set(table.parameters[fitted]) == {other for other in score_runs.SIZES if other < size}
    fitted, held = lengths
    assert (held ^ fitted).all()
    assert {run.split("x")[1] for run in table.take(held).runs} == {"100"}
    assert list(fitting.left_out(score_runs.ladder(score_runs.SIZES[:2], score_runs.LENGTHS[:2]))) == []


def test_a_table_of_one_size_predicts_that_size_alone():
    lengths = score_runs.ladder((4e8,), (5.0, 10.0, 20.0, 50.0, 100.0)).with_tasks(["easy"])
    fitted = fitting.fit(lengths, CHANCE)
    assert 0.25 < fitted.predict([4e8], [8e10])["easy"].scores[0] < 1
    with pytest.raises(ScoreError, match=r"8e\+08 asked, but all runs of the table have one size, 4e\+08"):
        fitted.predict([8e8], [8e10])


def test_a_fitted_file_predicts_the_same(model, tmp_path):
    scorefile.save(replace(model, files=("runs.csv",)), tmp_path / "scores.json")
    again = scorefile.load(tmp_path / "scores.json")
    assert again.files == ("runs.csv",)
    assert again.chance == CHANCE
    asked = [1e9, 3e9], [1e10, 1e11]
    for name, its in model.predict(*asked).items():
        for field in ("bits", "scores", "low", "high"):
            np.testing.assert_allclose(getattr(again.predict(*asked)[name], field), getattr(its, field), rtol=1e-4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (score_runs.ladder((1e8,), (10.0, 20.0, 50.0)), "task 'easy' was measured in 3 runs, a fit needs at least 4"),
        (
            replace(
                score_runs.ladder((1e8,), (10.0,) * 1), runs=tuple(f"r{i}" for i in range(15)), tokens=np.full(15, 1e9)
            ),
            "all runs of task 'easy' have one size and one length",
        ),
    ],
)
def test_too_little_is_refused(table, message):
    with pytest.raises(ScoreError, match=message):
        fitting.fit(table)


@pytest.mark.skipif(not LADDER.exists(), reason="the OLMo ladder's table is not beside the repository")
def test_scores_of_the_ladders_3b_runs_are_predicted_from_760m():
    """Three of the twenty sets of benchmarks/scores.py, with its limit for the mean of all."""
    from benchmarks import scores as benchmark

    tasks = ["arc_easy_test_rc_5shot", "hellaswag_val_rc_5shot", "piqa_val_rc_5shot"]
    table = benchmark.read(str(LADDER)).with_tasks([*tasks, "boolq_val_rc_5shot"])
    fitted = fitting.fit(table.take(table.parameters < 0.8e9), {"piqa_val_rc_5shot": 0.5, "boolq_val_rc_5shot": 0.5})
    target = table.take((table.parameters > 3e9) & table.is_end)
    predicted = fitted.predict(target.parameters, target.tokens)
    assert fitted.tasks["boolq_val_rc_5shot"].check.doubt
    errors = []
    for name in tasks:
        its, measured = predicted[name], target.scores[:, target.tasks.index(name)]
        errors.append(np.abs(its.scores - measured).mean())
        assert np.mean((its.low <= measured) & (measured <= its.high)) >= 0.8
        assert fitted.tasks[name].check.doubt is None
    assert np.mean(errors) < 0.025


def test_a_table_joins_others_and_knows_the_ends_of_its_runs(tmp_path):
    first = score_runs.ladder((1e8,)).with_tasks(["easy"])
    second = score_runs.ladder((2e8,)).with_tasks(["easy", "hard"])
    score_runs.write(first, tmp_path / "a.csv")
    score_runs.write(second, tmp_path / "b.csv")
    joined = ScoreTable.read([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert joined.tasks == ("easy", "hard")
    assert len(joined) == len(first) + len(second)
    assert joined.is_end.sum() == 8
    assert len(joined.of_task("hard")) == len(second)
    kept = first.take(np.lexsort((first.tokens, first.run)))  # runs by name
    np.testing.assert_array_equal(joined.of_task("easy").scores[: len(first)], kept.scores)

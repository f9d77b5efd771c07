"""Noise between seeds and effects beside it, against numbers worked out by hand and by SciPy."""

import numpy as np
import pytest
from scipy import stats

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import Objective, RunTable
from autoscale_ds.mixture.repeats import averaged, effects, is_clear, noise, paired


def table(rows):
    """Return a table of (run, weight of a, tokens, losses)."""
    runs, shares, tokens, losses = zip(*rows, strict=True)
    weights = np.array([[share, 1 - share] for share in shares])
    return RunTable(
        runs, ("a", "b"), ("x", "y"), weights, np.array(tokens), np.full(len(runs), np.nan), np.array(losses, float)
    )


SEEDS = table(
    [
        ("base@0", 0.5, 100.0, (3.0, 4.0)),
        ("base@1", 0.5, 100.0, (3.2, 4.4)),
        ("low/a@0", 0.25, 100.0, (3.3, 4.0)),
        ("low/a@1", 0.25, 100.0, (3.54, 4.36)),
        ("high/a@0", 0.75, 100.0, (2.9, 4.3)),
        ("base@0", 0.5, 200.0, (2.0, 3.0)),
    ]
)
MEAN = Objective.of_kind("mean-loss", ("x", "y"))


def test_averaging_gives_one_row_a_design_and_token_count():
    means = averaged(SEEDS)
    assert means.runs == ("base", "low/a", "high/a", "base")
    assert means.losses == pytest.approx(np.array([[3.1, 4.2], [3.42, 4.18], [2.9, 4.3], [2.0, 3.0]]))
    assert means.tokens.tolist() == [100, 100, 100, 200]


def test_a_table_without_seeds_is_its_own_average():
    plain = table([("r1", 0.5, 100.0, (3.0, np.nan)), ("r2", 0.4, 100.0, (3.1, 4.0))])
    means = averaged(plain)
    assert means.runs == plain.runs
    np.testing.assert_array_equal(means.losses, plain.losses)


def test_a_loss_missing_for_one_seed_is_the_mean_of_the_others():
    means = averaged(table([("r@0", 0.5, 1.0, (3.0, np.nan)), ("r@1", 0.5, 1.0, (4.0, 5.0))]))
    assert means.losses.tolist() == [[3.5, 5.0]]


def test_a_design_is_set_beside_its_base_seed_by_seed_where_the_base_has_more_seeds():
    found = paired(SEEDS.take(np.arange(5)), "base", ["low/a", "high/a"])
    assert found.runs == ("base", "low/a", "high/a")
    # base (3.1, 4.2); low/a is (.3, 0) and (.34, -.04) above it, high/a, of seed 0 alone, (-.1, .3)
    assert found.losses == pytest.approx(np.array([[3.1, 4.2], [3.42, 4.18], [3.0, 4.5]]))


def test_noise_is_pooled_over_repeated_designs():
    spread, freedom = noise(SEEDS)
    # variances with one degree of freedom each: x .02 and .0288, y .08 and .0648
    assert freedom == 2
    assert spread == pytest.approx(np.sqrt([(0.02 + 0.0288) / 2, (0.08 + 0.0648) / 2]))


def test_an_effect_is_the_mean_of_paired_differences_with_its_standard_error():
    at_100 = SEEDS.take([0, 1, 2, 3, 4])
    low, high = effects(at_100, "base", MEAN)
    # means 3.5, 3.8 | 3.65, 3.95 | 3.6: every pair differs by .15, high/a has one seed
    assert (low.difference, low.seeds, high.seeds) == (pytest.approx(0.15), 2, 1)
    assert high.difference == pytest.approx(0.1)
    assert low.standard_error == pytest.approx(0.0, abs=1e-12)


def test_with_one_design_the_ratio_is_the_paired_t_statistic():
    rng = np.random.default_rng(0)
    base, other = rng.normal(3, 0.1, 6), rng.normal(3.2, 0.1, 6)
    rows = [(f"base@{i}", 0.5, 1.0, (v, v)) for i, v in enumerate(base)]
    rows += [(f"other@{i}", 0.4, 1.0, (v, v)) for i, v in enumerate(other)]
    (found,) = effects(table(rows), "base", MEAN)
    assert found.ratio == pytest.approx(abs(stats.ttest_rel(other, base).statistic))


def test_effects_within_the_noise_are_not_clear_and_unknown_noise_is_neither():
    rng = np.random.default_rng(1)
    rows = [(f"{d}@{s}", 0.5, 1.0, tuple(rng.normal(3, 0.1, 2))) for d in ("base", "p", "q", "r") for s in range(3)]
    assert is_clear(effects(table(rows), "base", MEAN)) is False
    clear = [(r, w, t, tuple(np.array(x) + (0.9 if r[0] != "b" else 0))) for r, w, t, x in rows]
    assert is_clear(effects(table(clear), "base", MEAN)) is True
    assert is_clear(effects(table([row for row in rows if row[0].endswith("@0")]), "base", MEAN)) is None


def test_designs_without_a_seed_in_common_cannot_be_compared():
    with pytest.raises(MixtureError, match="no seed in common"):
        effects(table([("base@0", 0.5, 1.0, (3, 3)), ("p@1", 0.4, 1.0, (3, 3))]), "base", MEAN)
    with pytest.raises(MixtureError, match="'none' is not in the table"):
        effects(SEEDS.take([0, 2]), "none", MEAN)


def test_columns_say_which_runs_repeat_each_other(tmp_path):
    head = "run,design,seed,tokens,weight/a,weight/b,loss/x\n"
    rows = ["first,base,0,100,0.5,0.5,3.0", "second,base,1,100,0.5,0.5,3.2", "third,low@a,0,100,0.25,0.75,3.3"]
    (tmp_path / "runs.csv").write_text(head + "\n".join(rows) + "\n")
    runs = RunTable.read(tmp_path / "runs.csv")
    assert averaged(runs).runs == ("base", "low@a")
    (effect,) = effects(runs, "base", Objective.of_kind("mean-loss", ("x",)))
    assert (effect.seeds, effect.difference) == (1, pytest.approx(0.3))
    runs.write(tmp_path / "copy.csv")
    copy = RunTable.read(tmp_path / "copy.csv")
    assert (copy.designs, copy.seeds) == (("base", "base", "low@a"), ("0", "1", "0"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,q,0,1,.5,.5,3", "b,q,1,1,.4,.6,3"], r"'a' and 'b' are called seeds.*'q'.*weight/a is 0\.5 and 0\.4"),
        (["a,q,0,1,.5,.5,3", "b,q,0,1,.5,.5,3"], "'a' and 'b' are both seed '0' of design 'q' at 1 tokens"),
        (["a,q,,1,.5,.5,3", "b,q,,1,.5,.5,3"], "'a' and 'b' are both seed '' of design 'q'"),
    ],
)
def test_what_is_no_repeat_is_not_averaged(tmp_path, rows, message):
    head = "run,design,seed,tokens,weight/a,weight/b,loss/x\n"
    (tmp_path / "runs.csv").write_text(head + "\n".join(rows) + "\n")
    with pytest.raises(MixtureError, match=message) as error:
        RunTable.read(tmp_path / "runs.csv")
    assert "\n" not in str(error.value)


def test_names_that_call_different_mixtures_seeds_are_refused(tmp_path):
    table([("r@0", 0.5, 1.0, (3, 3)), ("r@1", 0.4, 1.0, (3, 3))]).write(tmp_path / "runs.csv")
    with pytest.raises(MixtureError, match=r"'r@0' and 'r@1' are called seeds of one design.*the name before the @"):
        RunTable.read(tmp_path / "runs.csv")


def test_rounded_weights_of_a_repeat_and_checkpoints_whose_weights_moved_are_accepted(tmp_path):
    rows = [("r@0", 0.3333, 1.0, (3, 3)), ("r@1", 0.333, 1.0, (3, 3)), ("r@0", 0.4, 2.0, (3, 3))]
    table(rows).write(tmp_path / "runs.csv")
    assert averaged(RunTable.read(tmp_path / "runs.csv")).tokens.tolist() == [1.0, 2.0]


def test_tables_of_one_name_in_two_folders_stay_apart(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        SEEDS.take([0, 1]).write(tmp_path / name / "runs.csv")
    paths = [tmp_path / name / "runs.csv" for name in ("one", "two")]
    assert len(averaged(RunTable.read(paths))) == 2
    with pytest.raises(MixtureError, match="occurs twice"):
        RunTable.read([paths[0], paths[0]])


def test_names_say_it_where_a_table_lacks_the_columns():
    assert (SEEDS.designs[3], SEEDS.seeds[3]) == ("low/a", "1")
    assert SEEDS.take([3]).designs == ("low/a",)


def test_two_tables_with_the_same_names_stay_apart(tmp_path):
    for name in ("a", "b"):
        SEEDS.take([0, 1]).write(tmp_path / f"{name}.csv")
    both = RunTable.read([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert both.designs == ("a:base", "a:base", "b:base", "b:base")

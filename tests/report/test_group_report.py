from dataclasses import replace

import numpy as np
import pytest
from folders import SEVEN, loss_at, weights_of, write_run
from pages import Page, run_tool

from autoscale_ds.errors import ReportError
from autoscale_ds.report import run_page
from autoscale_ds.report.build import build
from autoscale_ds.report.common import on_common_ground
from autoscale_ds.report.groups import group_runs, race
from autoscale_ds.report.reading import read_run

UNIFORM, SWAPPED = (0.0, 0.02, 0.01), (-0.1, -0.07, -0.09)


def write_groups(folder):
    """Two groups of three seeds; the second swaps once and lies about a tenth of a nat lower."""
    swap = [(50, weights_of(SEVEN, "github"), "AutoScale")]
    uniform = [write_run(folder / f"uniform-{s}", SEVEN, seed=s, shift=x) for s, x in enumerate(UNIFORM)]
    swapped = [write_run(folder / f"swapped-{s}", SEVEN, seed=s, shift=x, swaps=swap) for s, x in enumerate(SWAPPED)]
    return uniform, swapped


def mean_perplexity(tokens, shift):
    return np.mean([np.exp(loss_at(tokens, i, shift)) for i in range(7)])


def test_runs_that_differ_in_folder_and_seed_only_are_one_group(tmp_path):
    uniform, swapped = write_groups(tmp_path)
    groups = group_runs([read_run(path) for path in [*uniform, *swapped]], {})
    assert [group.label for group in groups] == ["0 swaps", "1 swap"]
    assert [[run.name for run in group.runs] for group in groups] == [
        [path.name for path in uniform],
        [path.name for path in swapped],
    ]


def test_groups_are_named_by_what_distinguishes_them(tmp_path):
    slow = write_run(tmp_path / "a", overrides=[("optimizer.learning_rate", 1e-4)])
    fast = write_run(tmp_path / "b", overrides=[("optimizer.learning_rate", 1e-3)])
    many = write_run(tmp_path / "c_seed3", steps=300, overrides=[("model.layers", 3), ("model.heads", 3)])
    labels = [group.label for group in group_runs([read_run(slow), read_run(fast)], {})]
    assert labels == ["learning_rate 0.0001", "learning_rate 0.001"]
    assert [group.label for group in group_runs([read_run(p) for p in (slow, fast, many)], {})] == ["a", "b", "c"]
    named = group_runs([read_run(slow)], {"mine": [read_run(fast)]})
    assert [group.label for group in named] == ["mine", "a"]


def test_the_default_target_is_reached_by_every_seed_of_the_first_group(tmp_path):
    uniform, swapped = write_groups(tmp_path)
    groups = group_runs([read_run(path) for path in [*uniform, *swapped]], {})
    found = race(groups, None)
    assert found.target == pytest.approx(mean_perplexity(200_000, max(UNIFORM)))
    assert found.reached["0 swaps"][1] == pytest.approx(200_000)
    # Between evaluations the tokens are interpolated, so the closed form is met within the grid's curvature.
    reached = found.reached["1 swap"][0]
    assert mean_perplexity(reached, SWAPPED[0]) == pytest.approx(found.target, rel=1e-3)
    ratios = [found.reached["0 swaps"][s] / found.reached["1 swap"][s] for s in range(3)]
    assert found.speed_ups["1 swap"].ratio == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert found.speed_ups["1 swap"].low > 1


def test_groups_are_reported_side_by_side(tmp_path):
    uniform, swapped = write_groups(tmp_path)
    page = Page(build([*uniform, *swapped], tmp_path / "out")).check()
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == {"compare_loss", "compare_perplexity", "compare_domains", "compare_tokens_to_target",
                     "weights_0", "weights_1"}  # fmt: skip
    assert page.row("1 swap")[1] == "0"  # the table of runs: seed
    assert next(row for row in page.rows if row[:2] == ["1 swap", "3 of 3 seeds"])[-1] == "3 pairs"
    wikipedia = [f"{np.mean([loss_at(200_000, 6, x) for x in shifts]):.4g}" for shifts in (UNIFORM, SWAPPED)]
    assert [cell.split(" ±")[0] for cell in page.row("wikipedia")[1:]] == wikipedia


def test_a_target_nobody_reaches_is_said_so(tmp_path):
    uniform, swapped = write_groups(tmp_path)
    page = Page(build([*uniform, *swapped], tmp_path / "out", target=1.5)).check()
    assert page.text.count("not reached") == 2
    assert page.text.count("0 of 3 seeds") == 2
    page = Page(build([*uniform, *swapped], tmp_path / "out", target=1e6)).check()
    assert page.text.count("before training") == 2
    with pytest.raises(ReportError, match="target perplexity is -3, expected a positive number"):
        build(uniform, tmp_path / "out", target=-3.0)


def test_runs_still_going_and_runs_without_validation_are_compared_as_far_as_they_are(tmp_path):
    ahead = write_run(tmp_path / "ahead", seed=0)
    behind = write_run(tmp_path / "behind", seed=1, done=110)
    other = write_run(tmp_path / "other", seed=0, done=30, evaluate_every=None, steps=300)
    page = Page(build([ahead, behind, other], tmp_path / "out")).check()
    assert "not finished; the newest record" in page.text
    assert "0 of 1 seeds" in page.text
    first = group_runs([read_run(path) for path in (ahead, behind)], {})[0]
    assert first.end == 100_000
    assert first.final("loss").mean == pytest.approx(np.mean([loss_at(100_000, i) for i in range(3)]))
    Page(build([other, ahead], tmp_path / "out2")).check()


def test_the_same_seed_twice_in_a_group_is_refused(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(ReportError, match="are one group and have the same seed 0"):
        build(runs, tmp_path / "out")


def test_the_tool_takes_named_groups_and_refuses_malformed_ones(tmp_path):
    uniform, swapped = write_groups(tmp_path)
    labels = [f"{name}={','.join(map(str, runs))}" for name, runs in (("base", uniform), ("ours", swapped))]
    done = run_tool("--label", labels[0], "--label", labels[1], "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert Page(tmp_path / "out" / "index.html").check().row("ours")
    for wrong in (["--label", "base"], ["--label", "a=x", "--label", "a=y"], []):
        failed = run_tool(*wrong, "--out", tmp_path / "out")
        assert failed.returncode == 2
        assert failed.stderr.count("\n") == 1, failed.stderr


def test_runs_of_different_domains_are_compared_by_those_they_share(tmp_path):
    names = ("books", "code", "web")
    three = write_run(tmp_path / "three", names)
    four = write_run(tmp_path / "four", (*names, "papers"))
    two = write_run(tmp_path / "two", names[:2])
    page = Page(build([three, four, two], tmp_path / "out")).check()
    assert "Means are over books, code; not every run validates papers, web." in page.text
    expected = np.mean([loss_at(200_000, i) for i in range(2)])
    means = next(row for row in page.rows if row[0] == "mean")
    assert [float(cell) for cell in means[1:]] == pytest.approx([expected] * 3, abs=1e-3)
    assert {row[0] for row in page.rows if row[0] in ("web", "papers")} == set()


def test_a_domain_of_other_validation_text_is_not_compared(tmp_path):
    texts = [{"books": "a", "code": "b"}, {"books": "a", "code": "other"}, None]  # the last does not say
    runs = [write_run(tmp_path / f"run-{i}", seed=i, validation_texts=each) for i, each in enumerate(texts)]
    groups = group_runs([], {"one": [read_run(run) for run in runs]})
    (group,), notes, _ = on_common_ground(groups)
    assert notes == [
        "Left out, because their validation text is not the same in all runs: code.",
        "Means are over books, web.",
    ]
    assert group.final("domain_loss", "code") is None
    assert group.final("loss").mean == pytest.approx(np.mean([loss_at(200_000, i) for i in (0, 2)]))
    changed = replace(read_run(runs[0]), validation_texts={"web": {"a", "b"}})
    assert on_common_ground(group_runs([], {"one": [changed]}))[1][0].endswith("in all runs: web.")
    assert "The validation text of web changed on the way" in run_page.sections(changed)[0][1][1]


def test_means_are_over_the_domains_that_every_validation_has(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    late = [{**r, "domain_loss": {k: x for k, x in r["domain_loss"].items() if k != "web" or r["step"] >= 100}}
            for r in run.validation]  # fmt: skip
    joined = replace(run, records={**run.records, "validation": late})
    (group,), notes, _ = on_common_ground(group_runs([], {"one": [joined]}))
    assert notes == ["Means are over books, code; some validations of a run, before or after others, lack web."]
    _, means, _, _ = group.curve("loss")
    expected = [np.mean([loss_at(tokens, i) for i in (0, 1)]) for tokens in range(0, 200_001, 20_000)]
    assert list(means) == pytest.approx(expected)
    assert group.final("domain_loss", "web").mean == pytest.approx(loss_at(200_000, 2))
    assert "not every validation has web" in run_page.sections(joined)[0][1][1]


def test_another_number_of_validation_windows_is_said(tmp_path):
    runs = [write_run(tmp_path / str(n), overrides=[("evaluation.windows_per_domain", n)]) for n in (8, 16)]
    notes = on_common_ground(group_runs([read_run(run) for run in runs], {}))[1]
    assert notes[-1].endswith("the runs validate on windows in these numbers: 8 of 100 tokens, 16 of 100 tokens.")


def test_runs_of_different_tokenizers_are_compared_by_bits_per_byte(tmp_path):
    small = write_run(tmp_path / "small", tokenizer="sha256:a", bytes_per_token=2.0)
    large = write_run(tmp_path / "large", tokenizer="sha256:b", bytes_per_token=4.0)
    silent = write_run(tmp_path / "silent", tokenizer="sha256:a", seed=5)
    page = Page(build([small, large, silent], tmp_path / "out")).check()
    assert "trained with 2 tokenizers, so they are compared by bits per byte" in page.text
    assert "Left out, because the bytes of their text are not known: silent." in page.text
    mean = np.mean([loss_at(200_000, i) for i in range(3)]) / np.log(2)
    means = next(row for row in page.rows if row[0] == "mean")
    assert [float(cell) for cell in means[1:]] == pytest.approx([mean / 2, mean / 4], abs=1e-3)
    assert "mean validation bits per byte of" in page.text
    assert {path.stem for path in (tmp_path / "out").glob("compare_*.png")} == {
        "compare_loss",
        "compare_domains",
        "compare_tokens_to_target",
    }

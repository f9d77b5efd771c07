import json

import numpy as np
import pytest
from folders import SEVEN, loss_at, weights_of, write_run
from pages import Page, png_size, run_tool

from autoscale_ds.errors import AutoScaleError, ReportError, ScoreError
from autoscale_ds.report import score_collecting
from autoscale_ds.report.build import build
from autoscale_ds.report.reading import read_run, shown
from autoscale_ds.report.run_figures import _swap_labels
from autoscale_ds.scores import ScoreTable

HOSTILE = '<script>alert("x")</script> & $\\frac{broken$ <img src=http://e.example/x> _under_ 漢字'
FIGURES = {"validation_loss", "validation_perplexity", "training_loss", "weights", "tokens"}


def test_a_run_with_seven_domains_and_three_swaps_is_reported_whole(tmp_path):
    swaps = [(60, weights_of(SEVEN, "github"), "AutoScale"), (100, weights_of(SEVEN, "books"), "user"),
             (150, weights_of(SEVEN), "back")]  # fmt: skip
    run = write_run(tmp_path / "run", SEVEN, swaps=swaps)
    page = Page(build([run])).check()
    assert build([run]) == run / "report" / "index.html"
    assert {path.stem for path in (run / "report").glob("*.png")} == FIGURES
    assert len(page.images) == 5
    for path in (run / "report").glob("*.png"):
        width, height = png_size(path)
        assert width > 1000
        assert height > 500
        assert path.stat().st_size > 15_000
    assert page.row("wikipedia")[1:3] == [f"{loss_at(0, 6):.4g}", f"{loss_at(200_000, 6):.4g}"]
    assert page.row("wikipedia")[4] == f"{np.exp(loss_at(200_000, 6)):.4g}"
    assert page.row("1")[1:5] == ["60", "60k", "user", "AutoScale"]
    assert "github 0.143 → 0.4" in page.row("1")[5]
    assert "finished" in page.text
    assert "200k of 200k (100.0%), step 200 of 200" in page.text


def test_consumed_tokens_and_epochs_add_up(tmp_path, small_corpus):
    folder = write_run(tmp_path / "run", corpus=small_corpus)
    run = read_run(folder)
    tokens, by_domain = run.consumed
    np.testing.assert_allclose(sum(by_domain.values()), tokens)
    assert tokens[-1] == 200_000
    # 9,000 tokens hold 89 windows of 100 tokens and the one token shared with the next.
    assert run.epochs("web", 17_800.0) == pytest.approx(2.0)
    page = Page(build([folder])).check()
    assert (folder / "report" / "epochs.png").exists()
    assert len(page.images) == 6
    assert f"{by_domain['web'][-1] / 8900:.4g}" in [row[-1] for row in page.rows if row[0] == "web"]


def test_text_from_files_is_escaped_in_the_page_and_literal_in_figures(tmp_path):
    names = ("_hidden", "a$b$c", "<b>bold</b>")
    run = write_run(tmp_path / "run", names, swaps=[(50, weights_of(names), HOSTILE)])
    path = build([run], title="<i>title</i>")
    page = Page(path)
    assert not {"script", "i", "b"} & set(page.tags)
    assert HOSTILE in page.row("1")
    assert page.row("<b>bold</b>")
    assert len(page.images) == 5


@pytest.mark.parametrize("reason", ["\ud800 alone", "a\x00b\x1b[31m", "two\nlines\r\n", "$" * 7, "\\$x$", "😀 " * 300])
def test_no_reason_is_too_odd_to_be_drawn(tmp_path, reason):
    run = write_run(tmp_path / "run", done=60)
    event = json.loads((run / "mixture" / "journal.jsonl").read_text())
    event |= {"version": 1, "effective_step": 30, "source": "user", "reason": reason}
    with open(run / "mixture" / "journal.jsonl", "a") as file:
        file.write(json.dumps(event) + "\n")
    Page(build([run])).check()


def test_a_live_run_with_a_torn_last_line_is_reported_up_to_it(tmp_path):
    run = write_run(tmp_path / "run", done=110)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write('{"kind": "train", "step": 120, "reason": "漢'.encode()[:-1])
    with open(run / "mixture" / "journal.jsonl", "a") as file:
        file.write('{"version": 1, "eff')
    page = Page(build([run])).check()
    assert "not finished; the newest record is" in page.text
    assert "step 110 of 200" in page.text


@pytest.mark.parametrize(
    ("done", "evaluate_every", "figures"),
    [
        (0, None, set()),
        (0, 20, {"validation_loss", "validation_perplexity"}),
        (10, None, {"training_loss", "weights", "tokens"}),
        (10, 20, FIGURES),
    ],
)
def test_runs_that_have_hardly_begun_are_reported(tmp_path, done, evaluate_every, figures):
    run = write_run(tmp_path / "run", done=done, evaluate_every=evaluate_every)
    page = Page(build([run]))
    assert {path.stem for path in (run / "report").glob("*.png")} == figures
    assert len(page.images) == len(figures)
    assert ("No validation has been recorded yet." in page.text) == (evaluate_every is None)


def test_a_run_that_has_written_nothing_but_its_configuration_is_reported(tmp_path):
    run = write_run(tmp_path / "run", done=0)
    (run / "metrics.jsonl").unlink()
    (run / "mixture" / "journal.jsonl").unlink()
    page = Page(build([run]))
    assert "nothing recorded yet" in page.text
    assert "The journal of weights is empty" in page.text


def test_a_corpus_that_moved_leaves_epochs_out_and_says_so(tmp_path):
    page = Page(build([write_run(tmp_path / "run")])).check()
    assert "Epochs are left out, because the corpus cannot be read" in page.text
    assert not (tmp_path / "run" / "report" / "epochs.png").exists()


def test_an_exhausted_domain_is_named(tmp_path):
    run = write_run(tmp_path / "run", exhausted={"code": 120})
    assert "Run out and at zero now: code." in Page(build([run])).check().text


def test_many_domains_are_drawn_by_their_tokens_and_listed_in_full(tmp_path):
    names = [f"domain{i:03d}" for i in range(120)]
    run = write_run(tmp_path / "run", names, swaps=[(40, weights_of(names, "domain077"), "one matters")])
    page = Page(build([run])).check()
    assert "The 9 domains with the most tokens; the tables have all." in page.text
    assert len([row for row in page.rows if row and row[0].startswith("domain0")]) >= 2 * 100
    drawn, rest = shown(names, {"domain077": 2.0, "domain003": 1.0}, 3)
    assert drawn == ["domain003", "domain077"]
    assert len(rest) == 118


def test_a_loss_that_was_not_finite_is_left_out_of_the_line(tmp_path):
    run = write_run(tmp_path / "run", done=40)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines).replace('"loss": 4', '"loss": null, "was": 4') + "\n")
    Page(build([run])).check()


def test_numbers_of_swaps_close_together_become_a_range():
    assert _swap_labels({1: 100.0, 3: 101.0, 4: 500.0}, 1000.0) == [(100.5, "1–3"), (500.0, "4")]
    assert len(_swap_labels({i: float(i) for i in range(1000)}, 1000.0)) == 1


def test_damaged_files_and_folders_that_are_no_run_are_refused(tmp_path):
    run = write_run(tmp_path / "run", done=20)
    with pytest.raises(AutoScaleError, match=r"no run folder: it has no config\.yaml"):
        build([tmp_path])
    with pytest.raises(AutoScaleError, match="no run folder"):
        build([tmp_path / "missing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"cannot write the report to .*file"):
        build([run], out=tmp_path / "file" / "below")
    for line in ("nonsense", '{"kind": "train", "step": 1}', '["kind"]', '{"step": 3}'):
        (run / "metrics.jsonl").write_text(line + "\n")
        with pytest.raises(ReportError, match=r"metrics\.jsonl is damaged"):
            build([run])


def test_the_tool_prints_the_path_of_the_page_and_mistakes_in_one_line(tmp_path):
    run = write_run(tmp_path / "run", done=20)
    done = run_tool(run, "--out", tmp_path / "out", "--title", "Twenty steps")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "index.html")
    assert "<title>Twenty steps</title>" in (tmp_path / "out" / "index.html").read_text()
    wrong = run_tool(tmp_path / "nothing-here")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert wrong.stderr.count("\n") == 1


def with_scores(folder, corpus, rate):
    """Write a run that scored two tasks at steps 0, 100 and 200; only quiz is a target too."""
    run = write_run(folder, corpus=corpus)
    with open(run / "metrics.jsonl", "a") as file:
        for step in (0, 100, 200):
            where = {"step": step, "tokens": step * 1000}
            score = {"quiz": 0.3 + rate * step, "other": 0.5}
            scores = {"score": score, "standard_error": {"quiz": 0.02}, "metrics": {}, "truncated": 0}
            bits = {"quiz": 1.5 - rate * step}
            targets = {"loss": 2.0, "target_loss": {"quiz": 2.0}, "perplexity": {"quiz": 7.4}, "bits_per_byte": bits}
            file.write(json.dumps({"kind": "targets", **where, **targets}) + "\n")
            file.write(json.dumps({"kind": "scores", **where, **scores}) + "\n")
    return run


def test_scores_of_tasks_are_drawn_and_collected_into_the_table_that_predictions_read(tmp_path, small_corpus):
    first, second = (with_scores(tmp_path / f"run{i}", small_corpus, 1e-3 * i) for i in (1, 2))
    page = Page(build([first])).check()
    assert png_size(first / "report" / "scores.png")[0] > 1000
    assert [row for row in page.rows if row[0] == "quiz"][-1] == ["quiz", "0.3", "0.5000 at 200k", "0.5", "0.02", "1.3"]

    rows, tasks = score_collecting.collect([str(first), str(second)], str(tmp_path / "table.csv"))
    assert (rows, tasks) == (4, ["quiz"])  # nothing is known of tokens 0
    table = ScoreTable.read([tmp_path / "table.csv"])
    assert table.runs == ("run1", "run1", "run2", "run2")
    assert table.tokens.tolist() == [100_000, 200_000] * 2
    np.testing.assert_allclose(table.scores[:, 0], [0.4, 0.5, 0.5, 0.7])
    np.testing.assert_allclose(table.bits[:, 0], [1.4, 1.3, 1.3, 1.1])
    assert table.parameters[0] == read_run(first).parameters > 1000


def test_runs_without_scores_cannot_be_collected(tmp_path, small_corpus):
    run = write_run(tmp_path / "run", corpus=small_corpus)
    with pytest.raises(ScoreError, match=r"no run has both a score and bits per byte of a task .* evaluation\.tasks"):
        score_collecting.collect([str(run)], str(tmp_path / "table.csv"))
    with pytest.raises(ScoreError, match="have the same name; rename one of them"):
        score_collecting.collect([str(run), str(run)], str(tmp_path / "table.csv"))
    assert not (tmp_path / "table.csv").exists()

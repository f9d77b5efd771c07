"""What tools/fit_mixture.py says to a user's mistake: one line, exit code 2, nothing lost."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from published import RUNS, optimum
from synthetic import World
from tools_in_process import ROOT, in_process

from autoscale_ds.laws import selection
from autoscale_ds.mixture import WeightsFile

fit_mixture = functools.partial(in_process, "fit_mixture.py")


TOOL = ROOT / "tools" / "fit_mixture.py"


def test_the_tool_runs_from_the_shell_and_ends_with_code_2_on_a_mistake(tmp_path):
    command = [sys.executable, TOOL, "fit", tmp_path / "none.csv", "--out", tmp_path / "law.json"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert done.stderr.startswith("error: run table")
    assert done.stdout == ""


def test_losses_that_never_change_are_refused(tmp_path):
    table = World("exposure", m=4, targets=2, tokens=(1e9, 4e9)).table(10, crossed=True)
    table.losses[:, 1] = 3.0
    table.write(tmp_path / "one.csv")
    table.losses[:] = 3.0
    table.write(tmp_path / "all.csv")
    for law in ("auto", "linear"):
        said = fit_mixture("fit", tmp_path / "one.csv", "--law", law, "--out", tmp_path / "law.json", code=2)
        assert "target 'domain1' is 3 in all 20 rows, so nothing tells what weights do to it" in said
        assert said.count("\n") == 1
    assert "equal losses" in fit_mixture("stability", tmp_path / "all.csv", code=2)
    assert not (tmp_path / "law.json").exists()


def bad_table(tmp_path: Path, change) -> Path:
    lines = (RUNS / "regmix_1m_test.csv").read_text().splitlines()[:60]
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(change([line.split(",") for line in lines])) + "\n")
    return path


def joined(rows):
    return [",".join(row) for row in rows]


def without_tokens(rows):
    return joined([[cell for i, cell in enumerate(row) if rows[0][i] != "tokens"] for row in rows])


def wrong_sum(rows):
    rows[5][3] = "0.9"
    return joined(rows)


def with_nan(rows):
    rows[5][-1] = "nan"
    return joined(rows)


@pytest.mark.parametrize(
    ("change", "law", "message"),
    [
        (without_tokens, "auto", "'tokens' is missing"),
        (wrong_sum, "auto", "weights sum to"),
        (with_nan, "auto", "nan or infinite"),
        (lambda rows: joined(rows[:6]), "auto", "5 usable rows"),
        (lambda rows: joined(rows[:9]), "additive", "parameters"),
        (joined, "exposure-budget", "another token count"),
        (joined, "exposur", "unknown"),
        (lambda rows: joined(rows[:1]), "auto", "no runs"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, change, law, message):
    said = fit_mixture("fit", bad_table(tmp_path, change), "--law", law, "--out", tmp_path / "law.json", code=2)
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "law.json").exists()


def test_other_mistakes_are_one_line_and_code_2(folder, tmp_path):
    out = ["--out", tmp_path / "w.json"]
    same = ["--at", f"1e9={tmp_path / 'w0.json'}"] * 2
    WeightsFile(optimum("0.3e9")).write(tmp_path / "w0.json")
    for arguments, message in (
        (["autoscale", *same, "--tokens", "1e10", *out], "the same"),
        (["autoscale", *same[:2], "--tokens", "1e10", *out], "two budgets"),
        (["optimize", folder / "law.json", "--tokens", "4e9", *out], "give --parameters"),
        (
            ["optimize", folder / "law.json", "--tokens", "4e9", "--parameters", "1e8", "--floor", 0.5, *out],
            "floor 0.5",
        ),
        (["score", tmp_path / "w0.json", folder / "held_out.csv"], "no fitted law"),
        (["stability", RUNS / "regmix_1m_test.csv"], "one scale only"),
        (["fit", folder / "runs.csv", "--out", tmp_path / "missing" / "law.json"], "does not exist"),
    ):
        said = fit_mixture(*arguments, code=2)
        assert message in said
        assert said.count("\n") == 1


def test_an_output_never_replaces_an_input_or_another_output(folder, tmp_path):
    law, runs, weights = tmp_path / "law.json", tmp_path / "runs.csv", tmp_path / "w.json"
    for path in (law, runs):
        path.write_bytes((folder / path.name).read_bytes())
    WeightsFile(optimum("0.3e9")).write(weights)
    before = {path: path.read_bytes() for path in (law, runs, weights)}
    at = ["--at", f"1e9={weights}", "--at", "2e9=w2.json", "--tokens", "4e9"]
    for arguments, message in (
        (["fit", runs, "--out", runs], "--out .* would replace the input .*runs.csv"),
        (["optimize", law, "--tokens", "4e9", "--out", law], "would replace the input .*law.json"),
        (["optimize", law, "--tokens", "4e9", "--prior", weights, "--kl", 1, "--out", weights], "the input .*w.json"),
        (["optimize", law, "--tokens", "4e9", "--objective", weights, "--out", weights], "the input .*w.json"),
        (["autoscale", *at, "--out", weights], "the input .*w.json"),
        (["autoscale", *at, "--out", tmp_path / "a.json", "--save-path", tmp_path / "a.json"], "what --out writes"),
        (["score", law, runs, "--plot", runs], "--plot .* would replace the input .*runs.csv"),
        (["fit", runs, "--out", ""], "--out: '' given, expected the name of a file"),
        (["fit", runs, "--out", tmp_path], "is a folder"),
    ):
        said = fit_mixture(*arguments, code=2)
        assert re.search(message, said), said
        assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before


def test_an_option_that_would_change_nothing_is_refused(folder, tmp_path):
    out = ["--out", tmp_path / "out.json"]
    law, runs = folder / "law.json", folder / "runs.csv"
    WeightsFile(optimum("0.3e9"), 1e9).write(tmp_path / "w1.json")
    WeightsFile(optimum("1.2e9"), 2e9).write(tmp_path / "w2.json")
    at = ["--at", f"1e9={tmp_path / 'w1.json'}", "--at", f"2e9={tmp_path / 'w2.json'}", "--tokens", "4e9"]
    swapped = ["--at", f"2e9={tmp_path / 'w1.json'}", "--at", f"1e9={tmp_path / 'w2.json'}", "--tokens", "4e9"]
    optimize = ["optimize", law, "--tokens", "4e9", "--parameters", "1e8"]
    design = ["design", "--domains", "a,b", "--tokens", "1e9"]
    for arguments, message in (
        ([*optimize, "--prior", tmp_path / "w1.json", *out], "--prior changes nothing here; it needs --kl"),
        ([*optimize, "--corpus", tmp_path, *out], "--corpus changes nothing here; it needs --max-epochs or"),
        (["autoscale", *at, "--objective", "foo", *out], "--objective changes nothing here; it needs --law"),
        (["autoscale", *at, "--parameters", "1e8", *out], "--parameters changes nothing here; it needs --law"),
        (["autoscale", *swapped, *out], "w1.json says it is for 1e\\+09 tokens"),
        ([*design, "--kind", "ddo", "--runs", "9", *out], "--runs changes nothing here; it needs --kind"),
        ([*design, "--kind", "axis", "--runs", "9", "--high", "4", *out], "--high changes nothing here"),
        (["predict", law, runs, "--tokens", "4e9"], "runs.csv gives the tokens of every mixture, so --tokens 4e"),
        (["predict", law, runs, "--parameters", "1e8"], "gives the parameters of every mixture, so --parameters"),
        (["fit", runs, "--targets", "", *out], "--targets names none; the table has: domain0"),
        ([*optimize, "--cap", "domain0=2", *out], "--cap 'domain0=2': '2' given, expected a finite number at least 0"),
        ([*optimize, "--cap", "0.2", *out], "--cap '0.2' is not of the form DOMAIN=WEIGHT"),
        (["autoscale", "--at", "0=w.json", "--tokens", 1, *out], "--at '0=w.json': '0' given, expected a finite"),
    ):
        said = fit_mixture(*arguments, code=2)
        assert re.search(message, said), said
        assert said.count("\n") == 1


def test_an_interrupted_fit_says_what_is_true(folder, tmp_path, monkeypatch, capsys):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selection, "fit", interrupt)
    said = fit_mixture("fit", folder / "runs.csv", "--out", tmp_path / "law.json", code=130)
    assert said == "interrupted; no file was left half written, the same command starts from the beginning\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "proportional"), "give --corpus DIR"),
        (("--against", "nowhere.json"), "cannot read nowhere.json"),
        (("--corpus", "x"), "--corpus changes nothing here; it needs --against proportional"),
        (("--risk", "0.2"), "'0.2' given, expected a finite number above 0.5"),
    ],
)
def test_a_decision_that_cannot_be_made_is_one_line(folder, tmp_path, options, message):
    asked = ("decide", folder / "law.json", "--tokens", "4e9", "--parameters", "1e8", "--out", tmp_path / "w.json")
    said = fit_mixture(*asked, *options, code=2)
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "w.json").exists()

"""tools/predict_scores.py as its users run it."""

import functools
import json
import math
import re
from pathlib import Path

import pytest
import score_runs
from tools_in_process import in_process

predict_scores = functools.partial(in_process, "predict_scores.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with small runs, large ones, and the curves of two tasks."""
    path = tmp_path_factory.mktemp("scores")
    tasks = ["easy", "lost"]
    score_runs.write(score_runs.ladder(lost=True).with_tasks(tasks), path / "small.csv")
    large = score_runs.ladder((score_runs.LARGE,), seed=5, lost=True)
    score_runs.write(large.with_tasks(tasks), path / "large.csv")
    options = ("--chance", "0.25", "--chance", "lost=0.5", "--out", path / "s.json")
    text = predict_scores("fit", path / "small.csv", *options)
    (path / "fit.txt").write_text(text)
    return path


def test_fit_score_and_predict_follow_each_other(folder, tmp_path):
    text = (folder / "fit.txt").read_text()
    assert "16 runs of 100M to 800M parameters and 1B to 80B tokens" in text
    assert "lost: cannot be predicted from these runs: " in text
    assert json.loads((folder / "s.json").read_text())["chance"] == {"easy": 0.25, "lost": 0.5}

    asked = ("score", folder / "s.json", folder / "large.csv")
    scored = json.loads(predict_scores(*asked, "--json", "--plot", tmp_path / "s.png"))
    assert scored["tasks"]["easy"]["mean_absolute_error"] < 0.03
    assert scored["tasks"]["easy"]["runs"] == 4

    asked = ("predict", folder / "s.json", "--parameters", 3.2e9, "--tokens", 32e9, 3.2e11)
    predicted = json.loads(predict_scores(*asked, "--json", "--plot", tmp_path / "p.png"))
    first, second = (run["tasks"]["easy"] for run in predicted["runs"])
    assert first["low"] < first["score"] < first["high"]
    assert first["score"] < second["score"]
    assert predicted["runs"][0]["tasks"]["lost"]["predictable"] is False
    assert "lost: cannot be predicted" in predict_scores(*asked)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_fit_draws_and_takes_some_tasks_of_renamed_columns(folder, tmp_path):
    renamed = (folder / "small.csv").read_text().replace("bits/", "bpb_").replace("parameters", "N", 1)
    (tmp_path / "runs.csv").write_text(renamed)
    out, plot = tmp_path / "s.json", tmp_path / "fit.png"
    options = ("--columns", "bpb_*=bits/*", "--columns", "N=parameters", "--tasks", "easy", "--json", "--plot", plot)
    fitted = json.loads(predict_scores("fit", tmp_path / "runs.csv", *options, "--out", out))
    assert list(fitted["tasks"]) == ["easy"]
    assert fitted["tasks"]["easy"]["predictable"] is True
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_far_beyond_the_table_is_said(folder):
    text = predict_scores("predict", folder / "s.json", "--parameters", 1e11, "--tokens", 1e13)
    assert "warning: 15625 times the compute of the largest run of the table" in text


HEADER = "run,parameters,tokens,bits/a,score/a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        (HEADER + "\n", "has a header and no rows"),
        ("run,tokens,bits/a,score/a\nx,1e9,1,0.5\n", "column 'parameters' is missing; --columns OLD=parameters"),
        ("run,parameters,tokens,bits/a,score/b\nx,1e8,1e9,1,0.5\n", "no task has both bits/<task> and score/<task>"),
        (HEADER + ",bits/a\nx,1e8,1e9,1,0.5,1\n", "column 'bits/a' occurs twice"),
        (HEADER + "\nx,1e8,1e9,1,52.5\n", "score/a is '52.5', expected a number from 0 to 1; divide per cents by 100"),
        (
            HEADER + "\nx,1e8,1e9,nan,0.5\n",
            "bits/a is 'nan', expected a number .* leave the cell empty",
        ),
        (HEADER + "\nx,1e8,1e9,0,0.5\n", "bits/a is '0', expected a number from 1e-06 to 100"),
        (HEADER + "\nx,1e8,,1,0.5\n", "row 1: tokens is empty, expected a number of at least 1"),
        (HEADER + "\nx,1B,1e9,1,0.5\n", "parameters is '1B', expected a number of at least 1"),
        (HEADER + "\nx,1e8,1e9,1,0.5\nx,1e8,1e9,1,0.5\n", "run 'x' occurs twice at 1e\\+09 tokens"),
        (HEADER + "\nx,1e8,1e9,1,0.5\nx,2e8,2e9,1,0.5\n", "run 'x' has 1e\\+08 and 2e\\+08 parameters"),
        (HEADER + "\n,1e8,1e9,1,0.5\n", "a row has no name in column run"),
        (HEADER + "\nx,1e8,1e9,1,0.5\n", "task 'a' was measured in 1 runs, a fit needs at least 4"),
    ],
)
def test_a_table_that_cannot_be_is_one_line(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    if content is not None:
        path.write_text(content)
    line = predict_scores("fit", path, "--out", tmp_path / "s.json", code=2)
    assert re.search(message, line), line
    assert line.count("\n") == 1
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "none"), "task 'none' is not in the table; it has easy, lost"),
        (
            ("--chance", "easy=25"),
            "--chance 'easy=25': '25' given, expected a finite number",
        ),
        (("--chance", "eazy=0.25"), "no task 'eazy'; the table has easy, lost"),
        (("--columns", "none=run"), "fits no column"),
    ],
)
def test_a_wrong_option_is_one_line(folder, tmp_path, options, message):
    line = predict_scores("fit", folder / "small.csv", *options, "--out", tmp_path / "s.json", code=2)
    assert message in line


def test_a_file_that_is_no_fit_is_one_line(folder, tmp_path):
    raw = json.loads((folder / "s.json").read_text())
    broken = {
        "no fitted scores": {"kind": "autoscale_ds law"},
        "version 9": raw | {"version": 9},
        "is damaged: widen is missing": {key: value for key, value in raw.items() if key != "widen"},
        "is damaged: compute is nan, expected a finite number above 0": raw | {"compute": math.nan},
        "is damaged: tasks is {}, expected an object of 1 or more": raw | {"tasks": {}},
    }
    for message, content in broken.items():
        (tmp_path / "s.json").write_text(json.dumps(content))
        line = predict_scores("predict", tmp_path / "s.json", "--parameters", 1e9, "--tokens", 1e10, code=2)
        assert message in line
    (tmp_path / "s.json").write_text((folder / "s.json").read_text()[:200])
    assert "is not JSON" in predict_scores("score", tmp_path / "s.json", folder / "large.csv", code=2)

"""Run tables as people have them: other separators and encodings, other columns, losses that are no losses."""

import json

import numpy as np
import pytest

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import RunTable
from autoscale_ds.mixture.mixturesfile import read_mixtures

ROWS = [
    ["run", "tokens", "weight/a", "weight/b", "loss/x"],
    ["r1", "1e9", "0.25", "0.75", "3.5"],
    ["r2", "1e9", "0.5", "0.5", "3.25"],
]


OBJECTS = [dict(zip(ROWS[0], [row[0], *map(float, row[1:])], strict=True)) for row in ROWS[1:]]


def text(separator=","):
    return "\n".join(separator.join(row) for row in ROWS) + "\n"


def written(tmp_path, content, name="runs.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        text(","),
        text(";"),
        text("\t"),
        text(";").replace("0.", "0,").replace("3.", "3,"),
        text(",").encode("utf-16"),
        b"\xef\xbb\xbf" + text(",").encode(),
        text(",").replace("\n", "\r\n"),
        text("|"),
        "\n".join(map(json.dumps, OBJECTS)),
        json.dumps(OBJECTS, indent=1),
    ],
    ids=[*["comma", "semicolon", "tab", "decimal", "utf-16", "mark", "windows", "bar", "lines", "array"]],
)
def test_the_same_table_in_another_form_is_the_same(tmp_path, content):
    runs = RunTable.read(written(tmp_path, content))
    assert runs.runs == ("r1", "r2")
    assert runs.weights.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert runs.losses[:, 0].tolist() == [3.5, 3.25]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "an Excel workbook.*save the sheet as CSV"),
        (b"\x1f\x8brest", "compressed by gzip; unpack it"),
        (text().replace("r1", "caf\xe9").encode("latin-1"), r"not text in UTF-8 \(byte \d+\)"),
        (b"  \n", "is empty"),
        ('{"a": 1}\n[1]\n', "line 2: list, expected a JSON object"),
        ('{"a": 1}\n{"a"\n', "line 2: not JSON"),
        ("[1]", "row 1: int, expected a JSON object"),
        (
            text().replace("tokens", "Tokens"),
            "columns are: run, Tokens, weight/a, weight/b, loss/x; rename .*--columns",
        ),
        (text().replace("weight/", "w."), "0 columns named weight/.*the columns are: .*w.a, w.b.*--columns"),
        (text().replace("loss/", "l."), "no column named loss/.*the columns are: .*l.x; rename"),
        (text().replace("0.25", "25").replace("0.75", "75"), "weights sum to 100.*per cent, divide them by 100"),
        (text().replace("0.25", "-0.25"), "weight/a is -0.25, expected at least 0; mend it"),
        (text().replace("weight/b", "weight/"), "'weight/' without a name"),
        (text().replace("loss/x", "loss/ "), "'loss/' without a name"),
        (text().replace("0.25", ""), "write 0 where a run did not use the domain"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    with pytest.raises(MixtureError, match=message) as error:
        RunTable.read(written(tmp_path, content))
    assert "\n" not in str(error.value)


def test_columns_of_an_experiment_tracker_are_renamed(tmp_path):
    lines = [
        {"Name": "r1", "_step": 1e9, "config": {"weights": {"a": 0.25, "b": 0.75}}, "eval/x_loss": 3.5},
        {"Name": "r2", "_step": 1e9, "config": {"weights": {"a": 0.5, "b": 0.5}}, "eval/x_loss": 3.25},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)), "export.jsonl")
    columns = ["Name=run", "_step=tokens", "config.weights.*=weight/*", "eval/*_loss=loss/*"]
    runs = RunTable.read(path, columns=columns)
    assert (runs.runs, runs.domains, runs.targets) == (("r1", "r2"), ("a", "b"), ("x",))
    with pytest.raises(MixtureError, match="fits no column; they are: run, tokens"):
        RunTable.read(path, columns=[*columns[:3], "eval.*=loss/*"])
    with pytest.raises(MixtureError, match="not of the form OLD=NEW"):
        RunTable.read(path, columns=["config.*.*=weight/*"])


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["33.1", "25.8"], "no nats per token; if perplexities, --loss-kind perplexity"),
        ([".61", ".72"], "if accuracies, --loss-kind accuracy, if bits per byte"),
        (["-3.5", "-3.25"], "log likelihoods"),
        (["3.5", "-3.25"], "loss/x is -3.25, expected above 0 and at most 20 nats.*--drop-bad"),
        (["3.5", "0"], "loss/x is 0, expected above 0 and at most 20 nats.*--drop-bad"),
        (["3.5", "333"], "loss/x is 333, expected above 0 and at most 20 nats.*--drop-bad"),
    ],
)
def test_losses_that_cannot_be_nats_are_asked_about(tmp_path, losses, message):
    path = written(tmp_path, text().replace("3.5", losses[0]).replace("3.25", losses[1]))
    with pytest.raises(MixtureError, match=message):
        RunTable.read(path)


@pytest.mark.parametrize(
    ("kind", "losses", "expected"),
    [
        ("perplexity", ["33.1", "25.8"], np.log([33.1, 25.8])),
        ("accuracy", [".61", ".72"], [0.39, 0.28]),
        ("accuracy", [".61", "1"], [0.39, 0.0]),
        ("accuracy", ["61", "72"], [0.39, 0.28]),
        ("bits-per-byte", [".91", ".87"], np.array([0.91, 0.87]) * np.log(2)),
        ("nats", [".61", ".72"], [0.61, 0.72]),
    ],
)
def test_losses_of_a_named_kind_are_converted(tmp_path, kind, losses, expected):
    path = written(tmp_path, text().replace("3.5", losses[0]).replace("3.25", losses[1]))
    assert RunTable.read(path, loss_kind=kind).losses[:, 0] == pytest.approx(expected)


def test_a_kind_that_the_values_contradict_is_refused(tmp_path):
    path = written(tmp_path, text().replace("3.5", ".5"))
    with pytest.raises(MixtureError, match=r"a perplexity is 0\.5, expected at least 1"):
        RunTable.read(path, loss_kind="perplexity")
    path = written(tmp_path, text().replace("3.5", "350"))
    with pytest.raises(MixtureError, match="an accuracy is 350"):
        RunTable.read(path, loss_kind="accuracy")


def test_weights_rounded_to_two_decimals_are_scaled_to_one(tmp_path):
    header = "run,tokens,weight/a,weight/b,weight/c,loss/x\n"
    runs = RunTable.read(written(tmp_path, header + "r1,1e9,.34,.33,.34,3\n"))  # 1.01 of three: within 3 x .005
    assert runs.weights[0] == pytest.approx(np.array([0.34, 0.33, 0.34]) / 1.01)
    with pytest.raises(MixtureError, match=r"sum to 1\.03, expected 1 within 0\.015"):
        RunTable.read(written(tmp_path, header + "r1,1e9,.34,.35,.34,3\n"))
    with pytest.raises(MixtureError, match=r"sum to 1\.01, expected 1 within 0\.005"):
        RunTable.read(written(tmp_path, header + "r1,1e9,.341,.33,.339,3\n"))


def test_a_rest_of_a_subtraction_is_zero(tmp_path):
    runs = RunTable.read(written(tmp_path, text().replace("0.25", "-1e-17").replace("0.75", "1")))
    assert runs.weights[0].tolist() == [0.0, 1.0]


def test_what_is_no_file_is_said_to_be_none(tmp_path):
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none.csv", "does not exist"), ("/dev/null", "empty")):
        with pytest.raises(MixtureError, match=message):
            RunTable.read(path)


def test_mixtures_to_predict_may_be_rounded_as_runs_may(tmp_path):
    table = written(tmp_path, "weight/b,weight/a\n.333333,.666666\n.333,.664\n-1e-17,1\n")
    assert read_mixtures(table, ("a", "b")).weights == pytest.approx(
        np.array([[2 / 3, 1 / 3], [0.664 / 0.997, 0.333 / 0.997], [1.0, 0.0]]), abs=1e-9
    )
    with pytest.raises(MixtureError, match=r"'row2': weights sum to 0\.99, expected 1 within 0\.005; mend the row"):
        read_mixtures(written(tmp_path, "weight/b,weight/a\n.329,.661\n"), ("a", "b"))


def test_mixtures_to_predict_come_from_a_table_or_a_weights_file(tmp_path):
    table = written(tmp_path, "weight/b,weight/a,tokens\n.25,.75,1e9\n1,0,\n")
    mixtures = read_mixtures(table, ("a", "b"))
    assert mixtures.weights.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert mixtures.tokens[0] == 1e9
    assert np.isnan(mixtures.tokens[1])
    file = written(tmp_path, json.dumps({"weights": {"b": 0.25, "a": 0.75}, "tokens": 2e9}), "w.json")
    assert read_mixtures(file, ("a", "b")).tokens.tolist() == [2e9]
    with pytest.raises(MixtureError, match="domain 'c' is in only one"):
        read_mixtures(table, ("a", "b", "c"))
    with pytest.raises(MixtureError, match="'row2': weight/b is 'x', expected a number"):
        read_mixtures(written(tmp_path, "weight/b,weight/a\nx,.75\n"), ("a", "b"))
    with pytest.raises(MixtureError, match=r"'row2'.*sum"):
        read_mixtures(written(tmp_path, "weight/b,weight/a\n.5,.75\n"), ("a", "b"))

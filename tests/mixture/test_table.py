"""Run tables: what is read, what is refused and how it is said."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import RUNS

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import RunTable, WeightsFile
from autoscale_ds.mixture.repeats import averaged

HEADER = "run,parameters,tokens,weight/a,weight/b,loss/x,loss/y"


def table(tmp_path, *rows, header=HEADER, name="runs.csv"):
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_released_table_is_read_by_name():
    runs = RunTable.read(RUNS / "regmix_1m_train.csv")
    assert (len(runs), len(runs.domains), len(runs.targets)) == (512, 17, 13)
    assert runs.weights[0, runs.domains.index("pile_cc")] == 0.787
    assert runs.losses[0, runs.targets.index("pile_cc")] == pytest.approx(5.169478)


def test_columns_may_come_in_any_order_and_others_are_ignored(tmp_path):
    path = table(tmp_path, "3.5,0.4,r,9,1e9,0.6,1", header="loss/x,weight/b,run,seed,tokens,weight/a,parameters")
    runs = RunTable.read(path)
    assert dict(zip(runs.domains, runs.weights[0], strict=True)) == {"a": 0.6, "b": 0.4}


def test_an_empty_loss_is_not_measured_and_parameters_may_be_unknown(tmp_path):
    path = table(tmp_path, "r1,1e9,.5,.5,3,", "r2,1e9,.5,.5,,4", header="run,tokens,weight/a,weight/b,loss/x,loss/y")
    runs = RunTable.read(path)
    assert np.isnan(runs.parameters).all()
    assert runs.measured("x").tolist() == [True, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("r,1,1e9,.5,.6,3,4", "weights sum to 1.1"),
        ("r,1,1e9,-.5,1.5,3,4", "weight/a is -0.5"),
        ("r,1,1e9,nan,.5,3,4", "weight/a is empty, nan or infinite"),
        ("r,1,1e9,,1,3,4", "weight/a is empty.*--drop-bad"),
        ("r,1,1e9,.5,.5,nan,4", "loss/x is nan or infinite.*--drop-bad"),
        ("r,1,1e9,.5,.5,,", "no loss was measured"),
        ("r,1,0,.5,.5,3,4", "tokens is 0"),
        ("r,1,many,.5,.5,3,4", "tokens is 'many', expected a number"),
        ("r,1,1e9,.5,.5,3", "6 cells, the header has 7"),
    ],
)
def test_a_bad_row_is_refused_in_one_line(tmp_path, row, message):
    with pytest.raises(MixtureError, match=message) as error:
        RunTable.read(table(tmp_path, "good,1,1e9,.5,.5,3,4", row))
    assert "\n" not in str(error.value)


def test_nan_rows_are_dropped_only_on_request_and_reported(tmp_path):
    path = table(tmp_path, "r1,1,1e9,.5,.5,3,4", "r2,1,1e9,.5,.5,nan,nan")
    runs = RunTable.read(path, drop_bad=True)
    assert runs.runs == ("r1",)
    assert "r2" in runs.dropped[0]


def test_weights_that_do_not_sum_are_never_dropped(tmp_path):
    with pytest.raises(MixtureError, match="sum to"):
        RunTable.read(table(tmp_path, "r1,1,1e9,.5,.5,3,4", "r2,1,1e9,.5,.6,3,4"), drop_bad=True)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("run,parameters,weight/a,weight/b,loss/x", "'tokens' is missing"),
        ("run,parameters,tokens,weight/a,loss/x", "expected at least 2"),
        ("run,parameters,tokens,weight/a,weight/b", "no column named loss/"),
        ("run,run,tokens,weight/a,weight/b,loss/x", "occurs twice"),
    ],
)
def test_a_missing_column_is_named(tmp_path, header, message):
    with pytest.raises(MixtureError, match=message):
        RunTable.read(table(tmp_path, ",".join(["1"] * len(header.split(","))), header=header))


def test_a_run_twice_is_refused_but_its_checkpoints_are_not(tmp_path):
    RunTable.read(table(tmp_path, "r,1,1e9,.5,.5,3,4", "r,1,2e9,.5,.5,3,4"))
    with pytest.raises(MixtureError, match="'r' occurs twice"):
        RunTable.read(table(tmp_path, "r,1,1e9,.5,.5,3,4", "r,1,1e9,.5,.5,3,4"))


def test_several_files_join_by_column_name(tmp_path):
    first = table(tmp_path, "r,1,1e9,.6,.4,3,4", name="one.csv")
    second = table(tmp_path, "r,1,2e9,.3,.7,5", header="run,parameters,tokens,weight/b,weight/a,loss/z", name="two.csv")
    runs = RunTable.read([first, second])
    assert runs.runs == ("one:r", "two:r")
    assert runs.targets == ("x", "y", "z")
    assert runs.weights.tolist() == [[0.6, 0.4], [0.7, 0.3]]
    assert math.isnan(runs.losses[1, 0])


def test_parquet_is_read_like_csv(tmp_path):
    columns = {
        "run": ["r"],
        "parameters": [1.0],
        "tokens": [10**9],
        "weight/a": [0.5],
        "weight/b": [0.5],
        "loss/x": [3.0],
    }
    pq.write_table(pa.table(columns), tmp_path / "runs.parquet")
    assert RunTable.read(tmp_path / "runs.parquet").tokens[0] == 1e9


def test_a_table_survives_writing(tmp_path):
    runs = RunTable.read(RUNS / "regmix_1m_test.csv")
    runs.write(tmp_path / "copy.csv")
    copy = RunTable.read(tmp_path / "copy.csv")
    assert copy.runs == runs.runs
    assert (copy.losses == runs.losses).all()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ('"tokens": "many"', "tokens is 'many', expected a finite number above 0"),
        ('"intervals": {"c": [0.4, 0.6]}', "intervals has 'c', which weights has not"),
        ('"intervals": {"a": [0.4, NaN], "b": [0, 1]}', r"intervals.a\[1\] is nan"),
        ('"intervals": {"a": [0.6, 0.4], "b": [0, 1]}', r"intervals.a is \[0.6, 0.4\], expected two numbers"),
    ],
)
def test_a_damaged_weights_file_names_the_field(tmp_path, field, message):
    (tmp_path / "w.json").write_text(f'{{"weights": {{"a": 0.5, "b": 0.5}}, {field}}}')
    with pytest.raises(MixtureError, match=f"w.json is damaged: {message}"):
        WeightsFile.read(tmp_path / "w.json")


class TestUniqueTokens:
    HEADER = "run,tokens,weight/a,weight/b,unique/b,unique/a,loss/x"

    def test_they_stay_with_their_rows_and_domains(self, tmp_path):
        path = table(
            tmp_path, "m@0,1e9,.5,.5,3e8,7e8,3", "m@1,1e9,.5,.5,3e8,7e8,4", "n,1e9,1,0,0,7e8,5", header=self.HEADER
        )
        runs = RunTable.read(path)
        assert runs.unique.tolist() == [[7e8, 3e8], [7e8, 3e8], [7e8, 0]]
        assert runs.with_domains(["b", "a"]).unique.tolist() == [[3e8, 7e8], [3e8, 7e8], [0, 7e8]]
        assert averaged(runs).unique.tolist() == [[7e8, 3e8], [7e8, 0]]
        runs.take([2, 0]).write(tmp_path / "written.csv")
        assert RunTable.read(tmp_path / "written.csv").unique.tolist() == [[7e8, 0], [7e8, 3e8]]
        other = table(tmp_path, "r,1e9,.5,.5,3e9,2e9,3", header=self.HEADER, name="other.csv")
        assert RunTable.read([path, other]).unique[-1].tolist() == [2e9, 3e9]
        without = table(tmp_path, "r,,1e9,.5,.5,3,4", name="without.csv")
        assert RunTable.read([path, without]).unique is None

    @pytest.mark.parametrize(
        ("header", "rows", "message"),
        [
            (HEADER.replace("unique/a", "else"), ["r,1e9,.5,.5,1,1,3"], "unique/a there is only one"),
            (HEADER, ["r,1e9,.5,.5,0,1,3"], "unique/b is 0, expected a positive number"),
            (HEADER, ["r,1e9,.5,.5,,1,3"], "unique/b is empty"),
            (HEADER, ["m@0,1e9,.5,.5,1,1,3", "m@1,1e9,.5,.5,1,2,3"], "could draw from different amounts of text"),
        ],
    )
    def test_columns_that_cannot_be_are_refused(self, tmp_path, header, rows, message):
        with pytest.raises(MixtureError, match=message):
            RunTable.read(table(tmp_path, *rows, header=header))

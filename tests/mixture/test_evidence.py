"""Rows of different text or tokenizers are told apart, whichever file they are in."""

import pytest

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import RunTable

HEADER = "run,tokens,weight/a,weight/b,loss/a,tokenizer,text/a,text/b"
ROWS = ("r1,1e6,0.5,0.5,3.0,t1,a1,b1", "r2,1e6,0.2,0.8,3.1,t1,a1,b1")


def written(tmp_path, *rows, name="runs.csv", header=HEADER):
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / name


def test_rows_that_agree_are_read_without_a_word(tmp_path):
    table = RunTable.read([written(tmp_path, *ROWS), written(tmp_path, ROWS[0].replace("r1", "r3"), name="more.csv")])
    assert table.notes == ()


@pytest.mark.parametrize("apart", [True, False])
def test_rows_of_two_tokenizers_are_refused_in_one_file_and_in_two(tmp_path, apart):
    other = ROWS[1].replace("t1", "t2")
    files = [written(tmp_path, ROWS[0]), written(tmp_path, other, name="more.csv")]
    files = files if apart else [written(tmp_path, ROWS[0], other)]
    with pytest.raises(MixtureError, match=r"run 'r1' of runs.csv and run 'r2' .* different tokenizers \(t1 and t2\)"):
        RunTable.read(files, accept_changed=True)


def test_a_domain_whose_text_changed_is_named_and_may_be_accepted(tmp_path):
    path = written(tmp_path, ROWS[0], ROWS[1].replace("b1", "b2"))
    with pytest.raises(
        MixtureError, match=r"the text of 'b' changed between run 'r1' .* and run 'r2' .*--accept-changed"
    ):
        RunTable.read(path)
    table = RunTable.read(path, accept_changed=True)
    assert "b" in table.notes[0]


def test_a_table_that_does_not_say_is_accepted_and_that_is_said(tmp_path):
    plain = written(tmp_path, ROWS[0].rsplit(",", 3)[0], name="plain.csv", header=HEADER.rsplit(",", 3)[0])
    both = RunTable.read([written(tmp_path, ROWS[1]), plain])
    assert len(both.notes) == 1
    assert "plain.csv does not say" in both.notes[0]
    empty = RunTable.read(written(tmp_path, ROWS[0], ROWS[1].replace("t1,a1,b1", ",,")))
    assert "run 'r2'" in empty.notes[0]

"""Files written for users: whole or not at all, never over a device, a link or an input."""

import os
import threading

import pytest

from autoscale_ds.errors import ConfigError
from autoscale_ds.files import check_outputs, write_atomic


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "law.json").write_text("old")
    for name, target in (("link", "folder/law.json"), ("dangling", "folder/new.json")):
        (tmp_path / name).symlink_to(target)
        write_atomic(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "folder")) == ["law.json", "new.json"]


def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path):
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    write_atomic(fifo, "text")
    reader.join(10)
    assert read == ["text"]
    assert fifo.is_fifo()
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("the only copy")
    (tmp_path / "link.csv").symlink_to("runs.csv")
    os.link(path, tmp_path / "hard.csv")
    (tmp_path / "folder").mkdir()
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["runs.csv"], "--out .*runs.csv would replace the input .*runs.csv; write to another file"),
        (["folder/../runs.csv"], "would replace the input"),
        (["link.csv"], "would replace the input"),
        (["hard.csv"], "would replace the input"),
        (["law.json", "folder/../law.json"], "--plot .*law.json would replace what --out writes"),
        (["folder"], "is a folder"),
        (["none/law.json"], "folder .*none does not exist; make it first"),
    ],
)
def test_an_output_that_would_destroy_something_is_refused(table, names, message):
    outputs = {option: table.parent / name for option, name in zip(["--out", "--plot"], names, strict=False)}
    with pytest.raises(ConfigError, match=message) as error:
        check_outputs(outputs, [table])
    assert "\n" not in str(error.value)
    assert table.read_text() == "the only copy"


def test_outputs_that_destroy_nothing_are_accepted(table):
    os.mkfifo(table.parent / "fifo")
    check_outputs({"--out": table.parent / "law.json", "--plot": None}, [table])
    check_outputs(dict.fromkeys(["--out", "--plot"], table.parent / "fifo"), [table])
    check_outputs(dict.fromkeys(["--out", "--plot"], "/dev/null"), ["/dev/null"])

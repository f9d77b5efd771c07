import zlib
from pathlib import Path

import pytest
import torch

from autoscale_ds.errors import CheckpointError
from autoscale_ds.training.checksums import archive_checksum, check_file
from autoscale_ds.training.run_state import RunState

CHANGED = "do not have the checksum they were written with"
STATE = RunState(stream={"step": 7}, journal=[{"version": 0}], tokens=70, decided_step=5, files={"a.pt": 3})


def test_a_state_is_written_and_read_back():
    raw = STATE.to_json()
    assert raw["version"] == 1
    assert RunState.from_json(raw, Path("run.json")) == STATE
    assert STATE.step == 7


def test_a_file_from_before_versions_were_counted_is_read():
    raw = {name: value for name, value in STATE.to_json().items() if name not in ("version", "decided_step", "crc32")}
    assert RunState.from_json({**raw, "asked": 5}, Path("run.json")) == STATE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, this program reads version 1; continue the run with"),
        ({"stream": None}, "has None as 'stream'"),
        ({"files": "a"}, "has 'a' as 'files'"),
        ({"updates": "q"}, "has 'q' as 'updates'"),
        ({"tokens": 71}, CHANGED),
    ],
)
def test_another_version_or_a_wrong_value_is_one_clear_line(change, message):
    raw = {**STATE.to_json(), **change}
    if message != CHANGED:
        del raw["crc32"]
    with pytest.raises(CheckpointError, match=message):
        RunState.from_json(raw, Path("run.json"))


def test_a_missing_value_is_one_clear_line():
    with pytest.raises(CheckpointError, match="has None as 'stream'"):
        RunState.from_json({"journal": [], "tokens": 0, "files": {}}, Path("run.json"))


def test_a_file_is_checked_against_its_records_or_as_a_whole_as_earlier_versions_did(tmp_path):
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    torch.save({"weights": torch.arange(1000.0)}, first)
    torch.save({"weights": torch.arange(1000.0) + 1}, second)
    whole = f"{zlib.crc32(first.read_bytes()):08x}"
    for expected in (archive_checksum(first), whole):
        check_file(first, expected)
        with pytest.raises(CheckpointError, match="it was written with"):
            check_file(second, expected)  # sound, but another checkpoint's
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    for expected in (archive_checksum(first), whole):
        with pytest.raises(CheckpointError):
            check_file(first, expected)

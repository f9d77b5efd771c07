"""Checkpoints that are damaged, foreign or left over."""

import json

import pytest
import torch
from jobs import losses, read_metrics

from autoscale_ds.errors import CheckpointError
from autoscale_ds.training.checkpoints import read_checkpoint
from autoscale_ds.training.engine import saved_weights


def damage(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[: len(data) // 2] = bytes(len(data) // 2)
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "missing", "overwritten with zeros"])
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before_and_says_so(make_trainer, caplog, how):
    trainer = make_trainer(folder="whole")
    assert trainer.fit() == 0
    run = trainer.folder.path
    trainer.folder.release()
    damage(run / "checkpoints/step-00000030/mp_rank_00_model_states.pt", how)
    again = make_trainer(folder="whole", budget_tokens=34 * 256)
    assert again.fit() == 0
    assert "step-00000030 cannot be used" in caplog.text
    assert read_metrics(run, "train")[-1]["step"] == 34


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_page_of_zeros_in_any_file_of_a_checkpoint_is_noticed(make_trainer, caplog, stage):
    ds = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": stage}}
    trainer = make_trainer(ds, budget_tokens=10 * 256)
    assert trainer.fit() == 0
    trainer.close()
    files = sorted((trainer.folder.checkpoints / "step-00000010").glob("*.pt"))
    assert len(files) == (1 if stage == 0 else 2)
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes(4096) + whole[middle + 4096 :])
        caplog.clear()
        again = make_trainer(ds, budget_tokens=10 * 256)
        loop = again.restored()
        assert loop.step == 5
        assert "step-00000010 cannot be used" in caplog.text
        loop.close()
        again.close()
        if len(whole) > 200_000:  # there the page holds numbers, and only its checksum tells
            unchecked = make_trainer(ds, budget_tokens=10 * 256, **{"checkpoints.verify": False})
            loop = unchecked.restored()
            assert loop.step == 10
            loop.close()
            unchecked.close()
        path.write_bytes(whole)


def test_latest_pointing_nowhere_leads_nobody_astray(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    (trainer.folder.checkpoints / "latest").write_text("step-99999999\n")
    again = make_trainer(budget_tokens=34 * 256)
    assert again.fit() == 0
    assert list(losses(again.folder.path)) == list(range(1, 35))


class Hostile:
    """Unpickled, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_checkpoint_that_holds_more_than_data_is_not_opened(make_trainer, caplog, tmp_path, stage):
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}}
    trainer = make_trainer(ds)
    assert trainer.fit() == 0
    trainer.folder.release()
    newest, mark = trainer.folder.checkpoints / "step-00000030", tmp_path / "it ran"
    file = next(newest.glob("*optim_states.pt" if stage else "*model_states.pt"))
    torch.save({"module": Hostile(mark)}, file)
    state = json.loads((newest / "run.json").read_text())
    state["files"][file.name] = file.stat().st_size
    del state["crc32"]
    (newest / "run.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError):
        saved_weights(newest, state["layout"], trainer.parts.model_spec, tmp_path / "working")
    assert make_trainer(ds, budget_tokens=34 * 256).fit() == 0
    assert "step-00000030 cannot be used" in caplog.text
    assert not mark.exists()


def test_a_run_in_bf16_is_continued_from_its_checkpoint(make_trainer, caplog):
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    trainer = make_trainer(ds)
    assert trainer.fit() == 0
    trainer.folder.release()
    caplog.set_level("INFO", logger="autoscale_ds")
    assert make_trainer(ds, budget_tokens=34 * 256).fit() == 0
    assert "resuming from" in caplog.text
    assert "step-00000030" in caplog.text


def test_a_run_whose_checkpoints_are_all_broken_stops_instead_of_starting_anew(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    for folder in trainer.folder.checkpoints.glob("step-*"):
        damage(folder / "run.json", "missing")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used"):
        make_trainer().fit()


def test_only_the_newest_checkpoints_are_kept(make_trainer):
    trainer = make_trainer(**{"checkpoints.keep": 2})
    assert trainer.fit() == 0
    names = sorted(path.name for path in trainer.folder.checkpoints.glob("*step*"))
    assert names == ["step-00000025", "step-00000030"]
    assert (trainer.folder.checkpoints / "latest").read_text() == "step-00000030\n"


def test_a_checkpoint_that_a_killed_job_left_unfinished_is_removed_at_the_next_start(make_trainer):
    trainer = make_trainer()
    leftover = trainer.folder.checkpoints / ".step-00000005.partial"
    leftover.mkdir()
    (leftover / "mp_rank_00_model_states.pt").write_bytes(b"half")
    trainer.folder.release()
    assert make_trainer().fit() == 0
    assert not leftover.exists()


def test_a_checkpoint_of_another_version_is_refused_and_no_older_one_is_taken(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    path = trainer.folder.checkpoints / "step-00000030" / "run.json"
    path.write_text(path.read_text().replace('"version": 1,', '"version": 2,', 1))
    with pytest.raises(CheckpointError, match="has version 2, this program reads version 1"):
        make_trainer().fit()


def test_a_checkpoint_with_values_of_wrong_types_falls_back_to_the_one_before(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    path = trainer.folder.checkpoints / "step-00000030" / "run.json"
    state = json.loads(path.read_text())
    state["stream"]["cursors"]["web"] += 1
    path.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="do not have the checksum they were written with"):
        read_checkpoint(path.parent)
    del state["crc32"]
    path.write_text(json.dumps({**state, "stream": "x"}))
    again = make_trainer()
    assert again.fit() == 0
    assert list(losses(again.folder.path)) == list(range(1, 31))

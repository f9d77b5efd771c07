import json
import shutil

import pytest
import torch
from jobs import everything, read_metrics, tool

from autoscale_ds.errors import CheckpointError
from autoscale_ds.models.gpt2.spec import load_hf
from autoscale_ds.objectives import Batch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_exported_model_computes_what_the_trained_one_does(make_trainer, tmp_path, stage):
    trainer = make_trainer({"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": stage}})
    assert trainer.fit() == 0
    before = everything(trainer.folder.path)
    done = tool("export_hf.py", trainer.folder.path, "--output", tmp_path / "hf", "--weights-only")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert everything(trainer.folder.path) == before
    exported = load_hf(tmp_path / "hf").eval()
    tokens = torch.arange(93).view(3, 31)
    with torch.no_grad():
        losses = exported(tokens[:, :-1], tokens[:, 1:])
    torch.testing.assert_close(
        losses,
        trainer.parts.engine.losses(Batch(tokens, torch.zeros(len(tokens), dtype=torch.int64))).losses,
        atol=1e-6,
        rtol=1e-5,
    )


def test_a_run_can_start_from_exported_weights(make_trainer, tmp_path):
    first = make_trainer()
    assert first.fit() == 0
    assert tool("export_hf.py", first.folder.path, "--output", tmp_path / "hf").returncode == 0
    second = make_trainer(folder="second", **{"model.initial_weights": str(tmp_path / "hf")})
    assert second.fit() == 0
    last, start = (read_metrics(trainer.folder.path, "validation") for trainer in (first, second))
    assert start[0]["loss"] == pytest.approx(last[-1]["loss"], abs=1e-5)


def test_initial_weights_of_another_shape_are_refused(make_trainer, tmp_path):
    assert (first := make_trainer()).fit() == 0
    assert tool("export_hf.py", first.folder.path, "--output", tmp_path / "hf").returncode == 0
    with pytest.raises(CheckpointError, match="the model of this run"):
        make_trainer(folder="wide", **{"model.initial_weights": str(tmp_path / "hf"), "model.width": 128})
    with pytest.raises(CheckpointError, match="cannot load a GPT-2 model"):
        make_trainer(folder="none", **{"model.initial_weights": str(tmp_path / "nothing")})
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    for key, value, message in (
        ("n_head", 4, "4 attention heads, the model of this run 2"),
        ("activation_function", "gelu", "activation_function 'gelu', this program computes 'gelu_new'"),
    ):
        (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(CheckpointError, match=message):
            make_trainer(folder=key, **{"model.initial_weights": str(tmp_path / "hf")})


def test_an_existing_folder_is_not_written_over(make_trainer, tmp_path):
    done = tool("export_hf.py", tmp_path, "--output", tmp_path)
    assert done.returncode == 2
    assert "exists already" in done.stderr


def test_a_corpus_of_another_tokenizer_is_refused(make_trainer, corpus_of, tmp_path):
    trainer = make_trainer(budget_tokens=512)
    assert trainer.fit() == 0
    other = corpus_of({"web": 4000, "code": 3000, "books": 3000}, tokenizer="another")
    for name, options in (
        ("export_hf.py", ["--output", tmp_path / "hf"]),
        ("convert_checkpoint.py", []),
        ("replay_stream.py", ["--steps", "0:"]),
        ("report.py", ["--out", tmp_path / "report"]),
    ):
        refused = tool(name, trainer.folder.path, *options, "--corpus", other)
        assert refused.returncode == 2
        assert "is another:97:0, but" in refused.stderr
        assert "was trained on ids of random:97:0" in refused.stderr
    assert not (tmp_path / "hf").exists()


def test_no_weights_are_taken_from_a_damaged_checkpoint(until, tmp_path):
    run = until(2).folder.path
    shutil.copytree(run, tmp_path / "sound")
    optimizer = next(run.glob("checkpoints/step-*/zero_pp_rank_0*optim_states.pt"))
    data = bytearray(optimizer.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(byte ^ 255 for byte in data[middle : middle + 64])
    optimizer.write_bytes(data)
    for name, options in (("export_hf.py", ["--output", tmp_path / "hf"]), ("convert_checkpoint.py", [])):
        refused = tool(name, run, *options)
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1
        assert "CRC-32" in refused.stderr
    assert not (tmp_path / "hf").exists()
    with pytest.raises(CheckpointError, match="CRC-32"):
        until(2, folder="stage", start_from=str(run))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_converted_file_is_made_again(until, caplog, damage):
    run = until(2).folder.path
    assert tool("convert_checkpoint.py", run).returncode == 0
    portable = next(run.glob("checkpoints/step-*/portable.safetensors"))
    sound = portable.read_bytes()
    flipped = sound[:-64] + bytes(byte ^ 255 for byte in sound[-64:])
    portable.write_bytes(sound[:-100] if damage == "cut" else flipped)
    before = everything(run)
    stage = until(2, folder="stage", start_from=str(run))
    assert "is made again from the checkpoint" in caplog.text
    assert everything(run) == before  # another run's folder is only read
    assert [path.name for path in stage.folder.checkpoints.glob(".*")] == []
    assert tool("convert_checkpoint.py", run).returncode == 0
    assert portable.read_bytes() == sound

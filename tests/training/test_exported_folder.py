"""What an exported folder holds, and that transformers, another export and another run read it."""

import json
import os
import re
import shutil
import signal
import socket
from dataclasses import replace

import pytest
import torch
from jobs import DS, everything, read_metrics, settings, tool
from tiny_models import hf_folder, text_corpus

from autoscale_ds import config
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.interrupts import end_on_termination
from autoscale_ds.models.generation import generate
from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.objectives import Batch
from autoscale_ds.stream.journal import read_events
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.export import export
from autoscale_ds.training.model_card import CARD_FILE, model_card
from autoscale_ds.training.trained import TrainedRun, open_trained, text_to_ids

pytestmark = pytest.mark.slow
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    CARD_FILE,
}
SWAPPED = {"web": 0.25, "code": 0.75}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return text_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def trainer(one_rank, corpus, tmp_path_factory):
    """A run of 6 steps on text with dropout, whose weights were swapped at step 4."""
    from autoscale_ds.training.trainer import Trainer

    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = {"data.corpus": str(corpus), "mixture.weights": {"web": 0.5, "code": 0.5}, "checkpoints.every_steps": 2}
    changes |= {"evaluation.every_steps": 2, "model.dropout": 0.125, "model.context": 64}
    for steps in (4, 6):
        run = config.build(RunConfig, settings(folder, corpus, **changes, budget_tokens=steps * 256))
        made = Trainer(run, resolve(DS, run, 1), *one_rank)
        assert made.fit() == 0
        if steps == 4:
            made.folder.inbox.put(SWAPPED, "/home/somebody/laws/law.json", "of 2031-01-02", None)
            made.parts.close()
    yield made
    made.parts.close()


@pytest.fixture(scope="module")
def exported(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "hf"
    before = everything(trainer.folder.path)
    assert export(trainer.folder.path, folder).lacks == ()
    assert everything(trainer.folder.path) == before
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_transformers_reads_the_folder_and_computes_the_same(exported, trainer, offline, caplog):
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    model, tokenizer = (kind.from_pretrained(str(exported)) for kind in (AutoModelForCausalLM, AutoTokenizer))
    tokens = torch.arange(93).view(3, 31)
    ours = trainer.parts.engine.losses(Batch(tokens, torch.zeros(3, dtype=torch.int64))).losses.mean()
    with torch.no_grad():
        assert float(model.eval()(tokens, labels=tokens).loss) == pytest.approx(float(ours), abs=1e-5)
    assert (tokenizer.model_max_length, tokenizer.eos_token, tokenizer.pad_token) == (64, *["<|endoftext|>"] * 2)
    assert model.generation_config.pad_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    opened = open_trained(exported)
    ids = text_to_ids(opened.tokenizer, ["The river"])
    write = pipeline("text-generation", str(exported))
    caplog.clear()
    (written,) = write("The river", max_new_tokens=5, do_sample=False, return_full_text=False)
    assert written["generated_text"] == opened.tokenizer.decode(generate(opened.model, ids, 5)[0].tokens)
    assert caplog.records == []


def test_the_same_checkpoint_gives_the_same_bytes_without_dates_and_paths(exported, trainer, tmp_path):
    export(trainer.folder.path, tmp_path / "again")
    assert set(contents(exported)) == FILES
    assert contents(tmp_path / "again") == contents(exported)
    for name, content in contents(exported).items():
        if name != "model.safetensors":
            assert not re.search(rb"20\d\d-\d\d|/tmp|/home", content), name
            assert str(tmp_path.parent).encode() not in content


def test_an_exported_folder_is_exported_to_the_same_bytes(exported, tmp_path):
    filled = shutil.copytree(exported, tmp_path / "filled")
    card = (filled / CARD_FILE).read_text().replace("license: unknown", "license: mit")
    (filled / CARD_FILE).write_text(card)
    done = tool("export_hf.py", filled, tmp_path / "again")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "again") == contents(filled)
    export(exported, tmp_path / "weights", with_tokenizer=False)
    assert set(contents(tmp_path / "weights")) == {name for name in FILES if "tokenizer" not in name}


def test_the_card_tells_domains_weights_journal_tokens_and_losses(exported, trainer):
    from huggingface_hub import ModelCard

    card = ModelCard.load(exported / CARD_FILE)
    shown = {"license": "unknown", "library_name": "transformers", "pipeline_tag": "text-generation"}
    assert card.data.to_dict().items() >= shown.items()
    losses = read_metrics(trainer.folder.path, "validation")[-1]["domain_loss"]
    for name, weight in SWAPPED.items():
        assert f"| {name} | {weight:g} | {losses[name]:.4f} |" in card.text
    assert "| tokens seen | 1,536 |" in card.text
    lines = [json.loads(line) for line in card.text.split("```json\n")[1].split("\n```")[0].splitlines()]
    events = [event for event in read_events(trainer.folder.journal) if event.source != "start"]
    assert [line["weights"] for line in lines] == [{"web": 0.5, "code": 0.5}, SWAPPED]
    assert [(line["version"], line["step"]) for line in lines] == [(e.version, e.effective_step) for e in events]
    assert [line["source"] for line in lines] == ["config", "law.json"]


def test_the_card_of_an_earlier_checkpoint_knows_nothing_of_later_steps(trainer, tmp_path):
    export(trainer.folder.path, tmp_path / "hf", step=4)
    card = (tmp_path / "hf" / CARD_FILE).read_text()
    losses = next(r["domain_loss"] for r in read_metrics(trainer.folder.path, "validation") if r["step"] == 4)
    assert f"| web | 0.5 | {losses['web']:.4f} |" in card
    assert "after step 4." in card
    assert "law.json" not in card
    run, newest = (TrainedRun(trainer.folder.path, step) for step in (4, 6))
    checkpoint = run.checkpoint()  # as if the swap had been accepted before step 4 was saved
    state = replace(checkpoint.state, journal=newest.checkpoint().state.journal)
    assert model_card(run, replace(checkpoint, state=state)) == card


def test_a_run_continues_from_an_exported_folder_with_its_tokenizer_checked(
    exported, trainer, make_trainer, corpus, caplog
):
    changes = {"data.corpus": str(corpus), "mixture.weights": SWAPPED, "model.context": 64, "model.dropout": 0.125}
    second = make_trainer(**changes, budget_tokens=512, **{"model.initial_weights": str(exported)})
    assert not [record for record in caplog.records if "tokenizer" in record.message]
    assert second.fit() == 0
    last, first = (read_metrics(each.folder.path, "validation") for each in (trainer, second))
    assert first[0]["loss"] == pytest.approx(last[-1]["loss"], abs=1e-5)


def test_a_folder_of_the_hub_is_exported_with_what_it_has(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub = hf_folder(tmp_path / "hub")
    done = tool("export_hf.py", hub, "--output", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"{hub} holds no README.md, so the folder has no model card; a run has what one says"
    ]
    assert set(contents(tmp_path / "hf")) == FILES - {CARD_FILE}
    tokens = torch.arange(20)[None]
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (hub, tmp_path / "hf")]
    with torch.no_grad():
        torch.testing.assert_close(models[0](tokens).logits, models[1](tokens).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").model_max_length == 64


def interrupted(*_):
    raise KeyboardInterrupt


def terminated(*_):
    os.kill(os.getpid(), signal.SIGTERM)


def without_room(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("happens", [interrupted, terminated, without_room])
def test_an_export_that_ends_early_leaves_nothing(exported, trainer, tmp_path, monkeypatch, happens):
    monkeypatch.setattr(GPT2Config, "write_hf", happens)
    before = signal.getsignal(signal.SIGTERM)
    try:
        end_on_termination()
        for source in (trainer.folder.path, exported):
            with pytest.raises((KeyboardInterrupt, SystemExit, OSError)):
                export(source, tmp_path / "deep" / "hf")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{hf}"], "with --output FOLDER or after the model; given: none"),
        (["{hf}", "{new}", "--output", "{new}2"], "after the model; given: "),
        (["{hf}", "{new}", "--step", "4"], "is a Hugging Face folder: it has no checkpoints"),
        (["{empty}", "{new}"], "is neither a run folder (no config.yaml) nor a Hugging Face folder"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, message, exported, tmp_path):
    (tmp_path / "empty").mkdir()
    places = {"hf": exported, "new": tmp_path / "new", "empty": tmp_path / "empty"}
    refused = tool("export_hf.py", *(each.format(**places) for each in arguments))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert message in refused.stderr
    assert not (tmp_path / "new").exists()


def test_what_a_folder_or_run_lacks_is_named(exported, trainer, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "hf")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "eos_token_id": None}))
    with pytest.raises(AutoScaleError, match=r"config\.json does not say which id ends documents; add it"):
        export(folder, tmp_path / "new")
    run = shutil.copytree(trainer.folder.path, tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"kind": "validation"}\n')
    with pytest.raises(AutoScaleError, match=r"metrics\.jsonl is damaged"):
        export(run, tmp_path / "new")
    assert not (tmp_path / "new").exists()

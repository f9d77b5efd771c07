"""Opening a trained model, and ``tools/generate.py`` on runs and on exported folders."""

import json

import pytest
import torch
from jobs import everything, tool
from tiny_models import hf_folder, sentences, text_corpus, tiny_tokenizer

from autoscale_ds.corpus.tokenizers import train_tokenizer
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.models.generation import generate
from autoscale_ds.objectives import Batch
from autoscale_ds.training.trained import open_trained, text_to_ids

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return text_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture
def trainer(make_trainer, corpus):
    """A run of 4 steps on text, with checkpoints after 2 and 4."""
    weights = {"web": 0.5, "code": 0.5}
    changes = {"data.corpus": str(corpus), "mixture.weights": weights, "checkpoints.every_steps": 2}
    made = make_trainer(budget_tokens=4 * 256, **changes)
    assert made.fit() == 0
    return made


def test_a_run_and_its_export_open_to_the_trained_model(trainer, tmp_path):
    folder = trainer.folder.path
    before = everything(folder)
    opened = open_trained(folder)
    assert (opened.step, opened.tokens_seen) == (4, 4 * 256)
    assert open_trained(folder, step=2).step == 2
    tokens = torch.tensor([text_to_ids(opened.tokenizer, [" ".join(sentences(9, "more"))])[0][:33]])
    expected = trainer.parts.engine.losses(Batch(tokens, torch.zeros(1, dtype=torch.int64))).losses
    with torch.no_grad():
        torch.testing.assert_close(opened.model(tokens[:, :-1], tokens[:, 1:]), expected, atol=1e-6, rtol=1e-5)
    assert tool("export_hf.py", folder, "--output", tmp_path / "hf").returncode == 0
    exported = open_trained(tmp_path / "hf")
    assert (exported.spec.layers, exported.spec.vocabulary) == (opened.spec.layers, opened.spec.vocabulary)
    prompt = tokens[:, :9].tolist()
    assert generate(exported.model, prompt, 10) == generate(opened.model, prompt, 10)
    assert everything(folder) == before


def test_the_tool_writes_samples_that_do_not_depend_on_their_company(trainer, tmp_path):
    options = ["--temperature", "1.2", "--top-p", "0.9", "--seed", "5", "--max-tokens", "8", "--json"]
    (tmp_path / "prompts.txt").write_text("the water\nit was\n")
    done = tool("generate.py", trainer.folder.path, "--prompts-file", tmp_path / "prompts.txt", "--num", 3, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    many = json.loads(done.stdout)
    assert (many["step"], many["tokens_seen"], len(many["samples"])) == (4, 1024, 6)
    done = tool("generate.py", trainer.folder.path, "--prompt", "it was", "--num", 2, "--batch-size", 1, *options)
    assert json.loads(done.stdout)["samples"] == many["samples"][3:5]
    plain = tool("generate.py", trainer.folder.path, "--prompt", "", "--checkpoint", 2, "--max-tokens", 3)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.endswith("\n")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return hf_folder(tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Tokenizers of another run: one of as many tokens, one larger."""
    folder = tmp_path_factory.mktemp("others")
    for name, size in (("same_size", 300), ("larger", 330)):
        made = train_tokenizer((text.encode() for text in sentences(300, "other")), size)
        (folder / f"{name}.json").write_text(made.json_text)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--checkpoint", "7"], "no checkpoint of step 7, it holds those of steps 4, 2"),
        (["{run}", "--tokenizer", "{others}/same_size.json"], "is not the one whose ids the run was trained on"),
        (["{hf}", "--tokenizer", "{others}/larger.json"], "tokens, the model in"),
        (["{hf}", "--checkpoint", "4"], "no checkpoints"),
        (["{empty}"], "is neither a run folder (no config.yaml) nor a Hugging Face folder (no config.json)"),
        (["{bert}"], "describes a model of type 'bert', expected one of gpt2"),
        (["{gelu}"], "activation_function 'gelu', this program computes 'gelu_new' or"),
        (["{hf}", "--prompt", "water " * 200], "expected 1 to 64, the model's context"),
        (["{hf}", "--temperature", "0"], "expected a finite number above 0"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, message, trainer, exported, others, tmp_path):
    for name, changes in (("bert", {"model_type": "bert"}), ("gelu", {"activation_function": "gelu"})):
        raw = json.loads((exported / "config.json").read_text())
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**raw, **changes}))
    places = {name: tmp_path / name for name in ("empty", "bert", "gelu")}
    places |= {"run": trainer.folder.path, "hf": exported, "others": others}
    refused = tool("generate.py", *(each.format(**places) for each in arguments), "--prompt", "the")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert message in refused.stderr


def test_text_that_quotes_the_end_of_a_document_does_not_end_one():
    tokenizer = tiny_tokenizer()
    (ids,) = text_to_ids(tokenizer, ["the <|endoftext|> river"])
    assert tokenizer.info.end_of_document not in ids
    assert tokenizer.decode(ids) == "the <|endoftext|> river"
    assert text_to_ids(tokenizer, ["", "no"])[0] == []
    with pytest.raises(AutoScaleError, match="cannot be given to the model"):
        text_to_ids(tokenizer, ["\udce9"])

"""Continued pretraining from a Hugging Face folder, and whether its tokenizer is the corpus's."""

import json
import logging
import shutil

import pytest
import torch
from tiny_models import hf_folder, sentences, text_corpus, tiny_tokenizer

from autoscale_ds.corpus.tokenizers import load_tokenizer, train_tokenizer
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.objectives import Batch

pytestmark = pytest.mark.slow
SHAPE = {"model.preset": None, "model.layers": 2, "model.heads": 2, "model.width": 32, "model.context": 64}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return text_corpus(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder as the hub's GPT-2 family has it: random weights in half precision, ``vocab.json``, ``merges.txt``."""
    from transformers import GPT2LMHeadModel

    folder = hf_folder(tmp_path_factory.mktemp("hub"))
    GPT2LMHeadModel.from_pretrained(folder).half().save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    write_byte_pairs(folder, model["vocab"], model["merges"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    return folder


def write_byte_pairs(folder, vocabulary, merges):
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in merges))


@pytest.fixture
def start(make_trainer, corpus):
    """Return a function that builds the trainer of a run on text that begins with a folder's weights."""
    weights = {"web": 0.5, "code": 0.5}

    def make(initial, **changes):
        settings = {"data.corpus": str(corpus), "mixture.weights": weights, "budget_tokens": 512, **SHAPE}
        return make_trainer(**{**settings, "model.initial_weights": str(initial), **changes})

    return make


def test_a_run_continues_from_a_folder_of_the_hubs_gpt2_family(start, hub, caplog):
    from transformers import GPT2LMHeadModel

    trainer = start(hub)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    tokens = torch.arange(93).view(3, 31)
    batch = Batch(tokens, torch.zeros(len(tokens), dtype=torch.int64))
    theirs = GPT2LMHeadModel.from_pretrained(hub, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(tokens, labels=tokens).loss  # transformers' own cross-entropy
    assert float(trainer.parts.engine.losses(batch).losses.mean()) == pytest.approx(float(expected), abs=1e-5)
    assert trainer.fit() == 0


@pytest.mark.parametrize("written", ["as_made", "compact", "merges_as_strings"])
def test_how_a_tokenizers_file_is_written_does_not_count(start, hub, tmp_path, caplog, written):
    folder = shutil.copytree(hub, tmp_path / "hub")
    text = tiny_tokenizer().json_text
    raw = json.loads(text)
    if written == "merges_as_strings":
        raw["model"]["merges"] = [" ".join(pair) for pair in raw["model"]["merges"]]
    (folder / "tokenizer.json").write_text(text if written == "as_made" else json.dumps(raw))
    start(folder)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def with_other_texts():
    return json.loads(train_tokenizer((text.encode() for text in sentences(300, "other")), 300).json_text)


def with_other_merges():
    raw = json.loads(tiny_tokenizer().json_text)
    raw["model"]["merges"].reverse()
    return raw


def with_space_in_front():
    raw = json.loads(tiny_tokenizer().json_text)
    raw["pre_tokenizer"]["add_prefix_space"] = True
    return raw


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (with_other_texts, r"id \d+ is '.*' in the corpus and '.*' there"),
        (with_other_merges, "the vocabulary is the same, its merges are others"),
        (with_space_in_front, "the vocabulary is the same, but .* has other ids"),
    ],
)
def test_weights_of_another_tokenizer_are_refused(start, hub, corpus, tmp_path, make, difference):
    folder = shutil.copytree(hub, tmp_path / "hub")
    (folder / "tokenizer.json").write_text(json.dumps(make()))
    with pytest.raises(AutoScaleError, match=difference) as refused:
        start(folder)
    message = str(refused.value)
    for part in (f"is {folder}", f"corpus {corpus} (300 tokens, sha256", f"preprocess_domains.py --tokenizer {folder}"):
        assert part in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()


def test_a_folder_without_tokenizer_is_taken_with_a_warning_if_its_size_fits(start, hub, tmp_path, caplog):
    folder = shutil.copytree(hub, tmp_path / "hub")
    (folder / "vocab.json").unlink()
    start(folder)
    assert "holds no tokenizer, so whether it was trained on ids of the corpus's is not known" in caplog.text
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=900, n_layer=2, n_head=2, n_embd=32, n_positions=64)).save_pretrained(folder)
    with pytest.raises(AutoScaleError, match="its model knows 900 tokens where this run's has 300"):
        start(folder, folder="large")


def test_another_end_of_documents_is_a_warning(start, hub, tmp_path, caplog):
    folder = shutil.copytree(hub, tmp_path / "hub")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 7}))
    start(folder)
    assert f"documents end with id 7 for the model in {folder}, with 0 in the corpus" in caplog.text


def test_a_shape_that_differs_is_named_with_the_setting_to_change(start, hub):
    with pytest.raises(AutoScaleError, match=r"its model has 64 positions, the model of this run 32; set model\.con"):
        start(hub, **{"model.context": None})
    with pytest.raises(AutoScaleError, match=r"its model has 2 layers, the model of this run 1; set model\.layers=2"):
        start(hub, folder="shallow", **{"model.layers": 1})


def test_vocabulary_and_merges_are_read_as_the_tokenizer_they_are(hub, tmp_path):
    from transformers import AutoTokenizer

    ours, theirs = load_tokenizer(str(hub)), AutoTokenizer.from_pretrained(str(hub))
    assert (ours.info.vocabulary_size, ours.info.end_of_document) == (len(theirs), theirs.eos_token_id)
    for text in sentences(20, "read"):
        assert ours.texts([text])[0][0].tolist() == theirs.encode(text)
    write_byte_pairs(tmp_path, {"a": 0}, [["b", "c"]])
    with pytest.raises(AutoScaleError, match=r"vocab\.json and merges\.txt are no byte-level BPE \(.*copy both"):
        load_tokenizer(str(tmp_path))

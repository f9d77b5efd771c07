"""Ids equal those of `tokenizers`; special tokens inside documents are ordinary text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from corpus_helpers import sentences, texts_of, write_jsonl

from autoscale_ds.corpus.tokenizers import load_tokenizer
from autoscale_ds.errors import CorpusError

QUOTED = [
    "<|endoftext|>",
    "a <|endoftext|> b",
    "<|endoftext|><|endoftext|>",
    "x<|endoftext|",
    "<|endoftext|>\n<|endoftext|>x",
]


@pytest.mark.parametrize("fast", [True, False])
def test_a_quoted_special_token_stays_text(gpt2: Path, fast: bool):
    tokenizer = load_tokenizer(str(gpt2))
    if fast:
        pytest.importorskip("gigatoken")
        assert tokenizer.use_gigatoken([]) is None
    tokens, lengths = tokenizer.encode([text.encode() for text in QUOTED])
    assert (tokens == 50256).sum() == len(QUOTED)
    for text, document in zip(QUOTED, np.split(tokens, np.cumsum(lengths)[:-1]), strict=True):
        assert document[-1] == 50256
        assert tokenizer.decode(document[:-1]) == text


def test_quoted_special_tokens_end_no_document_of_a_corpus(run, gpt2: Path, tmp_path: Path):
    run({"web": write_jsonl(tmp_path / "a.jsonl", QUOTED)}, tokenizer=str(gpt2))
    assert texts_of(tmp_path / "corpus", "web") == QUOTED


def test_both_libraries_give_the_ids_of_tokenizers_itself(gpt2: Path):
    pytest.importorskip("gigatoken")
    reference = tokenizers.Tokenizer.from_file(str(gpt2 / "tokenizer.json"))
    chance = random.Random(0)
    alphabet = "abc ABC 019 \n\t'.,!?-_=()<|>éß漢字한ع🙂\u0301\u200d\u00a0\u2028\x00"
    texts = ["".join(chance.choices(alphabet, k=chance.randrange(200))) for _ in range(500)] + sentences(50, "both")
    fast, slow = load_tokenizer(str(gpt2)), load_tokenizer(str(gpt2))
    assert fast.use_gigatoken([]) is None
    expected = [[*reference.encode(text).ids, 50256] for text in texts]
    for tokenizer in (fast, slow):
        tokens, lengths = tokenizer.encode([text.encode() for text in texts])
        assert tokens.tolist() == [token for ids in expected for token in ids]
        assert lengths.tolist() == [len(ids) for ids in expected]


def test_a_tokenizer_on_which_gigatoken_differs_falls_back_with_a_notice(gpt2: Path, monkeypatch):
    tokenizer = load_tokenizer(str(gpt2))
    reference = tokenizer.backend
    monkeypatch.setattr(
        "autoscale_ds.corpus.tokenizers._GigatokenBackend.encode",
        lambda self, documents: (np.zeros(len(documents), np.uint32), np.ones(len(documents), np.int64)),
    )
    assert "gigatoken gives other ids than tokenizers for" in (tokenizer.use_gigatoken([]) or "")
    assert tokenizer.backend is reference


def test_truncation_and_padding_of_a_tokenizer_cut_and_fill_no_document(tokenizer_folder: Path, tmp_path: Path):
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    plain, _ = load_tokenizer(str(tokenizer_folder)).encode([b"wonder " * 50, b"x"])
    model = tokenizers.Tokenizer.from_str(json.dumps(spec))
    model.enable_truncation(4)
    model.enable_padding(length=16)
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.encode([b"wonder " * 50, b"x"])[0].tolist() == plain.tolist()
    assert tokenizer.use_gigatoken([]) is None
    assert tokenizer.encode([b"wonder " * 50, b"x"])[0].tolist() == plain.tolist()


def test_the_end_of_document_token_is_found_configured_or_asked_for(tokenizer_folder: Path, tmp_path: Path):
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    spec["added_tokens"][0]["content"] = "<stop>"
    spec["model"]["vocab"]["<stop>"] = spec["model"]["vocab"].pop("<|endoftext|>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(CorpusError, match="name the token that ends a document with --end-of-document"):
        load_tokenizer(str(tmp_path))
    assert load_tokenizer(str(tmp_path), "<stop>").end_name == "<stop>"
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<stop>"}}')
    assert load_tokenizer(str(tmp_path)).end_name == "<stop>"
    with pytest.raises(CorpusError, match="has no token '<none>'"):
        load_tokenizer(str(tmp_path), "<none>")


@pytest.mark.parametrize("name", ["no/such/folder", "missing.json"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_name(name: str):
    with pytest.raises(CorpusError, match=r"expected a tokenizer\.json or a folder that holds one"):
        load_tokenizer(name)

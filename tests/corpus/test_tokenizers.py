"""Ids equal those of `tokenizers`; special tokens inside documents are ordinary text."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from corpus_helpers import run_tool, sentences, texts_of, write_jsonl

from autoscale_ds.corpus.backends import ReferenceBackend
from autoscale_ds.corpus.tokenizers import TextTokenizer, load_tokenizer
from autoscale_ds.corpus.workers import resident_bytes
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
    tokens, lengths, _ = tokenizer.encode([text.encode() for text in QUOTED])
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
        tokens, lengths, _ = tokenizer.encode([text.encode() for text in texts])
        assert tokens.tolist() == [token for ids in expected for token in ids]
        assert lengths.tolist() == [len(ids) for ids in expected]


def test_a_tokenizer_on_which_gigatoken_differs_falls_back_with_a_notice(gpt2: Path, monkeypatch):
    tokenizer = load_tokenizer(str(gpt2))
    reference = tokenizer.backend
    monkeypatch.setattr(
        "autoscale_ds.corpus.backends.GigatokenBackend.encode",
        lambda self, documents: (np.zeros(len(documents), np.uint32), np.ones(len(documents), np.int64)),
    )
    assert "gigatoken gives other ids than tokenizers for" in (tokenizer.use_gigatoken([]) or "")
    assert tokenizer.backend is reference


def test_truncation_and_padding_of_a_tokenizer_cut_and_fill_no_document(tokenizer_folder: Path, tmp_path: Path):
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    plain, _, _ = load_tokenizer(str(tokenizer_folder)).encode([b"wonder " * 50, b"x"])
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


def unigram(special: bool) -> str:
    """A tokenizer in the manner of T5: ``</s>`` is a piece of its vocabulary."""
    pieces = [["<unk>", 0.0], ["</s>", -1.0], *([letter, -3.0] for letter in "▁abcs</>"), ["▁a", -2.0]]
    model = tokenizers.Tokenizer(tokenizers.models.Unigram([(piece, score) for piece, score in pieces], 0, False))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    if special:
        model.add_special_tokens(["</s>"])
    return model.to_str()


def bpe_with_plain_end(gpt2: Path) -> str:
    """GPT-2's, with an end token that is not marked special."""
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    options = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    spec["added_tokens"] = [{"id": 50256, "content": "<|endoftext|>", **options}]
    return json.dumps(spec)


@pytest.mark.parametrize("kind", ["unigram", "unigram, special", "bpe"])
@pytest.mark.parametrize("fast", [True, False])
def test_no_text_holds_the_id_that_ends_documents(gpt2: Path, kind: str, fast: bool):
    text = bpe_with_plain_end(gpt2) if kind == "bpe" else unigram(kind.endswith("special"))
    tokenizer = TextTokenizer(kind, text)
    if fast:
        tokenizer.use_gigatoken([])
    quoted = ["a b", "a</s>b c", "</s>", "a</s", *QUOTED] if kind == "bpe" else ["a b", "a</s>b c", "</s>", "a</s"]
    tokens, lengths, refused = tokenizer.encode([each.encode() for each in quoted])
    assert not refused
    end = tokenizer.info.end_of_document
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    assert [document.tolist().count(end) for document in documents] == [1] * len(quoted)
    assert [tokenizer.decode(document[:-1]) for document in documents] == quoted
    # Documents without it have the ids of tokenizers itself.
    reference = tokenizers.Tokenizer.from_str(text)
    assert documents[0].tolist() == [*reference.encode("a b", add_special_tokens=False).ids, end]


def test_a_document_that_cannot_be_without_it_is_named(run, gpt2: Path, tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", ["one line", "two\nlines", "three"] * 40)
    settings = {"tokenizer": str(gpt2), "end_of_document": "Ċ", "piece_megabytes": 0.001}
    with pytest.raises(CorpusError, match=r"a\.jsonl:2: the text holds 'Ċ', which this tokenizer turns into the id"):
        run({"web": path}, **settings)
    summary = run({"web": path}, on_error="skip", **settings)
    assert summary.counts["web"].errors == 40
    problems = [json.loads(line) for line in (tmp_path / "corpus/errors.jsonl").read_text().splitlines()]
    assert sorted(problem["line"] for problem in problems) == list(range(2, 120, 3))


def test_a_failing_tokenizer_names_the_document(run, tokenizer_folder: Path, tmp_path: Path, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", [*sentences(9, "good"), "bad", *sentences(9, "more")])
    original = ReferenceBackend.encode

    def encode(self, documents):
        if b"bad" in documents:
            raise BaseException("PanicException: index out of range\nand more") if len(documents) > 1 else MemoryError()
        return original(self, documents)

    monkeypatch.setattr("autoscale_ds.corpus.backends.ReferenceBackend.encode", encode)
    with pytest.raises(CorpusError, match=r"a\.jsonl:10: the tokenizer failed: MemoryError"):
        run({"web": path}, gigatoken=False)
    summary = run({"web": path}, gigatoken=False, on_error="skip")
    assert (summary.counts["web"].errors, summary.counts["web"].read) == (1, 19)
    assert len(texts_of(tmp_path / "corpus", "web")) == 18


def test_dropout_of_the_tokenizer_is_off(run, gpt2: Path, tmp_path: Path):
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    spec["model"]["dropout"] = 0.3
    (tmp_path / "dropout").mkdir()
    (tmp_path / "dropout" / "tokenizer.json").write_text(json.dumps(spec))
    path = write_jsonl(tmp_path / "a.jsonl", sentences(50, "dropout"))
    done = run_tool("--output", tmp_path / "a", "--tokenizer", tmp_path / "dropout", "--domain", f"web={path}")
    assert "BPE dropout (0.3) is off" in done.stderr
    run({"web": path}, output="b", tokenizer=str(gpt2))
    name = "web/train-00000.bin"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_memory_does_not_grow_with_the_words_that_were_met(gpt2: Path, monkeypatch):
    pytest.importorskip("gigatoken")
    monkeypatch.setattr("autoscale_ds.corpus.backends._CACHE_BYTES", 60 << 20)
    tokenizer = load_tokenizer(str(gpt2))
    assert tokenizer.use_gigatoken([]) is None
    chance, before, sizes, lengths = np.random.default_rng(0), resident_bytes(), [], []
    texts = []
    for _ in range(16):
        letters = chance.integers(97, 123, 2_000_000).astype("u1")
        letters[::9] = 32
        texts.append(letters.tobytes())
        lengths.append(tokenizer.encode(texts[-1:]).lengths.tolist())
        sizes.append((resident_bytes() - before) >> 20)
    assert any(after < size - 20 for size, after in itertools.pairwise(sizes)), sizes  # one was made anew
    assert max(sizes) < 200, sizes
    assert lengths[::5] == [tokenizer.encode([text]).lengths.tolist() for text in texts[::5]]


def test_unknown_text_is_refused_where_the_unknown_token_ends_documents():
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    _, lengths, refused = TextTokenizer("wordpiece", model.to_str(), "[UNK]").encode([b"a a", b"a z", b"a"])
    assert lengths.tolist() == [3, 2]
    assert "the text holds '[UNK]'" in refused[1]


@pytest.mark.parametrize("vocabulary", [{}, {"a": 1 << 31}])
def test_a_vocabulary_without_usable_ids_is_refused(vocabulary: dict[str, int]):
    spec = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    with pytest.raises(CorpusError, match=r"expected ids up to 2,147,483,647"):
        TextTokenizer("odd", json.dumps(spec), 0)

"""With the features listed as proven, gigatoken's ids are those of tokenizers: tried on all proven characters.

Each character meets one class of neighbours here, in front or behind. Every class with every character takes half a
minute a feature, and was tried with gigatoken 0.10.0 and tokenizers 0.23.3.
"""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from autoscale_ds.corpus.backends import GigatokenBackend, ReferenceBackend
from autoscale_ds.corpus.proven_characters import unproven_characters
from autoscale_ds.corpus.proven_features import PATTERNS, unproven_feature
from autoscale_ds.corpus.tokenizers import TextTokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = {**BYTE_LEVEL, "use_regex": True}
NFC = {"type": "NFC"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
LEGACY = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, REPLACE]}
NEIGHBOURS = ["a", "A", "1", " ", "\n", "!", "'s", "\u0301", "漢", "²", "\t", "\u01c5", "/"]
PIECES = [
    "'s",
    "'LL",
    " 't",
    "\r\n",
    "   ",
    "ſ",
    "K",
    "abe",
    "cat",
    "the cats",
    *"abAZ019 \n\t.,'_/éßÉ漢한ع🙂\u0301\u200d\u2028²Ⅷ१ʰ▁",
]


def split(pattern: str, **options: Any) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **options}
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


def metaspace(scheme: str, is_split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": is_split}


def added(content: str, number: int, **options: Any) -> dict[str, Any]:
    options = {**dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False), **options}
    return {"id": number, "content": content, **options}


@functools.cache
def merges_of(letters: str) -> tuple[list[list[str]], list[str]]:
    """Merges of any two letters, in an order of chance, and the pieces they make."""
    merges = [[left, right] for left in letters for right in letters]
    random.Random(0).shuffle(merges)
    return merges, [*letters, *map("".join, merges)]


@functools.cache
def numbered(letters: str, first: tuple[str, ...] = ()) -> dict[str, int]:
    return {piece: number for number, piece in enumerate([*first, *merges_of(letters)[1]])}


def byte_level_bpe(pre_tokenizer: Any, normalizer: Any = None, tokens: tuple = (), **model: Any) -> dict[str, Any]:
    """A tokenizer that merges any two bytes."""
    letters = "".join(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    vocabulary, merges = numbered(letters), merges_of(letters)[0]
    return {
        **{"version": "1.0", "truncation": None, "padding": None, "post_processor": None, "decoder": None},
        **{"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "added_tokens": list(tokens)},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, **model},
    }


def sentencepiece_bpe(pre_tokenizer: Any, normalizer: Any = None, tokens: tuple = ()) -> dict[str, Any]:
    """A tokenizer that merges any two of some characters and falls back to bytes."""
    letters, first = "▁abcsthe.漢é1\n", ("<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    spec = byte_level_bpe(pre_tokenizer, normalizer, tokens)
    model = {"type": "BPE", "vocab": numbered(letters, first), "merges": merges_of(letters)[0]}
    spec["model"] = {**model, "byte_fallback": True, "unk_token": "<unk>"}
    return spec


PROVEN = {
    "GPT-2": byte_level_bpe(GPT2),
    "GPT-2 with a space in front": byte_level_bpe({**GPT2, "add_prefix_space": True}),
    "GPT-2 with NFC": byte_level_bpe(GPT2, NFC),
    "ignore_merges": byte_level_bpe(GPT2, ignore_merges=True),
    **{name: byte_level_bpe(split(pattern)) for name, pattern in PATTERNS.items()},
    "Removed": byte_level_bpe(split(PATTERNS["Llama 3"], behavior="Removed", invert=True)),
    "Qwen 2 with NFC": byte_level_bpe(split(PATTERNS["Qwen 2"]), {"type": "Sequence", "normalizers": [NFC]}),
    "added tokens": byte_level_bpe(GPT2, None, (added("cats", 65_792), added("the cats", 65_793))),
    "normalized added tokens": byte_level_bpe(
        GPT2, None, (added("e", 68, normalized=True), added("\n\n\n", 65_792, normalized=True))
    ),
    "added tokens with NFC": byte_level_bpe(GPT2, NFC, (added("cats", 65_792), added("e\u0301", 65_793))),
    **{
        f"Metaspace, {scheme}, {is_split}": sentencepiece_bpe(metaspace(scheme, is_split))
        for scheme in ("always", "first", "never")
        for is_split in (True, False)
    },
    "Llama 2": sentencepiece_bpe(None, LEGACY),
    "Gemma": sentencepiece_bpe(
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}, REPLACE
    ),
}
CL100K = PATTERNS["Llama 3"].replace(r"\s*[\r\n]+", r"\s*[\r\n]")
UNPROVEN = {
    "Split and ByteLevel": byte_level_bpe(split(CL100K)),
    "ByteLevel": byte_level_bpe(BYTE_LEVEL),
    "added token 'the', which is normalized": byte_level_bpe(GPT2, NFC, (added("the", 99_990, normalized=True),)),
    "option single_word of the added token 'cat'": byte_level_bpe(
        GPT2, None, (added("cat", 99_990, single_word=True),)
    ),
    "added token 'cat' of a SentencePiece": sentencepiece_bpe(metaspace("always", True), None, (added("cat", 9_990),)),
    "which may overlap '<x>yz'": byte_level_bpe(
        GPT2, None, (added("<x>yz", 65_792, special=True), added("yzab", 65_793))
    ),
    "some are normalized": byte_level_bpe(
        GPT2, None, (added("cats", 65_792), added("the cats", 65_793, normalized=True))
    ),
    "end_of_word_suffix": byte_level_bpe(GPT2, end_of_word_suffix="</w>"),
    "NFKC": byte_level_bpe(GPT2, {"type": "NFKC"}),
}


@pytest.fixture(scope="module")
def documents() -> list[bytes]:
    """Every proven character beside a neighbour of some class, and texts of hard pieces."""
    codes = np.flatnonzero(~unproven_characters(normalizes=True))
    # Ideographs, syllables and private use are ranges of one class each: a part of them is enough.
    dense = ((codes > 0x4E10) & (codes < 0x9FF0)) | ((codes > 0xAC10) & (codes < 0xD790)) | (codes > 0x20010)
    codes = codes[(~dense | (codes % 97 == 0)) & ~((codes >= 0xD800) & (codes < 0xE000))]
    assert len(codes) > 30_000
    chance = random.Random(0)
    pairs = [(chr(code), NEIGHBOURS[place % len(NEIGHBOURS)]) for place, code in enumerate(codes.tolist())]
    texts = ["".join(pair if chance.random() < 0.5 else reversed(pair)) for pair in pairs]
    texts = ["\n.\n".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    texts += ["".join(chance.choices(PIECES, k=chance.randrange(30))) for _ in range(5000)]
    return [text.encode() for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVEN)
def test_ids_are_equal_on_what_is_listed(documents: list[bytes], name: str):
    pytest.importorskip("gigatoken")
    spec = PROVEN[name]
    assert unproven_feature(spec) is None
    if spec["model"].get("byte_fallback"):  # knows no classes of characters
        documents = documents[:-5000:8] + documents[-5000:]
    text = json.dumps(spec)
    reference = ReferenceBackend(tokenizers.Tokenizer.from_str(text))
    fast = GigatokenBackend(text, reference)
    assert not fast._proven.others(documents)
    for ours, theirs in zip(fast.encode(documents), reference.encode(documents), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("feature", UNPROVEN)
def test_what_is_not_listed_is_left_to_tokenizers(feature: str):
    pytest.importorskip("gigatoken")
    tokenizer = TextTokenizer("odd", json.dumps(UNPROVEN[feature]), 3)
    reason = tokenizer.use_gigatoken([]) or ""
    assert "not proven to give the same ids with" in reason
    assert feature in reason
    assert tokenizer.backend.name == "tokenizers"


def test_an_added_token_whose_id_tokenizers_does_not_keep_is_noticed():
    pytest.importorskip("gigatoken")
    tokenizer = TextTokenizer("odd", json.dumps(byte_level_bpe(GPT2, None, (added("cats", 99_990),))), 3)
    assert "gives other ids than tokenizers for b'cats'" in (tokenizer.use_gigatoken([]) or "")


def test_an_added_token_with_options_is_found_where_tokenizers_finds_it(gpt2: Path):
    reference = tokenizers.Tokenizer.from_file(str(gpt2 / "tokenizer.json"))
    reference.add_tokens([tokenizers.AddedToken("cat", single_word=True)])
    tokenizer = TextTokenizer("cat", reference.to_str())
    tokenizer.use_gigatoken([])
    assert tokenizer.encode([b"cat concatenate"]).tokens.tolist()[:-1] == reference.encode("cat concatenate").ids


def test_a_tokenizer_on_which_the_library_panics_is_one_line(gpt2: Path):
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    spec["model"]["continuing_subword_prefix"] = "##"
    with pytest.raises(Exception, match=r"^tokenizer odd is no valid tokenizer\.json: [^\n]+$"):
        TextTokenizer("odd", json.dumps(spec))

"""Documents with characters outside the proven set are encoded by tokenizers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoscale_ds.corpus.proven_characters import ProvenText
from autoscale_ds.corpus.tokenizers import TextTokenizer

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
LLAMA3 = WORDS + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTEXTS = {
    "gpt2": ["{}'s", "1{}!"],
    "llama3": ["_{}'s", "12{}\n"],
    "nfc": ["a{}\u0323\u0301", "{}\u0301's"],
}


def tokenizer_of(kind: str, gpt2: Path) -> str:
    spec = json.loads((gpt2 / "tokenizer.json").read_text())
    if kind == "nfc":
        spec["normalizer"] = {"type": "NFC"}
    if kind == "llama3":
        split = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return json.dumps(spec)


def both(kind: str, gpt2: Path) -> tuple[TextTokenizer, TextTokenizer]:
    """Return the same tokenizer by tokenizers and by gigatoken."""
    pytest.importorskip("gigatoken")
    text = tokenizer_of(kind, gpt2)
    slow, fast = TextTokenizer(kind, text), TextTokenizer(kind, text)
    assert fast.use_gigatoken([]) is None
    return slow, fast


@pytest.mark.parametrize("kind", CONTEXTS)
def test_documents_with_other_characters_have_the_ids_of_tokenizers_too(gpt2: Path, kind: str):
    slow, fast = both(kind, gpt2)
    others = [0x88F, 0xC5C, 0xCDC, 0xA7CE, 0x16EA0, 0x323B0, *((0x7FD, 0x899, 0x1715, 0x1DF6) if kind == "nfc" else ())]
    documents = []
    for context in [*CONTEXTS[kind], "{}"]:
        documents += [b"plain", *(context.format(chr(code)).encode() for code in others), "été €".encode()]
    ours, theirs = fast.encode(documents), slow.encode(documents)
    assert ours.tokens.tolist() == theirs.tokens.tolist()
    assert ours.lengths.tolist() == theirs.lengths.tolist()
    if kind == "gpt2" and sys.version_info < (3, 15):
        tokens, _ = fast.backend._encode(documents)
        assert len(tokens) != len(theirs.tokens) - len(documents), "gigatoken agrees now: proven.py can go"


def test_documents_are_found_wherever_the_character_stands():
    proven: Callable = ProvenText(normalizes=False).others
    other = chr(0x323B0).encode()
    assert proven([]) == []
    assert proven([b"", b"ascii", "é 漢 🙂".encode()]) == []
    assert proven([b"", other, b"x", b"a" + other, "é".encode(), other + b"b", b""]) == [1, 3, 5]

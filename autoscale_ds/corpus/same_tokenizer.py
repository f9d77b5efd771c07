"""Whether a tokenizer gives the ids that a corpus is made of, told by what it does and not by how its file is written.

The same tokenizer is written in several ways: with merges as strings or as pairs, as ``vocab.json`` and ``merges.txt``,
by another version of ``tokenizers``. So where the checksums differ, vocabulary and merges are compared, and the ids of
texts that tokenizers are known to cut differently.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tokenizers

from autoscale_ds.corpus.backends import HARD_TEXTS
from autoscale_ds.corpus.manifest import TokenizerInfo
from autoscale_ds.corpus.store import Corpus
from autoscale_ds.corpus.tokenizer_files import find_tokenizer
from autoscale_ds.corpus.tokenizers import TextTokenizer


def difference_from(corpus: Corpus, other: TextTokenizer) -> str | None:
    """Return in words how a tokenizer differs from the one of a corpus; None where it gives the same ids.

    A corpus without a ``tokenizer.json`` knows its checksum or only its size; then that is all that is compared.
    """
    info = corpus.manifest.tokenizer
    if info.sha256 and info.sha256 == other.info.sha256:
        return None
    if info.file:
        path = str(corpus.folder / info.file)
        own = TextTokenizer(path, find_tokenizer(path, needs_config=False).json_text, info.end_of_document)
        if info.sha256 and own.info.sha256 != info.sha256:
            return f"{path} is no longer what the corpus was made with, so only the checksum counts"
        return _difference(own, other)
    if info.sha256:
        return "another checksum"
    return None if info.vocabulary_size == other.info.vocabulary_size else "another size"


def described(info: TokenizerInfo) -> str:
    """Return what an error says of a tokenizer: its size, and the start of its checksum where it has one."""
    digest = f", sha256 {info.sha256[:16]}" if info.sha256 else ""
    return f"{info.vocabulary_size:,} tokens{digest}"


def _difference(own: TextTokenizer, other: TextTokenizer) -> str | None:
    mine, theirs = (_read(each.json_text) for each in (own, other))
    if mine["vocabulary"] != theirs["vocabulary"]:
        index = min(mine["vocabulary"].items() ^ theirs["vocabulary"].items())[0]
        here, there = (each["vocabulary"].get(index) for each in (mine, theirs))
        return f"id {index} is {here!r} in the corpus and {there!r} there"
    if mine["merges"] != theirs["merges"]:
        return "the vocabulary is the same, its merges are others"
    for text, ids, others in zip(HARD_TEXTS, own.texts(HARD_TEXTS)[0], other.texts(HARD_TEXTS)[0], strict=True):
        if not np.array_equal(ids, others):
            return f"the vocabulary is the same, but {text[:30]!r} has other ids"
    return None


def _read(json_text: str) -> dict[str, Any]:
    """Return the token of every id, and the merges in order, whatever version wrote the file."""
    read = tokenizers.Tokenizer.from_str(json_text)
    vocabulary = {index: token for token, index in read.get_vocab(with_added_tokens=True).items()}
    return {"vocabulary": vocabulary, "merges": json.loads(read.to_str())["model"].get("merges")}

"""The libraries that encode: `tokenizers`, the reference, and `gigatoken`, some fifteen times faster.

gigatoken is used where its ids are those of the reference: with a tokenizer made of features on which that is proven
(``proven_features``), and for documents of characters on which it is (``proven_characters``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

from autoscale_ds.corpus.proven_characters import ProvenText
from autoscale_ds.corpus.proven_features import unproven_feature
from autoscale_ds.corpus.workers import resident_bytes
from autoscale_ds.errors import CorpusError

# Texts on which fast tokenizers are known to differ; the check at start adds documents of the corpus itself.
HARD_TEXTS = (
    "<|endoftext|> a<|endoftext|>b </s> [SEP] <s>",
    "it's I'LL we've  double   triple\t\ttabs\r\nlines\n\n\n  end  ",
    "12345 3.14159 1,000,000 ²³ ½ Ⅷ १२३",
    "café cafe\u0301 Å \u00a0nbsp\u2003em\u3000wide\u200bzero \ufeffmark",
    "汉字かな한국어 عربى עברית हिन्दी ไทย 👩‍👩‍👧‍👦🇪🇺 \U00010348",
    "\x00\x01\x1f\x7f\u0085\u2028\u2029 \ufffd \ue000 \U0010ffff",
    "a" * 3000 + " " * 700 + "\n" * 300 + "=-" * 500,
    "",
    " ",
)
# gigatoken's cache of words has no limit: 8 bytes of memory a byte of random words, some 100 MB in all for real text.
# An encoder that has grown by this much is made anew, in a third of a second.
_CACHE_BYTES = 512 << 20


class Backend(Protocol):
    """Encode documents, given as UTF-8, into ids and the number of ids of each."""

    name: str

    def encode(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Return all ids back to back, and the lengths, shape (len(documents),)."""


class ReferenceBackend:
    """Encodes with tokenizers, whose ids count."""

    name = "tokenizers"

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        texts = [document.decode() for document in documents]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, np.uint32) for encoding in encodings]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.concatenate(ids) if ids else np.empty(0, np.uint32), lengths


class GigatokenBackend:
    """Encodes with gigatoken and no special tokens, which it would recognise inside documents too.

    Documents with characters on which it is not proven to give the same ids are encoded by ``reference``.
    """

    name = "gigatoken"

    def __init__(self, json_text: str, reference: Backend) -> None:
        self._reference = reference
        self._process = self._size = 0
        spec = json.loads(json_text)
        if (feature := unproven_feature(spec)) is not None:
            raise CorpusError(f"it is not proven to give the same ids with {feature}")
        spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if not token.get("special")]
        spec["post_processor"] = spec["truncation"] = spec["padding"] = None
        self._spec = json.dumps(spec)
        self._load()
        self._proven = ProvenText(normalizes=spec.get("normalizer") is not None)

    def encode(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        if self._process != os.getpid():  # a forked worker begins with its parent's memory
            self._process, self._size = os.getpid(), resident_bytes()
        elif resident_bytes() - self._size > _CACHE_BYTES:
            self._load()
        others = self._proven.others(documents)
        if not others:
            return self._encode(documents)
        taken = {*others}
        ids, lengths = self._encode([b"" if place in taken else each for place, each in enumerate(documents)])
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for place in others:
            parts[place], _ = self._reference.encode([documents[place]])
        return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)

    def _load(self) -> None:
        """Make the encoder, or another in its place: each word it has met stays in its memory."""
        from gigatoken.gigatoken_rs import load_hf_json

        self._backend: Any = None  # before the new one is there
        self._backend = load_hf_json(self._spec)
        self._process, self._size = os.getpid(), resident_bytes()

    def _encode(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        # parallel=False: the processes are the parallelism, and its thread pool does not survive a fork.
        layout = self._backend.encode_batch(list(documents), parallel=False).layout
        offsets = np.asarray(layout.offsets.data)
        return np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)


def first_difference(
    tokens: npt.NDArray[Any],
    lengths: npt.NDArray[np.int64],
    expected: npt.NDArray[Any],
    expected_lengths: npt.NDArray[np.int64],
) -> int:
    """Return the first document whose ids differ."""
    mine, theirs = np.split(tokens, np.cumsum(lengths)[:-1]), np.split(expected, np.cumsum(expected_lengths)[:-1])
    return next(i for i, pair in enumerate(zip(mine, theirs, strict=True)) if not np.array_equal(*pair))

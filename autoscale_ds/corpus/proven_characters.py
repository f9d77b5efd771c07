"""Which documents gigatoken may encode: those of characters on which it is proven to give the ids of ``tokenizers``.

Both split text by classes of characters, and normalise it, each by its own version of Unicode. They agree on all
characters that the version of this Python has (``tests/corpus/test_proven_features.py`` tries them). Under a
normalizer, characters that combine or decompose and that Unicode 3.2 did not have are left out too: gigatoken's tables
are older there.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_CODE_POINTS = 0x110000
_FIRST_LEAD = 0xC2  # bytes from here on begin a character of several


class ProvenText:
    """Finds documents with characters outside the proven set.

    Parameters
    ----------
    normalizes : bool
        Whether the tokenizer normalises text.
    """

    def __init__(self, normalizes: bool) -> None:
        self._unproven = unproven_characters(normalizes)
        self._pairs = _first_two_bytes(np.flatnonzero(self._unproven))

    def others(self, documents: Sequence[bytes]) -> list[int]:
        """Return the places of documents, given as UTF-8, that hold a character outside the proven set."""
        text = b"".join(documents)
        if text.isascii():
            return []
        data = np.frombuffer(text, np.uint8)
        leads = np.flatnonzero(data >= _FIRST_LEAD)
        suspects = leads[self._pairs[data[leads], data[leads + 1]]]
        if not len(suspects):
            return []
        ends = np.cumsum([len(document) for document in documents])
        places = np.unique(np.searchsorted(ends, suspects, side="right")).tolist()
        return [place for place in places if self._unproven[_code_points(documents[place])].any()]


@functools.cache
def unproven_characters(normalizes: bool) -> npt.NDArray[np.bool_]:
    """Return for each code point whether it lies outside the proven set, shape (0x110000,)."""
    unproven = np.zeros(_CODE_POINTS, bool)
    # The planes between these hold nothing, those behind are private.
    unproven[0x32400:0xE0000] = unproven[0xE0200:0xF0000] = True
    for codes in (range(0x32400), range(0xE0000, 0xE0200)):
        characters = [*map(chr, codes)]
        unproven[codes.start : codes.stop] = _are_unassigned(unicodedata, characters)
        if normalizes:
            changes = [bool(unicodedata.combining(c) or unicodedata.decomposition(c)) for c in characters]
            unproven[codes.start : codes.stop] |= changes & _are_unassigned(unicodedata.ucd_3_2_0, characters)
    return unproven


def _are_unassigned(version: Any, characters: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.array([*map(version.category, characters)]) == "Cn"


def _code_points(document: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(document.decode().encode("utf-32-le"), "<u4")


def _first_two_bytes(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which pairs of bytes characters begin with, shape (256, 256)."""
    pairs = np.zeros((256, 256), bool)
    bounds, marks, shifts = (0x80, 0x800, 0x10000, _CODE_POINTS), (0xC0, 0xE0, 0xF0), (6, 12, 18)
    for first, last, mark, shift in zip(bounds[:-1], bounds[1:], marks, shifts, strict=True):
        some = codes[(codes >= first) & (codes < last)]
        pairs[mark | some >> shift, 0x80 | some >> (shift - 6) & 0x3F] = True
    return pairs

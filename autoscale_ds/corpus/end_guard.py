"""A copy of a tokenizer that cannot give text the id that ends documents.

Some can: a Unigram vocabulary may hold ``</s>`` as a piece like any other, and an end token that is not marked
special is found in text. A document that quotes it would end in its middle. Such a document, and no other, is encoded
by this copy.
"""

from __future__ import annotations

import json
from typing import Any

# Two code points that no text holds (noncharacters) take the place of the piece, so that all other ids stay.
_NOWHERE = "\U0010fffe\U0010ffff"


def without_end(json_text: str, end: int) -> str:
    """Return a ``tokenizer.json`` in which no text has the id ``end``."""
    spec = json.loads(json_text)
    spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["id"] != end]
    spec["post_processor"] = None  # it may name the token, and is not used
    model = spec["model"]
    if "dropout" in model:
        model["dropout"] = None
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: a piece's place is its id
        if end < len(vocabulary):
            vocabulary[end] = [_NOWHERE, vocabulary[end][1]]
        return json.dumps(spec)
    piece = next((piece for piece, number in vocabulary.items() if number == end), None)
    if piece is not None:
        model["vocab"] = {_NOWHERE if each == piece else each: number for each, number in vocabulary.items()}
    if piece is not None and model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, piece)]
    return json.dumps(spec)


def _touches(merge: Any, piece: str) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return piece in (left, right, left + right)

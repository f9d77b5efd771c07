"""Which ``tokenizer.json`` gigatoken may encode with: those made of features on which it is proven to give equal ids.

A feature is listed here after all of Unicode was tried on it (``tests/corpus/test_proven_features.py``), with a
vocabulary that merges any two bytes, so that a text split elsewhere has other ids. Whatever is not listed is encoded by
``tokenizers``. gigatoken 0.10 takes more and gives other ids for, among others, the regex of cl100k (a line end and a
space at the end of a text), ``ByteLevel`` without a regex, and added tokens under a normalizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER_THEN_LOWER = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
)
# The regexes of `Split`, by the models that brought them up.
PATTERNS = {
    "Llama 3": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "Qwen 2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "Qwen 3.5": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "o200k": _UPPER_THEN_LOWER % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?")
    + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    "o200k without contractions": _UPPER_THEN_LOWER % ("", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
_SPACE_MARK = "\u2581"  # what SentencePiece writes for a space
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE_MARK}
_PREPEND = {"type": "Prepend", "prepend": _SPACE_MARK}


def unproven_feature(spec: Mapping[str, Any]) -> str | None:
    """Return the first feature of a ``tokenizer.json`` outside the list, in words; None when all are in it."""
    return next(_unproven(spec), None)


def _unproven(spec: Mapping[str, Any]) -> Iterator[str]:
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        yield f"the model {model['type']}"
    yield from (key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key))
    normalizer, steps = _flat(spec.get("normalizer"), "normalizers"), _flat(spec.get("pre_tokenizer"), "pretokenizers")
    sentencepiece = bool(model.get("byte_fallback"))
    known = _is_sentencepiece(normalizer, steps) if sentencepiece else _is_byte_level(normalizer, steps)
    if not known:
        names = " and ".join(step["type"] for step in [*normalizer, *steps]) or "a model without a pre-tokenizer"
        yield f"{names}, as it is set up here"
    yield from _unproven_tokens(spec, sentencepiece, bool(normalizer))


def _flat(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, sequences resolved."""
    if step is None:
        return []
    return [each for part in step[key] for each in _flat(part, key)] if step["type"] == "Sequence" else [step]


def _is_byte_level(normalizer: list[Mapping[str, Any]], steps: list[Mapping[str, Any]]) -> bool:
    if any(step["type"] != "NFC" for step in normalizer) or not steps or steps[-1]["type"] != "ByteLevel":
        return False
    *splits, byte_level = steps
    has_regex = byte_level.get("use_regex", True)
    if not splits:
        return bool(has_regex)
    return len(splits) == 1 and _is_listed_split(splits[0]) and not (has_regex or byte_level["add_prefix_space"])


def _is_listed_split(step: Mapping[str, Any]) -> bool:
    return (
        step["type"] == "Split"
        and step["pattern"].get("Regex") in PATTERNS.values()
        and (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
    )


def _is_sentencepiece(normalizer: list[Mapping[str, Any]], steps: list[Mapping[str, Any]]) -> bool:
    if not normalizer:
        return len(steps) == 1 and steps[0]["type"] == "Metaspace" and steps[0]["replacement"] == _SPACE_MARK
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return normalizer in ([_REPLACE], [_PREPEND, _REPLACE]) and steps in ([], [split])


def _unproven_tokens(spec: Mapping[str, Any], sentencepiece: bool, normalizes: bool) -> Iterator[str]:
    """Yield what is unproven of added tokens that are not special; special ones are text in text."""
    every = spec.get("added_tokens") or ()
    tokens = [token for token in every if not token.get("special")]
    special = [str(token["content"]) for token in every if token.get("special")]
    for token in tokens:
        name = f"the added token {token['content']!r}"
        options = (option for option in ("single_word", "lstrip", "rstrip") if token.get(option))
        yield from (f"the option {option} of {name}" for option in options)
        if sentencepiece:
            yield f"{name} of a SentencePiece tokenizer"
        elif normalizes and token.get("normalized", True):
            yield f"{name}, which is normalized"
        # tokenizers passes over special tokens in text, with what begins inside them; gigatoken does not know them.
        yield from (f"{name}, which may overlap {each!r}" for each in special if _may_overlap(token["content"], each))
    if len({token.get("normalized", True) for token in tokens}) > 1:  # tokenizers looks for them in two passes
        yield "added tokens of which some are normalized"


def _may_overlap(left: str, right: str) -> bool:
    """Tell whether two words can share characters of a text."""
    return (
        left in right
        or right in left
        or any(
            first.endswith(second[:size])
            for first, second in ((left, right), (right, left))
            for size in range(1, min(len(left), len(right)))
        )
    )

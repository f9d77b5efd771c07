"""Documents of tasks whose prompt takes more than a template; named in ``tasks/*.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SENTENCE_END = re.compile(r"[.!?]\s+")


def hellaswag(dataset: Any) -> Any:
    """Return HellaSwag documents with ``query`` and ``choices`` as lm-eval's task makes them.

    Its original files split the context into ``ctx_a`` and ``ctx_b``, an unfinished sentence that lm-eval begins with a
    capital. Copies that only have ``ctx``, with the parts joined, are split again: an unfinished sentence at the end
    is ``ctx_b``.
    """
    return dataset.map(_hellaswag)


def _hellaswag(doc: Mapping[str, Any]) -> dict[str, Any]:
    first, second = (doc["ctx_a"], doc["ctx_b"]) if "ctx_a" in doc else _split(doc["ctx"])
    return {
        "query": _clean(f"{doc['activity_label']}: {first} {second.capitalize()}"),
        "choices": [_clean(ending) for ending in doc["endings"]],
    }


def _split(context: str) -> tuple[str, str]:
    """Return the finished sentences of a context, and the unfinished one at its end."""
    context = context.strip()
    ends = [match.end() for match in _SENTENCE_END.finditer(context)]
    if context.endswith((".", "!", "?", '"', "'", ")")) or not ends:
        return context, ""
    return context[: ends[-1]].rstrip(), context[ends[-1] :]


def _clean(text: str) -> str:
    """Remove what is left of WikiHow's markup, as lm-eval does."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

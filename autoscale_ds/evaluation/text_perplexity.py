"""Perplexity of a text of any length, by windows that slide over it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.perplexity import perplexity
from autoscale_ds.evaluation.scoring import Row, Scorer


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Attributes
    ----------
    tokens, words, bytes : int
        Size of the text: token ids, words between white space, UTF-8 bytes.
    loss : float
        Nats a token.
    perplexity, word_perplexity : float
        Exponential of the nats a token, and a word.
    bits_per_byte : float
        Comparable between tokenizers.
    """

    tokens: int
    words: int
    bytes: int
    loss: float
    perplexity: float
    word_perplexity: float
    bits_per_byte: float


def sliding_rows(tokens: Sequence[int], context: int, stride: int, end_of_document: int) -> Iterator[Row]:
    """Yield rows that predict every token of a text once, each ``stride`` tokens more, with all context that fits.

    The first token follows the end-of-document token, as at the start of a training document.

    Parameters
    ----------
    tokens : sequence of int
        The text.
    context : int
        Positions the model knows.
    stride : int
        Tokens a row predicts: ``context`` is fastest, smaller ones give every token more context, at least
        ``context - stride`` tokens from the second row on.

    Raises
    ------
    ConfigError
        When the stride is not from 1 to ``context``.
    """
    if not 1 <= stride <= context:
        raise ConfigError(f"the stride is {stride}, expected 1 to {context}, the model's context")
    sequence = [end_of_document, *tokens]
    start, size = 1, context  # the first row predicts as many tokens as fit: none has less context for it
    while start < len(sequence):
        end = min(start + size, len(sequence))
        yield sequence[max(0, end - 1 - context) : start], sequence[start:end]
        start, size = end, stride


def text_score(scorer: Scorer, text: str, tokens: Sequence[int], stride: int, end_of_document: int) -> TextScore:
    """Return the figures of a text, given with its tokens; raises ConfigError for an empty one."""
    words, size = len(text.split()), len(text.encode(errors="surrogatepass"))
    if not tokens or not words:
        raise ConfigError("the text holds no word; expected some text to predict")
    rows = list(sliding_rows(tokens, scorer.context, stride, end_of_document))
    total = -sum(score.log_probability for score in scorer.log_likelihoods(rows))
    return TextScore(
        tokens=len(tokens),
        words=words,
        bytes=size,
        loss=total / len(tokens),
        perplexity=perplexity(total / len(tokens)),
        word_perplexity=perplexity(total / words),
        bits_per_byte=total / math.log(2) / size,
    )

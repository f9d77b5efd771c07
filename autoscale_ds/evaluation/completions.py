"""Loss of gold completions given their prompts, on the engine that trains: the same numbers in every layout.

The smooth measure by which small models can be told apart where their accuracy is that of chance (OLMo ladder, arXiv
2412.04403; Olmix, arXiv 2602.12237). Figures are totals over all items: nats of all completion tokens over tokens, or
over bytes. So they are those of a domain whose text is the completions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoscale_ds.corpus import Corpus
from autoscale_ds.evaluation.perplexity import DomainScore, MeasuredSet, perplexity, spread
from autoscale_ds.objectives import Batch

_NARROWEST = 64  # tokens: narrower batches cost a call each and save nothing


class Row(NamedTuple):
    """A prompt and its completion as the model reads them.

    Attributes
    ----------
    tokens : ndarray, shape (k,)
        Prompt and completion.
    first : int
        Place of the completion's first token, at least 1.
    group : int
        What its loss is added to: the index of a task, or its own.
    """

    tokens: np.ndarray
    first: int
    group: int


def row_batches(
    rows: Sequence[Row], length: int, rank: int, world_size: int, micro_batch: int
) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the batches of one rank, see ``MeasuredSet``, with groups in place of domains; the longest rows first.

    A batch holds as many tokens as ``micro_batch`` sequences of ``length`` tokens T. Widths are T and its halves that
    are multiples of 64, so that a compiled model and a pipeline meet few shapes, and ranks that share sequences can
    divide them.
    """
    rows = sorted(rows, key=lambda row: -len(row.tokens))
    at = 0
    while at < len(rows):
        width = _width(len(rows[at].tokens) - 1, length)
        size = micro_batch * (length // width)
        some = rows[at : at + size * world_size]
        at += len(some)
        own = some[rank * size : (rank + 1) * size]
        yield _batch(own, size, width), torch.arange(size) < len(own)


def _width(needed: int, length: int) -> int:
    width = length
    while width % (2 * _NARROWEST) == 0 and width // 2 >= needed:
        width //= 2
    return width


def _batch(rows: Sequence[Row], size: int, width: int) -> Batch:
    tokens = torch.zeros(size, width + 1, dtype=torch.long)
    counted = torch.zeros(size, width, dtype=torch.bool)
    groups = torch.zeros(size, dtype=torch.long)
    for place, row in enumerate(rows):
        tokens[place, : len(row.tokens)] = torch.from_numpy(row.tokens.astype(np.int64))
        counted[place, row.first - 1 : len(row.tokens) - 1] = True  # position t predicts token t + 1
        groups[place] = row.group
    return Batch(tokens, groups, counted)


class CompletionSet(MeasuredSet):
    """Prompts and gold completions of some of a corpus's tasks.

    Parameters
    ----------
    corpus : Corpus
        Corpus with tasks.
    names : sequence of str
        Which of them.
    sequence_length : int
        T, tokens the model reads at once. Longer prompts are cut on the left.
    items_per_task : int or None
        At most this many, evenly spread; None is all.

    Attributes
    ----------
    names : list of str
        Tasks, sorted.
    truncated, left_out : dict of str to int
        Items whose prompt is cut, and items whose completion alone is longer than T, by task where there are any.
    """

    def __init__(self, corpus: Corpus, names: Sequence[str], sequence_length: int, items_per_task: int | None) -> None:
        self.names = sorted(names)
        self.truncated: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self._length = sequence_length
        self._rows: list[Row] = []
        self._bytes = [0] * len(self.names)
        for task, name in enumerate(self.names):
            self._rows += self._read(corpus, task, name, items_per_task)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, corpus: Corpus, task: int, name: str, most: int | None) -> Iterator[Row]:
        shard, sizes = corpus.store(name, "validation").shards
        items = shard.num_documents // 2
        for item in spread(items, items if most is None else most).tolist():
            prompt, completion = shard.document(2 * item), shard.document(2 * item + 1)
            room = self._length + 1 - len(completion)
            if room < 1:
                self.left_out[name] = self.left_out.get(name, 0) + 1
                continue
            if len(prompt) > room:
                self.truncated[name] = self.truncated.get(name, 0) + 1
            kept = prompt[-room:]
            self._bytes[task] += int(sizes.tokens[item])
            yield Row(np.concatenate([kept, completion]), len(kept), task)

    def batches(self, rank: int, world_size: int, micro_batch: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yield the batches of one rank, see ``row_batches``, with tasks in place of domains."""
        return row_batches(self._rows, self._length, rank, world_size, micro_batch)

    def score(self, sums: list[float], counts: list[float]) -> dict[str, DomainScore]:
        """Return figures by task from nats and tokens of its completions, in the order of ``names``."""
        scores = {}
        for name, total, count, size in zip(self.names, sums, counts, self._bytes, strict=True):
            if count:
                loss = total / count
                scores[name] = DomainScore(loss, perplexity(loss), total / math.log(2) / size)
        return scores

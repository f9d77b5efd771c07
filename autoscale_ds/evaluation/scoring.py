"""Log-probabilities of continuations: what task evaluation asks of a model, whatever it runs on.

A ``Scorer`` is all that the adapter to lm-eval and the perplexity of a text know of a model. ``ModelScorer`` is one for
a whole model on one device, ``rank_sharing.SharedScorer`` divides the work of any scorer among data-parallel ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from autoscale_ds.errors import ConfigError
from autoscale_ds.models import ModelSpec
from autoscale_ds.models.generation import generate, marked, pad

Row = tuple[Sequence[int], Sequence[int]]
"""Context and continuation, token ids; the context has at least one token."""
# Positions whose logits exist at the same time: 4,096 x 50,257 in fp32 are 0.8 GB.
_LOGIT_ROWS = 4096
# A context shared by several continuations is read once when it has at least this many tokens, and as many as the
# longest of them: measured on a CPU, BoolQ takes half the time so, PIQA with its short questions more than in one pass.
_SHARED_TOKENS = 16


class Score(NamedTuple):
    """Log-probability of a continuation (nats), and whether greedy decoding would produce it."""

    log_probability: float
    is_greedy: bool


class Scorer(Protocol):
    """A model that scores and continues token sequences. Calls are collective where ranks share the model.

    Attributes
    ----------
    context : int
        Positions the model knows.
    """

    context: int

    @property
    def truncated(self) -> int:
        """Rows and prompts so far that were too long, and of which only the end was read."""

    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        """Return the score of each row.

        A row whose tokens, the last one left out, are more than ``context`` loses tokens from the left of its context.

        Raises
        ------
        ConfigError
            When a continuation has more than ``context`` tokens.
        """

    def greedy(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, at most ``max_tokens``, until ``stop(tokens)``.

        A prompt loses tokens from its left so that ``max_tokens`` fit behind it.
        """


class ModelScorer:
    """A whole model on one device; see ``Scorer``.

    Parameters
    ----------
    model : nn.Module
        Built by its spec, in evaluation mode.
    batch_size : int
        Rows of a forward pass, at most.
    end_of_document : int
        Token at which generation ends.
    advance : callable, optional
        Told how many rows have been done since the last call.
    """

    def __init__(
        self, model: Any, batch_size: int, end_of_document: int, advance: Callable[[int], None] | None = None
    ) -> None:
        self.truncated = 0
        self._model = model
        self._spec: ModelSpec = model.config
        self.context = self._spec.context
        self._batch_size = batch_size
        self._end = end_of_document
        self._advance = advance or (lambda count: None)
        self._device = next(model.parameters()).device
        self._has_cache = self._spec.cache(1) is not None

    @torch.no_grad()
    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        """Return the score of each row, see ``Scorer``; rows of similar length go together."""
        fitted = [self._fit(context, continuation) for context, continuation in rows]
        scores: list[Score] = [Score(0.0, True)] * len(rows)  # of an empty continuation
        for batch in self._batches(fitted):
            measure = self._shared if batch.shared else self._plain
            for place, score in zip(batch.places, measure([fitted[place] for place in batch.places]), strict=True):
                scores[place] = score
            self._advance(len(batch.places))
        self._advance(sum(not continuation for _, continuation in fitted))
        return scores

    def greedy(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, see ``Scorer``."""
        room = self.context - max_tokens
        if room < 1:
            raise ConfigError(f"{max_tokens} tokens to generate do not fit a context of {self.context}; ask for fewer")
        self.truncated += sum(len(prompt) > room for prompt in prompts)
        made: list[list[int]] = [[]] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        for places in _chunks(order, self._batch_size):
            batch = [prompts[place][-room:] for place in places]
            for place, each in zip(
                places, generate(self._model, batch, max_tokens, end_of_document=self._end, stop=stop), strict=True
            ):
                made[place] = each.tokens
            self._advance(len(places))
        return made

    def _fit(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return a row that the model can read, shortened from the left."""
        if len(continuation) > self.context:
            raise ConfigError(
                f"a continuation has {len(continuation):,} tokens, the model reads {self.context:,}; leave the task out"
            )
        room = self.context + 1 - len(continuation)
        self.truncated += len(context) > room
        return tuple(context[-room:]), tuple(continuation)

    def _batches(self, rows: Sequence[Row]) -> Iterator[_Batch]:
        """Yield places of rows that are computed together, longest first: memory runs out at once or never."""
        by_context: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, (context, continuation) in enumerate(rows):
            if continuation:
                by_context[tuple(context)].append(place)
        groups = sorted(by_context.items(), key=lambda item: -len(item[0]))
        shared = [group for context, group in groups if self._pays(context, [rows[place][1] for place in group])]
        together = {place for group in shared for place in group}
        alone = [place for group in by_context.values() for place in group if place not in together]
        alone.sort(key=lambda place: -len(rows[place][0]) - len(rows[place][1]))
        yield from self._filled([[place] for place in alone], rows, shared=False)
        yield from self._filled(shared, rows, shared=True)

    def _pays(self, context: Sequence[int], continuations: Sequence[Sequence[int]]) -> bool:
        """Return whether to read a context once for these continuations."""
        least = max(_SHARED_TOKENS, *map(len, continuations))
        return self._has_cache and len(continuations) > 1 and len(context) >= least

    def _filled(self, groups: Sequence[list[int]], rows: Sequence[Row], shared: bool) -> Iterator[_Batch]:
        """Yield batches of whole groups, as many as the numbers of rows and of logits allow; at least one group."""
        places: list[int] = []
        logits = 0
        for group in groups:
            own = sum(self._logits_of(rows[place]) for place in group)
            if places and (len(places) + len(group) > self._batch_size or logits + own > _LOGIT_ROWS):
                yield _Batch(places, shared)
                places, logits = [], 0
            places, logits = places + group, logits + own
        if places:
            yield _Batch(places, shared)

    def _logits_of(self, row: Row) -> int:
        """Return of how many positions of a row the model computes logits."""
        return len(row[1]) if self._has_cache else len(row[0]) + len(row[1])

    def _plain(self, rows: Sequence[Row]) -> list[Score]:
        """Score rows in one pass over each as a whole."""
        tokens = pad([[*context, *continuation][:-1] for context, continuation in rows], self._device)
        starts = [len(context) - 1 for context, _ in rows]
        ends = [start + len(continuation) for start, (_, continuation) in zip(starts, rows, strict=True)]
        where = marked(tokens, starts, ends)
        logits = self._model(tokens, logits_at=where) if self._has_cache else self._model(tokens)[where]
        owners = [row for row, (_, continuation) in enumerate(rows) for _ in continuation]
        targets = [token for _, continuation in rows for token in continuation]
        return _sums(len(rows), [_Predicted.of(logits, range(len(targets)), targets, owners)])

    def _shared(self, rows: Sequence[Row]) -> list[Score]:
        """Score rows by reading each distinct context once, then the continuations on top of its keys and values."""
        contexts = list(dict.fromkeys(tuple(context) for context, _ in rows))
        place = {context: index for index, context in enumerate(contexts)}
        of_row = [place[tuple(context)] for context, _ in rows]
        cache = self._spec.cache(max(map(len, contexts)) + max(len(continuation) for _, continuation in rows))
        assert cache is not None
        lengths = [len(context) for context in contexts]
        tokens = pad(contexts, self._device)
        logits = self._model(tokens, logits_at=marked(tokens, [n - 1 for n in lengths], lengths), cache=cache)
        first = [continuation[0] for _, continuation in rows]
        predicted = [_Predicted.of(logits, of_row, first, range(len(rows)))]
        longer = [row for row, (_, continuation) in enumerate(rows) if len(continuation) > 1]
        if longer:
            cache.keep(lengths)
            cache.select([of_row[row] for row in longer])
            rest = [rows[row][1] for row in longer]
            tokens = pad([continuation[:-1] for continuation in rest], self._device)
            ends = [len(continuation) - 1 for continuation in rest]
            logits = self._model(tokens, logits_at=marked(tokens, [0] * len(rest), ends), cache=cache)
            targets = [token for continuation in rest for token in continuation[1:]]
            owners = [row for row, count in zip(longer, ends, strict=True) for _ in range(count)]
            predicted.append(_Predicted.of(logits, range(len(targets)), targets, owners))
        return _sums(len(rows), predicted)


class _Batch(NamedTuple):
    """Rows computed together, by place; ``shared`` reads equal contexts once."""

    places: list[int]
    shared: bool


class _Predicted(NamedTuple):
    """Of some tokens: log-probability (nats, fp64), whether each was the likeliest, and the row it belongs to."""

    log_probability: Tensor
    is_likeliest: Tensor
    owners: Tensor

    @classmethod
    def of(cls, logits: Tensor, places: Sequence[int], targets: Sequence[int], owners: Sequence[int]) -> _Predicted:
        """Return how logits (positions, vocabulary) predict targets, each at its place among the positions."""
        at, target, owner = (torch.tensor(list(each), device=logits.device) for each in (places, targets, owners))
        logits = logits.float()
        chosen = (logits[at, target] - logits.logsumexp(-1)[at]).double()
        return cls(chosen, logits.argmax(-1)[at] == target, owner)


def _sums(num_rows: int, predicted: Sequence[_Predicted]) -> list[Score]:
    """Return the scores of rows from those of their tokens."""
    device = predicted[0].log_probability.device
    sums = torch.zeros(num_rows, dtype=torch.float64, device=device)
    misses = torch.zeros(num_rows, dtype=torch.int64, device=device)
    for part in predicted:
        sums.index_add_(0, part.owners, part.log_probability)
        misses.index_add_(0, part.owners, (~part.is_likeliest).long())
    return [Score(total, not missed) for total, missed in zip(sums.tolist(), misses.tolist(), strict=True)]


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]

"""Log-probabilities of continuations: what task evaluation asks of a model, whatever it runs on.

A ``Scorer`` is all that the adapter to lm-eval and the perplexity of a text know of a model. ``ModelScorer`` is one for
a whole model on one device; ``SharedScorer`` divides the work of any scorer among data-parallel ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from autoscale_ds.errors import ConfigError
from autoscale_ds.models import ModelSpec
from autoscale_ds.models.generation import generate, pad

Row = tuple[Sequence[int], Sequence[int]]
"""Context and continuation, token ids; the context has at least one token."""
# Positions whose logits exist at the same time: 4,096 x 50,257 in fp32 are 0.8 GB.
_LOGIT_ROWS = 4096
# A context shared by several continuations is read once when it has at least this many tokens; for shorter ones a pass
# over whole rows costs less than a second, small one.
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
        is_shared = {c: self._has_cache and len(g) > 1 and len(c) >= _SHARED_TOKENS for c, g in groups}
        alone = [place for context, group in groups if not is_shared[context] for place in group]
        alone.sort(key=lambda place: -len(rows[place][0]) - len(rows[place][1]))
        yield from self._filled([[place] for place in alone], rows, shared=False)
        yield from self._filled([group for context, group in groups if is_shared[context]], rows, shared=True)

    def _filled(self, groups: Sequence[list[int]], rows: Sequence[Row], shared: bool) -> Iterator[_Batch]:
        """Yield batches of whole groups, as many as the numbers of rows and of logits allow; at least one group."""
        places: list[int] = []
        widest = 0
        for group in groups:
            own = max(self._logits_of(rows[place]) for place in group)
            count = len(places) + len(group)
            if places and (count > self._batch_size or max(widest, own) * count > _LOGIT_ROWS):
                yield _Batch(places, shared)
                places, widest = [], 0
            places, widest = places + group, max(widest, own)
        if places:
            yield _Batch(places, shared)

    def _logits_of(self, row: Row) -> int:
        """Return of how many positions of a row the model computes logits."""
        return len(row[1]) if self._has_cache else len(row[0]) + len(row[1])

    def _plain(self, rows: Sequence[Row]) -> list[Score]:
        """Score rows in one pass over each as a whole."""
        inputs = [[*context, *continuation][:-1] for context, continuation in rows]
        tokens = pad(inputs, self._device)
        starts = torch.tensor([len(context) - 1 for context, _ in rows], device=self._device)
        targets = pad([continuation for _, continuation in rows], self._device)
        columns = starts[:, None] + torch.arange(targets.shape[1], device=self._device)
        columns = columns.clamp(max=tokens.shape[1] - 1)
        if self._has_cache:
            logits = self._model(tokens, logits_at=columns)
        else:
            logits = self._model(tokens).gather(1, columns[:, :, None].expand(-1, -1, self._spec.vocabulary))
        return _sums(logits, targets, [len(continuation) for _, continuation in rows])

    def _shared(self, rows: Sequence[Row]) -> list[Score]:
        """Score rows by reading each distinct context once, then the continuations on top of its keys and values."""
        contexts = list(dict.fromkeys(context for context, _ in rows))
        owner = {context: index for index, context in enumerate(contexts)}
        longest = max(map(len, contexts)) + max(len(continuation) for _, continuation in rows)
        cache = self._spec.cache(longest)
        assert cache is not None
        lengths = [len(context) for context in contexts]
        last = torch.tensor(lengths, device=self._device)[:, None] - 1
        first = self._model(pad(contexts, self._device), logits_at=last, cache=cache)[:, 0]
        cache.keep(lengths)
        owners = [owner[context] for context, _ in rows]
        logits = first[torch.tensor(owners, device=self._device)][:, None]
        targets = pad([continuation for _, continuation in rows], self._device)
        if targets.shape[1] > 1:
            cache.select(owners)
            logits = torch.cat([logits, self._model(targets[:, :-1], cache=cache)], dim=1)
        return _sums(logits, targets, [len(continuation) for _, continuation in rows])


class _Batch(NamedTuple):
    """Rows computed together, by place; ``shared`` reads equal contexts once."""

    places: list[int]
    shared: bool


def _sums(logits: Tensor, targets: Tensor, lengths: Sequence[int]) -> list[Score]:
    """Return the scores of rows from logits (rows, time, vocabulary) of the tokens in ``targets`` (rows, time)."""
    logits = logits.float()
    chosen = logits.gather(-1, targets[:, :, None])[:, :, 0] - logits.logsumexp(-1)
    counted = (
        torch.arange(targets.shape[1], device=targets.device) < torch.tensor(lengths, device=targets.device)[:, None]
    )
    sums = chosen.double().where(counted, 0.0).sum(1)
    greedy = ((logits.argmax(-1) == targets) | ~counted).all(1)
    return [Score(total, is_greedy) for total, is_greedy in zip(sums.tolist(), greedy.tolist(), strict=True)]


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


class SharedScorer:
    """A scorer whose rows are divided among data-parallel ranks; every rank gets all results. Collective.

    Parameters
    ----------
    scorer : Scorer
        This rank's model, the same on every rank.
    rank, world_size : int
        Data-parallel rank and size.
    gather : callable
        Collective; given this rank's object, returns those of all ranks in order.
    """

    def __init__(self, scorer: Scorer, rank: int, world_size: int, gather: Callable[[Any], list[Any]]) -> None:
        self._scorer = scorer
        self._rank = rank
        self._world_size = world_size
        self._gather = gather
        self.context = scorer.context

    @property
    def truncated(self) -> int:
        """Rows cut so far on all ranks. Collective."""
        return sum(self._gather(self._scorer.truncated))

    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        """Return the score of each row, see ``Scorer``; rows with the same context go to the same rank."""
        contexts = sorted({tuple(context) for context, _ in rows}, key=lambda context: (len(context), context))
        turn = {context: index % self._world_size for index, context in enumerate(contexts)}
        owners = [turn[tuple(context)] for context, _ in rows]
        mine = [row for row, owner in zip(rows, owners, strict=True) if owner == self._rank]
        return self._merged(owners, self._scorer.log_likelihoods(mine))

    def greedy(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Callable[[list[int]], bool]
    ) -> list[list[int]]:
        """Return the likeliest tokens after each prompt, see ``Scorer``."""
        owners = [index % self._world_size for index in range(len(prompts))]
        mine = [prompt for prompt, owner in zip(prompts, owners, strict=True) if owner == self._rank]
        return self._merged(owners, self._scorer.greedy(mine, max_tokens, stop))

    def _merged(self, owners: Sequence[int], own: Sequence[Any]) -> list[Any]:
        """Return all ranks' results in the order of the rows."""
        waiting = [iter(results) for results in self._gather(list(own))]
        return [next(waiting[owner]) for owner in owners]

"""Text from a model, token by token: greedy, or drawn so that a sample depends on its seed and number alone."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from autoscale_ds.errors import ConfigError
from autoscale_ds.models.cache import KeyValueCache
from autoscale_ds.models.spec import ModelSpec

StopReason = Literal["end", "tokens", "context", "stop"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; a draw is a function of the logits and (seed, sample number, token number).

    Attributes
    ----------
    temperature : float
        Logits are divided by it; above 0.
    top_k : int or None
        Draw among so many of the likeliest tokens.
    top_p : float or None
        Draw among the fewest likeliest tokens that have this probability together (Holtzman et al., arXiv 1904.09751).
    seed : int
        Other seeds give other samples.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature is {self.temperature}, expected above 0; leave sampling out for greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k is {self.top_k}, expected at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected above 0 and at most 1")


@dataclass
class Generated:
    """What followed a prompt.

    Attributes
    ----------
    tokens : list of int
        Without the prompt and without the end-of-document token.
    reason : {"end", "tokens", "context", "stop"}
        Why it ends: end-of-document token, number of tokens asked for, the model's context is full, ``stop``.
    """

    tokens: list[int] = field(default_factory=list)
    reason: StopReason = "tokens"


class _Row:
    """One sample under way."""

    def __init__(self, number: int, prompt: Sequence[int]) -> None:
        self.number = number
        self.sequence = list(prompt)
        self.made = Generated()


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    *,
    end_of_document: int | None = None,
    sampling: Sampling | None = None,
    numbers: Sequence[int] | None = None,
    stop: Callable[[list[int]], bool] | None = None,
    use_cache: bool = True,
) -> list[Generated]:
    """Return what a model writes after each prompt, all prompts in one batch.

    Parameters
    ----------
    model : nn.Module
        Built by its spec; it is put in evaluation mode.
    prompts : sequence of sequences of int
        Each of at least one token and at most the model's context.
    max_tokens : int
        Tokens after each prompt, at most; fewer where the context is full.
    end_of_document : int, optional
        Token at which a sample ends.
    sampling : Sampling, optional
        None takes the likeliest token.
    numbers : sequence of int, optional
        Sample numbers; 0, 1, … by default. The same number gives the same sample whatever else is in the batch.
    stop : callable, optional
        Given the tokens after the prompt; whether the sample ends with them.
    use_cache : bool
        False computes every token from the whole sequence, as families without a cache do.
    """
    model.eval()
    spec: ModelSpec = model.config
    _check(prompts, spec)
    rows = [_Row(number, prompt) for number, prompt in zip(numbers or range(len(prompts)), prompts, strict=True)]
    longest = max((len(prompt) for prompt in prompts), default=0)
    cache = spec.cache(min(longest + max_tokens, spec.context)) if use_cache else None
    device = next(model.parameters()).device
    active = rows if max_tokens > 0 else []
    while active:
        logits = _recomputed(model, active, device) if cache is None else _continued(model, active, cache, device)
        _extend(active, _choose(logits, active, sampling))
        goes_on = [not _ended(row, max_tokens, spec.context, end_of_document, stop) for row in active]
        if cache is not None and not all(goes_on):
            cache.select([place for place, on in enumerate(goes_on) if on])
        active = [row for row, on in zip(active, goes_on, strict=True) if on]
    return [row.made for row in rows]


def _check(prompts: Sequence[Sequence[int]], spec: ModelSpec) -> None:
    for prompt in prompts:
        if not 1 <= len(prompt) <= spec.context:
            raise ConfigError(f"a prompt has {len(prompt)} tokens, expected 1 to {spec.context}, the model's context")
        unknown = next((token for token in prompt if not 0 <= token < spec.vocabulary), None)
        if unknown is not None:
            raise ConfigError(f"a prompt holds the token {unknown}, the model knows 0 to {spec.vocabulary - 1}")


def _continued(model: Any, rows: Sequence[_Row], cache: KeyValueCache, device: torch.device) -> Tensor:
    """Return the logits after each row (rows, vocabulary), reading only what the cache does not hold."""
    known = cache.lengths or [0] * len(rows)
    new = [row.sequence[length:] for row, length in zip(rows, known, strict=True)]
    counts = [len(tokens) for tokens in new]
    tokens = pad(new, device)
    logits: Tensor = model(tokens, logits_at=marked(tokens, [n - 1 for n in counts], counts), cache=cache)
    cache.keep(counts)
    return logits


def _recomputed(model: Any, rows: Sequence[_Row], device: torch.device) -> Tensor:
    """Return the logits after each row (rows, vocabulary) from whole sequences, those of equal length together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_length[len(row.sequence)].append(place)
    logits: list[Tensor] = [torch.empty(0)] * len(rows)
    for length, places in by_length.items():
        tokens = pad([rows[place].sequence for place in places], device)
        for place, each in zip(places, model(tokens, logits_at=length - 1), strict=True):
            logits[place] = each
    return torch.stack(logits)


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return rows of tokens as one LongTensor (rows, longest), filled up with token 0 at the end."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)


def marked(tokens: Tensor, starts: Sequence[int], ends: Sequence[int]) -> Tensor:
    """Return a BoolTensor like tokens (rows, time), True in each row from its start up to, not including, its end."""
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    first, end = (torch.tensor(bounds, device=tokens.device)[:, None] for bounds in (starts, ends))
    return (columns >= first) & (columns < end)


def _extend(rows: Sequence[_Row], tokens: Sequence[int]) -> None:
    for row, token in zip(rows, tokens, strict=True):
        row.sequence.append(token)
        row.made.tokens.append(token)


def _ended(row: _Row, max_tokens: int, context: int, end: int | None, stop: Callable[[list[int]], bool] | None) -> bool:
    """Return whether a sample ends with its last token, and write down why."""
    made = row.made
    if made.tokens[-1] == end:
        made.tokens.pop()
        made.reason = "end"
    elif stop is not None and stop(made.tokens):
        made.reason = "stop"
    elif len(made.tokens) >= max_tokens:
        made.reason = "tokens"
    elif len(row.sequence) > context:  # the last token has no position to be read at
        made.reason = "context"
    else:
        return False
    return True


def _choose(logits: Tensor, rows: Sequence[_Row], sampling: Sampling | None) -> list[int]:
    if sampling is None:
        return [int(token) for token in logits.argmax(-1).tolist()]
    draws = [_uniform(sampling.seed, row.number, len(row.made.tokens)) for row in rows]
    return draw(logits, sampling, draws)


def draw(logits: Tensor, sampling: Sampling, uniforms: Sequence[float]) -> list[int]:
    """Return the token of each row of logits (rows, vocabulary) at which the cumulative probability passes a number.

    Probabilities are added up in the order of token ids, in fp64: rounding that differs between batches moves the
    bounds between tokens by 1e-7 at most, and swaps none.

    Parameters
    ----------
    uniforms : sequence of float
        Of each row, in [0, 1).
    """
    probabilities = torch.softmax(logits.double() / sampling.temperature, -1)
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        ranked[:, sampling.top_k :] = 0.0
    if sampling.top_p is not None:
        total = ranked.sum(-1, keepdim=True)  # of those that top_k has left
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p * total] = 0.0
    kept = torch.zeros_like(probabilities).scatter_(-1, order, ranked)
    bounds = kept.cumsum(-1)
    wanted = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * bounds[:, -1:]
    return [int(token) for token in torch.searchsorted(bounds, wanted, right=True)[:, 0].tolist()]


def _uniform(seed: int, number: int, place: int) -> float:
    """Return a number in [0, 1) that is a function of its arguments alone."""
    digest = hashlib.blake2b(f"{seed}/{number}/{place}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)

"""A ``Scorer`` as a model of lm-evaluation-harness. Import it only where lm-eval is installed, see ``harness``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.scoring import Scorer

# Of lm-eval's hf backend, for tasks that do not say how many tokens to generate.
_DEFAULT_GENERATED = 256
# Tokens at the end of a sample that are decoded to look for a stop string beyond those of the string itself: a string
# may begin inside a token and end inside another.
_OVERLAP = 2


class ScorerLM(TemplateLM):
    """lm-eval's model interface over a scorer and its tokenizer.

    Parameters
    ----------
    scorer : Scorer
        The model, on whatever ranks; it divides the requests itself, so every rank is given all of them.
    encode : callable
        Ids of a text, without an end-of-document token.
    decode : callable
        Text of ids.
    end_of_document : int
        Also the context where a request has none, as with lm-eval's ``hf`` backend.
    """

    def __init__(
        self,
        scorer: Scorer,
        encode: Callable[[str], list[int]],
        decode: Callable[[Sequence[int]], str],
        end_of_document: int,
    ) -> None:
        super().__init__()
        self._scorer = scorer
        self._encode = encode
        self._decode = decode
        self._end = end_of_document
        self._end_text = decode([end_of_document])

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token."""
        return self._end

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return the ids of a text; special tokens in it are text."""
        return self._encode(string)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return (log-probability, is greedy) of each request's continuation."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        rows = [(context, continuation) for _, context, continuation in requests]
        return list(self._scorer.log_likelihoods(rows))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-probability of each request's whole text, in windows of the model's context."""
        rows, owners = [], []
        for index, request in enumerate(requests):
            windows = get_rolling_token_windows(self._encode(request.args[0]), self._end, self._scorer.context, 1)
            own = [make_disjoint_window(window) for window in windows]
            rows += own
            owners += [index] * len(own)
        sums = [0.0] * len(requests)
        for owner, score in zip(owners, self._scorer.log_likelihoods(rows), strict=True):
            sums[owner] += score.log_probability
        return sums

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the likeliest text after each request's context, up to its first stop string."""
        texts = [""] * len(requests)
        settings: dict[tuple[Any, ...], list[int]] = {}
        for place, request in enumerate(requests):
            settings.setdefault(self._settings(request), []).append(place)
        for (most, *stops), places in settings.items():
            prompts = [self._encode(requests[place].args[0]) or [self._end] for place in places]
            made = self._scorer.greedy(prompts, most, self._stop_test(stops))
            for place, tokens in zip(places, made, strict=True):
                texts[place] = _cut(self._decode(tokens), stops)
        return texts

    def _settings(self, request: Any) -> tuple[Any, ...]:
        """Return the most tokens and the stop strings of a request."""
        options = dict(request.args[1])
        if options.get("do_sample", bool(options.get("temperature"))):
            raise ConfigError(
                f"task {request.task_name} asks for random samples, only greedy generation is evaluated here; leave "
                "the task out, or use --backend hf"
            )
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        most = next((int(options[name]) for name in names if options.get(name) is not None), _DEFAULT_GENERATED)
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        return (most, *stops, *([] if self._end_text in stops else [self._end_text]))

    def _stop_test(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Return whether the last tokens hold one of the stop strings, as a function of all tokens so far."""
        lookback = max((len(self._encode(stop)) for stop in stops), default=0) + _OVERLAP

        def stop(tokens: list[int]) -> bool:
            tail = self._decode(tokens[-lookback:])
            return any(each in tail for each in stops if each)

        return stop


def _cut(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text

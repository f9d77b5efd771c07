"""lm-eval's own backend for Hugging Face folders, with our progress in place of its bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lm_eval.models.huggingface import HFLM


class HuggingFaceLM(HFLM):
    """``HFLM`` in fp32 that prints nothing.

    Parameters
    ----------
    folder : str
        Hugging Face folder with its tokenizer.
    batch_size : int
        Rows of a forward pass.
    device : str
        As torch names it.
    advance : callable
        Told how many rows have been done since the last call.
    """

    def __init__(self, folder: str, batch_size: int, device: str, advance: Callable[[int], None]) -> None:
        super().__init__(pretrained=folder, batch_size=batch_size, device=device, dtype="float32")
        self._advance = advance

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """Return (log-probability, is greedy) of each request's continuation."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """Return the log-probability of each request's whole text."""
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """Return the text after each request's context."""
        return super().generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def _model_call(self, inps: Any, *arguments: Any, **options: Any) -> Any:
        self._advance(len(inps))
        return super()._model_call(inps, *arguments, **options)

    def _model_generate(self, context: Any, *arguments: Any, **options: Any) -> Any:
        self._advance(len(context))
        return super()._model_generate(context, *arguments, **options)

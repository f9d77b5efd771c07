"""GPT-2 as a list of layers, each fed with the output of the one before: what pipeline parallelism cuts into stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.models.layers import Block, LanguageModelHead


@dataclass(frozen=True)
class StageLayer:
    """How to make one layer; layers with the same ``tied`` share their ``weight``."""

    make: type[nn.Module]
    arguments: tuple[Any, ...]
    tied: str | None = None


class Positions(nn.Module):
    """Adds position embeddings to embedded tokens."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        return self.dropout(x + self.positions(torch.arange(x.shape[1], device=x.device)))


def stage_layers(config: GPT2Config) -> list[StageLayer]:
    """Return the layers of a model, the same as ``GPT2`` has; the last is the head, to be called with targets."""
    vocabulary = (config.padded_vocabulary, config.width)
    block = StageLayer(Block, (config.width, config.heads, config.dropout, True))
    head = (config.width, config.padded_vocabulary, config.vocabulary, config.loss_chunk_tokens)
    return [
        StageLayer(nn.Embedding, vocabulary, tied="tokens"),
        StageLayer(Positions, (config,)),
        *[block] * config.layers,
        StageLayer(nn.LayerNorm, (config.width,)),
        StageLayer(LanguageModelHead, head, tied="tokens"),
    ]


def whole_name(layer: int, name: str, config: GPT2Config) -> str:
    """Return the name that parameter ``name`` of a layer has in ``GPT2``."""
    if layer in (0, config.layers + 3):
        return f"tokens.{name}"
    if layer == 1:
        return name
    return f"norm.{name}" if layer == config.layers + 2 else f"blocks.{layer - 2}.{name}"

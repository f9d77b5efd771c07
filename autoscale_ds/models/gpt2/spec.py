"""GPT-2's shape, presets and rules: what the rest of the package asks of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autoscale_ds.models.cache import KeyValueCache
from autoscale_ds.models.gpt2.hugging_face import from_hf_state, hf_weights, read_model, read_shape, save_hf
from autoscale_ds.models.gpt2.model import GPT2
from autoscale_ds.models.layers import Block, LanguageModelHead, Positions
from autoscale_ds.models.spec import LayerSplit, ModelSpec, StageLayer, seeded_normal

_STD = 0.02


@dataclass(frozen=True)
class GPT2Config(ModelSpec):
    """Shape of a GPT-2; see ``ModelSpec``."""

    presets: ClassVar = {
        "gpt2": {"layers": 12, "heads": 12, "width": 768},  # 124M
        "gpt2_medium": {"layers": 24, "heads": 16, "width": 1024},  # 355M
        "gpt2_large": {"layers": 36, "heads": 20, "width": 1280},  # 774M
        "gpt2_xl": {"layers": 48, "heads": 25, "width": 1600},  # 1.5B
        "nano": {"layers": 2, "heads": 2, "width": 64},  # 0.1M without embeddings: tests
        "micro": {"layers": 4, "heads": 4, "width": 128},  # 0.8M: quickstart on a CPU
        "mini": {"layers": 6, "heads": 6, "width": 384},  # 10.6M
    }
    block = Block
    hf_model_type = "gpt2"
    layer_splits = (
        LayerSplit("attn.qkv", "column", matrices=3),
        LayerSplit("mlp.fc", "column"),
        LayerSplit("attn.proj", "row"),
        LayerSplit("mlp.out", "row"),
    )

    def build(self) -> nn.Module:
        """Return a ``GPT2``."""
        return GPT2(self)

    def initial_weight(self, name: str, size: torch.Size, seed: int) -> Tensor:
        """Return normal values with std 0.02, residual projections by 1/sqrt(2 layers); norms 1, biases 0."""
        if name.endswith("bias"):
            return torch.zeros(size)
        if "norm" in name:
            return torch.ones(size)
        residual = name.endswith(("attn.proj.weight", "mlp.out.weight"))
        weight = seeded_normal(size, _STD / math.sqrt(2 * self.layers) if residual else _STD, seed, name)
        if name == self.vocabulary_parameter:
            weight[self.vocabulary :] = 0.0
        return weight

    def stages(self) -> list[StageLayer]:
        """Return embedding, positions, blocks, norm and head, the same layers as ``GPT2`` has."""
        head = (self.width, self.padded_vocabulary, self.vocabulary, self.loss_chunk_tokens)
        return [
            StageLayer(nn.Embedding, (self.padded_vocabulary, self.width), tied="tokens"),
            StageLayer(Positions, (self.context, self.width, self.dropout)),
            *[StageLayer(Block, (self.width, self.heads, self.dropout, True))] * self.layers,
            StageLayer(nn.LayerNorm, (self.width,)),
            StageLayer(LanguageModelHead, head, tied="tokens"),
        ]

    def whole_name(self, layer: int, name: str) -> str:
        """Return the name that a parameter of a stage layer has in ``GPT2``."""
        if layer in (0, self.layers + 3):
            return f"tokens.{name}"
        if layer == 1:
            return name
        return f"norm.{name}" if layer == self.layers + 2 else f"blocks.{layer - 2}.{name}"

    def read_hf(self, folder: str | Path) -> dict[str, Tensor]:
        """Return the weights of a ``GPT2LMHeadModel``, see ``ModelSpec.read_hf``."""
        return hf_weights(folder, self)

    def write_hf(self, state: Mapping[str, Tensor], folder: str | Path, end_of_document: int) -> None:
        """Write ``config.json``, ``generation_config.json`` and ``model.safetensors`` of a ``GPT2LMHeadModel``."""
        save_hf(state, self, folder, end_of_document)

    @classmethod
    def from_hf_config(cls, raw: Mapping[str, Any]) -> GPT2Config:
        """Return the shape and dropout that ``config.json`` gives, see ``ModelSpec.from_hf_config``."""
        return cls(**read_shape(raw), dropout=raw.get("resid_pdrop", 0.1))  # 0.1 is transformers' own default

    def cache(self, capacity: int) -> KeyValueCache:
        """Return an empty cache, see ``ModelSpec.cache``."""
        return KeyValueCache(capacity)

    @property
    def num_parameters(self) -> int:
        """Parameters as counted for GPT-2: tied embedding once, padding rows not."""
        block = 12 * self.width**2 + 13 * self.width
        return self.vocabulary * self.width + self.context * self.width + self.layers * block + 2 * self.width

    def flops_per_token(self, sequence_length: int) -> float:
        """Return ``6 N + 12 L d T``, N without position embeddings (PaLM, arXiv 2204.02311, appendix B)."""
        num_parameters = self.num_parameters - self.context * self.width
        return 6 * num_parameters + 12 * self.layers * self.width * sequence_length


def load_hf(folder: str | Path, **overrides: Any) -> GPT2:
    """Return a ``GPT2`` with the shape and weights of a Hugging Face model folder (or hub name)."""
    theirs = read_model(folder)
    config = GPT2Config(**{**read_shape(theirs.config.to_dict()), **overrides})
    model = GPT2(config)
    model.load_state_dict(from_hf_state(theirs.state_dict(), config))
    return model

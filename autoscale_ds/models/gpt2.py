"""GPT-2 (Radford et al., 2019) for pretraining.

Equal to ``transformers.GPT2LMHeadModel`` with the same weights, on modules that DeepSpeed can shard and split.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autoscale_ds.errors import ConfigError
from autoscale_ds.models.layers import Block, LanguageModelHead

_VOCABULARY_MULTIPLE = 64  # matrix units are fed in tiles of 64: 50,257 columns run slower than 50,304
_STD = 0.02


@dataclass(frozen=True)
class GPT2Config:
    """Shape of a model.

    Attributes
    ----------
    layers, heads, width : int
        Transformer blocks, attention heads, hidden width (a multiple of ``heads``).
    context : int
        Positions the model knows; the sequence length may be shorter.
    vocabulary : int
        Token ids; stored padded to a multiple of 64.
    dropout : float
        On attention, residuals and embeddings. 0 is usual for one pass over the data.
    activation_checkpointing : bool
        Keep only each block's input and recompute the rest backwards: less memory, a third more arithmetic.
    loss_chunk_tokens : int
        Tokens whose logits exist at the same time.
    """

    layers: int
    heads: int
    width: int
    context: int = 1024
    vocabulary: int = 50257
    dropout: float = 0.0
    activation_checkpointing: bool = False
    loss_chunk_tokens: int = 4096

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width", "context", "vocabulary", "loss_chunk_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}, expected at least 1")
        if self.width % self.heads:
            raise ConfigError(f"model.width {self.width} is not a multiple of model.heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}, expected 0 <= dropout < 1")

    @property
    def padded_vocabulary(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocabulary // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE

    def vocabulary_rows(self, ranks: int) -> int:
        """Rows of the embedding on each of so many tensor-parallel ranks; all of them where they do not divide."""
        rows = self.padded_vocabulary
        return rows // ranks if rows % ranks == 0 else rows

    @property
    def num_parameters(self) -> int:
        """Parameters as counted for GPT-2: tied embedding once, padding rows not."""
        block = 12 * self.width**2 + 13 * self.width
        return self.vocabulary * self.width + self.context * self.width + self.layers * block + 2 * self.width

    def flops_per_token(self, sequence_length: int) -> float:
        """Return training FLOPs a token: ``6 N + 12 L d T``, N without position embeddings (PaLM, appendix B)."""
        num_parameters = self.num_parameters - self.context * self.width
        return 6 * num_parameters + 12 * self.layers * self.width * sequence_length


PRESETS: dict[str, dict[str, int]] = {
    "gpt2": {"layers": 12, "heads": 12, "width": 768},  # 124M
    "gpt2_medium": {"layers": 24, "heads": 16, "width": 1024},  # 355M
    "gpt2_large": {"layers": 36, "heads": 20, "width": 1280},  # 774M
    "gpt2_xl": {"layers": 48, "heads": 25, "width": 1600},  # 1.5B
    "nano": {"layers": 2, "heads": 2, "width": 64},  # 0.1M without embeddings: tests
    "micro": {"layers": 4, "heads": 4, "width": 128},  # 0.8M: quickstart on a CPU
    "mini": {"layers": 6, "heads": 6, "width": 384},  # 10.6M
}


class GPT2(nn.Module):
    """The model; calling it with targets gives the loss of every token.

    Parameters
    ----------
    config : GPT2Config
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.padded_vocabulary, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout, causal=True) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = LanguageModelHead(
            config.width, config.padded_vocabulary, config.vocabulary, config.loss_chunk_tokens
        )
        self.tokens.weight = self.head.weight

    def forward(self, token_ids: Tensor, targets: Tensor | None = None, first_position: int = 0) -> Tensor:
        """Return logits (batch, time, vocabulary), or with targets per-token losses (batch, time) in nats.

        Parameters
        ----------
        token_ids, targets : LongTensor, shape (batch, time)
        first_position : int
            Where in the sequence these tokens begin; other than 0 when ranks share a sequence.
        """
        positions = first_position + torch.arange(token_ids.shape[1], device=token_ids.device)
        x = self.dropout(self.tokens(token_ids) + self.positions(positions))
        for block in self.blocks:
            if self.config.activation_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.head(self.norm(x), targets)


@torch.no_grad()
def initialise(model: GPT2, seed: int) -> None:
    """Set GPT-2's initial weights, see ``initial_weight``."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_weight(name, parameter.shape, model.config, seed))


def initial_weight(name: str, shape: torch.Size, config: GPT2Config, seed: int) -> Tensor:
    """Return one parameter's initial value, fp32: normal with std 0.02, residual projections by 1/sqrt(2 layers).

    Every parameter draws from its own generator, keyed by seed and name: the same weights on every rank, whatever
    else is created, however the model is split, and for any number of layers below it.
    """
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in name:
        return torch.ones(shape)
    residual = name.endswith(("attn.proj.weight", "mlp.out.weight"))
    weight = _normal(shape, _STD / math.sqrt(2 * config.layers) if residual else _STD, seed, name)
    if name == "tokens.weight":
        weight[config.vocabulary :] = 0.0
    return weight


def _normal(shape: torch.Size, std: float, seed: int, name: str) -> Tensor:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.empty(shape).normal_(0.0, std, generator=generator)

"""Layers shared by the models: plain ``nn.Linear``, so that tensor parallelism can split them by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autoscale_ds.models.cache import LayerCache


class AttentionCore(nn.Module):
    """``scaled_dot_product_attention`` (flash kernels where the device has them) on whole sequences of some heads.

    A module of its own without weights, so that sequence parallelism can exchange tokens for heads around it.
    """

    def __init__(self, dropout: float, causal: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map three of (batch, time, heads, head width) to the same shape."""
        dropout = self.dropout if self.training else 0.0
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.core: nn.Module = AttentionCore(dropout, causal)
        self.proj = nn.Linear(width, width)
        self.head_width = width // num_heads

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Map (batch, time, width) to the same shape; with a cache, tokens attend to those read before as well."""
        batch, time, _ = x.shape
        # The number of heads follows from the projection, which tensor parallelism makes narrower.
        q, k, v = (part.view(batch, time, -1, self.head_width) for part in self.qkv(x).chunk(3, dim=-1))
        attended = self.core(q, k, v) if cache is None else cache.attend(q, k, v)
        return self.proj(attended.reshape(batch, time, -1))


class MLP(nn.Module):
    """Two linear layers with GELU in its tanh form, the one GPT-2 and BERT's successors were trained with."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, inner_width)
        self.out = nn.Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        return self.out(F.gelu(self.fc(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SelfAttention(width, num_heads, dropout, causal)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        x = x + self.dropout(self.attn(self.norm1(x), cache))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Positions(nn.Module):
    """Adds learned position embeddings to embedded tokens: a layer of its own for pipelines."""

    def __init__(self, context: int, width: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, time, width) to the same shape."""
        return self.dropout(x + self.positions(torch.arange(x.shape[1], device=x.device)))


class LanguageModelHead(nn.Module):
    """Output projection and cross-entropy, a chunk of tokens at a time.

    The logits of 8 x 1024 tokens over 50,304 entries take 1.6 GB in fp32, several times that with their gradient; here
    only one chunk of them exists at any time, and each chunk is computed again in the backward pass (2.5 % of the
    arithmetic of GPT-2 Large).

    The weight is the module's own parameter (tied to the embedding by the model), so that ZeRO-3 finds it here.
    """

    def __init__(self, width: int, padded_vocabulary: int, vocabulary: int, chunk_tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(padded_vocabulary, width))
        self.vocabulary = vocabulary
        self.chunk_tokens = chunk_tokens

    def forward(self, hidden: Tensor, targets: Tensor | None = None, likeliest: bool = False) -> Tensor:
        """Return logits (…, vocabulary) of (…, width), or with targets the loss of every token (batch, time), nats.

        With ``likeliest`` (2, batch, time): the losses, and 1 where the target is the likeliest token, else 0. Rows
        beyond the vocabulary are padding for speed: they take no part in the softmax.
        """
        if targets is None:
            return F.linear(hidden, self.weight)[..., : self.vocabulary]
        rows, labels = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        measure, shape = (self._losses, ()) if not likeliest else (self._losses_and_likeliest, (2,))
        if len(rows) <= self.chunk_tokens:
            return measure(rows, labels, self.weight).view(*shape, *targets.shape)
        chunks = [
            checkpoint(measure, part, label, self.weight, use_reentrant=False)
            for part, label in zip(rows.split(self.chunk_tokens), labels.split(self.chunk_tokens), strict=True)
        ]
        return torch.cat(chunks, dim=-1).view(*shape, *targets.shape)

    def _losses(self, rows: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        return self._of_logits(self._logits(rows, weight), labels)

    def _losses_and_likeliest(self, rows: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        logits = self._logits(rows, weight)
        return torch.stack([self._of_logits(logits, labels), (self._argmax(logits) == labels).float()])

    def _logits(self, rows: Tensor, weight: Tensor) -> Tensor:
        return F.linear(rows, weight)[:, : self.vocabulary].float()

    def _of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def _argmax(self, logits: Tensor) -> Tensor:
        return logits.argmax(-1)

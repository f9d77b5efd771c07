"""GPT-2 for pretraining, on modules that DeepSpeed can shard and split.

Equal to ``transformers.GPT2LMHeadModel`` with the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autoscale_ds.models.cache import KeyValueCache, at_positions
from autoscale_ds.models.layers import Block, LanguageModelHead
from autoscale_ds.models.spec import ModelSpec


class GPT2(nn.Module):
    """The model; calling it with targets gives the loss of every token.

    Parameters
    ----------
    config : ModelSpec
        Its shape.
    """

    def __init__(self, config: ModelSpec) -> None:
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

    def forward(
        self,
        token_ids: Tensor,
        targets: Tensor | None = None,
        first_position: int = 0,
        logits_at: int | Tensor | None = None,
        cache: KeyValueCache | None = None,
        likeliest: bool = False,
    ) -> Tensor:
        """Return logits (batch, time, vocabulary), or with targets per-token losses (batch, time) in nats.

        Parameters
        ----------
        token_ids, targets : LongTensor, shape (batch, time)
            Tokens, and the token that follows each.
        first_position : int
            Where in the sequence these tokens begin; other than 0 when ranks share a sequence.
        logits_at : int or BoolTensor, shape (batch, time), optional
            Return logits of this column of ``token_ids`` only (batch, vocabulary), or of the marked positions, row by
            row (marked, vocabulary).
        cache : KeyValueCache, optional
            What each row has read before; ``token_ids`` follow it, and are added to it. Without gradients.
        likeliest : bool
            With targets: return (2, batch, time), the losses and 1 where the target is the likeliest token.
        """
        if cache is None:
            positions = first_position + torch.arange(token_ids.shape[1], device=token_ids.device)
        else:  # padding at the end of a row may lie beyond the context
            positions = cache.begin(token_ids).clamp(max=self.config.context - 1)
        x = self.dropout(self.tokens(token_ids) + self.positions(positions))
        for index, block in enumerate(self.blocks):
            if cache is not None:
                x = block(x, cache.layer(index))
            elif self.config.activation_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        if logits_at is not None:
            return self.head(self.norm(at_positions(x, logits_at)))
        return self.head(self.norm(x), targets, likeliest)

"""Keys and values of the tokens that a model has read, so that the next token does not read them again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class KeyValueCache:
    """What each row of a batch has read so far, for every layer.

    Slot s of a row belongs to position s of that row's sequence, whatever the lengths of the other rows. Rows of
    different length are padded at their end: no query of the row looks that far, and the tokens that follow are
    written over the padding.

    Parameters
    ----------
    capacity : int
        Slots a row, padding included.

    Attributes
    ----------
    lengths : list of int
        Tokens each row has kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lengths: list[int] = []
        self._layers: dict[int, LayerCache] = {}
        self._pass: _Pass | None = None

    def begin(self, token_ids: Tensor) -> Tensor:
        """Prepare for a forward pass over tokens (batch, time) that follow; return their positions (batch, time)."""
        rows, time = token_ids.shape
        self.lengths = self.lengths or [0] * rows
        end = max(self.lengths) + time
        assert rows == len(self.lengths), f"{rows} rows given, the cache has {len(self.lengths)}"
        assert end <= self.capacity, f"{end} slots needed, the cache has {self.capacity}"
        starts = torch.tensor(self.lengths, device=token_ids.device)
        positions = starts[:, None] + torch.arange(time, device=token_ids.device)
        mask = None
        if any(self.lengths):
            mask = torch.arange(end, device=token_ids.device) <= positions[:, None, :, None]
        self._pass = _Pass(positions, mask, end)
        return positions

    def keep(self, counts: Sequence[int]) -> None:
        """Count the first tokens of the last pass as read, so many of each row; the others were padding."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def layer(self, index: int) -> LayerCache:
        """Return the part of one layer, for the pass that was begun."""
        assert self._pass is not None
        layer = self._layers.setdefault(index, LayerCache(self.capacity))
        layer.current = self._pass
        return layer

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be named several times."""
        self.lengths = [self.lengths[row] for row in rows]
        for layer in self._layers.values():
            layer.select(rows)


class _Pass:
    """Where the tokens of a forward pass lie: slots (batch, time), what they may look at, slots in use."""

    def __init__(self, positions: Tensor, mask: Tensor | None, end: int) -> None:
        self.positions = positions
        self.mask = mask
        self.end = end


class LayerCache:
    """Keys and values of one layer, shape (batch, heads, slots, head width)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.current: _Pass | None = None
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Add keys and values, and return causal attention of the queries over all of each row.

        Parameters
        ----------
        q, k, v : Tensor, shape (batch, time, heads, head width)

        Returns
        -------
        Tensor, of the same shape
        """
        assert self.current is not None
        if self._keys is None or self._values is None:
            batch, _, heads, width = k.shape
            self._keys = k.new_zeros(batch, heads, self.capacity, width)
            self._values = torch.zeros_like(self._keys)
        rows = torch.arange(len(k), device=k.device)[:, None]
        self._keys[rows, :, self.current.positions] = k
        self._values[rows, :, self.current.positions] = v
        keys, values = (held[:, :, : self.current.end] for held in (self._keys, self._values))
        mask = self.current.mask  # None in the first pass, where plain causal attention has the faster kernel
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None
        )
        return attended.transpose(1, 2)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, see ``KeyValueCache.select``."""
        if self._keys is not None and self._values is not None:
            index = torch.tensor(rows, dtype=torch.int64, device=self._keys.device)
            self._keys, self._values = self._keys[index], self._values[index]


def at_positions(x: Tensor, where: int | Tensor) -> Tensor:
    """Return positions of (batch, time, width): one column (batch, width), or those marked True (marked, width)."""
    return x[:, where] if isinstance(where, int) else x[where]

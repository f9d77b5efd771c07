"""What one rank holds of a model: its share of every matrix, or the layers of its stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscale_ds.sizing.layout import Layout

if TYPE_CHECKING:
    from autoscale_ds.models import ModelSpec


@dataclass(frozen=True)
class Stage:
    """Layers that one pipeline stage holds; without a pipeline, all of them.

    Attributes
    ----------
    index : int
        Position in the pipeline, from 0.
    blocks : int
        Number of transformer blocks.
    parameters : int
        Values of one rank, padding rows of the vocabulary included.
    has_head : bool
        Whether it computes logits and loss.
    """

    index: int
    blocks: int
    parameters: int
    has_head: bool


def stages(model: ModelSpec, layout: Layout) -> list[Stage]:
    """Return the stages of a layout.

    A pipeline is cut as DeepSpeed does by default: contiguous layers, the largest stage as small as possible. The
    first and the last stage each hold the tied embedding; without a pipeline it is counted once.
    """
    sizes = model.stage_parameters(layout.tensor)
    if layout.pipeline == 1:
        return [Stage(0, model.layers, sum(sizes[:-1]), True)]
    is_block = [layer.make is model.block for layer in model.stages()]
    held, start = [], 0
    for index, end in enumerate(_balanced(sizes, layout.pipeline)):
        held.append(Stage(index, sum(is_block[start:end]), sum(sizes[start:end]), index == layout.pipeline - 1))
        start = end
    return held


def _balanced(sizes: Sequence[int], parts: int) -> list[int]:
    """Return where each of ``parts`` contiguous parts ends, the largest as small as possible, none empty."""
    low, high = max(sizes), sum(sizes)
    while low < high:
        limit = (low + high) // 2
        low, high = (low, limit) if len(_filled(sizes, limit)) <= parts else (limit + 1, high)
    ends = _filled(sizes, low)
    while len(ends) < parts:  # fewer parts suffice: cut the longest until there are enough
        starts = [0, *ends[:-1]]
        longest = max(range(len(ends)), key=lambda i: ends[i] - starts[i])
        ends.insert(longest, (starts[longest] + ends[longest]) // 2)
    return ends


def _filled(sizes: Sequence[int], limit: int) -> list[int]:
    ends, held = [], 0
    for index, size in enumerate(sizes):
        if held + size > limit:
            ends.append(index)
            held = 0
        held += size
    return [*ends, len(sizes)]

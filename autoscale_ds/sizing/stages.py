"""What one rank holds of a model: its share of every matrix, or the layers of its stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoscale_ds.sizing.layout import Layout

if TYPE_CHECKING:
    from autoscale_ds.models import GPT2Config


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


def block_parameters(model: GPT2Config, tensor: int) -> int:
    """Return the number of one block's parameters on one of ``tensor`` ranks.

    The two column-parallel matrices share out their biases, the row-parallel ones keep theirs; norms are whole.
    """
    width = model.width
    shared = 12 * width**2 + 7 * width  # qkv and fc with biases, proj and out without
    return shared // tensor + 6 * width  # biases of proj and out, two norms


def stages(model: GPT2Config, layout: Layout) -> list[Stage]:
    """Return the stages of a layout.

    A pipeline is cut as DeepSpeed does by default: contiguous layers, the largest stage as small as possible. The
    first and the last stage each hold the tied embedding.
    """
    block = block_parameters(model, layout.tensor)
    vocabulary = model.vocabulary_rows(layout.tensor) * model.width
    first, norm = vocabulary + model.context * model.width, 2 * model.width
    if layout.pipeline == 1:
        return [Stage(0, model.layers, first + model.layers * block + norm, True)]
    layers = [vocabulary, model.context * model.width, *[block] * model.layers, norm, vocabulary]
    parts, start = [], 0
    for index, end in enumerate(_balanced(layers, layout.pipeline)):
        blocks = sum(2 <= layer < model.layers + 2 for layer in range(start, end))
        parts.append(Stage(index, blocks, sum(layers[start:end]), index == layout.pipeline - 1))
        start = end
    return parts


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

"""What the rest of the package may ask of a model family, so that nothing outside ``models/`` names one.

A family is a frozen dataclass that holds a model's shape and answers: how to build it, its initial weights by
parameter name, its layers as pipeline stages, which layers tensor parallelism splits and how, and its names at
Hugging Face. ``registry`` finds a family by the name a configuration gives (``model.family``).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from autoscale_ds.config import check_range
from autoscale_ds.errors import ConfigError
from autoscale_ds.models.cache import KeyValueCache
from autoscale_ds.models.layers import LanguageModelHead

LARGEST_SIZE = 2**31 - 1  # token ids and sequence lengths are int32 on disk
_VOCABULARY_MULTIPLE = 64  # matrix units are fed in tiles of 64: 50,257 columns run slower than 50,304


@dataclass(frozen=True)
class StageLayer:
    """How to make one layer of a pipeline; layers with the same ``tied`` share their ``weight``."""

    make: type[nn.Module]
    arguments: tuple[Any, ...]
    tied: str | None = None


@dataclass(frozen=True)
class LayerSplit:
    """How tensor parallelism splits the linear layers of one name (Megatron, arXiv 1909.08053).

    Attributes
    ----------
    layer : str
        End of the module's name, ``attn.qkv``.
    kind : {"column", "row"}
        ``column``: each rank has some outputs, weight and bias are cut in dimension 0. ``row``: each rank has some
        inputs, the weight is cut in dimension 1 and the bias is whole; the ranks' outputs are added up.
    matrices : int
        Matrices of equal size that lie one over the other in the weight (3 for query, key, value); each is split on
        its own.
    """

    layer: str
    kind: Literal["column", "row"]
    matrices: int = 1

    def dimension(self, name: str) -> int | None:
        """Return the dimension in which parameter ``name`` is cut; None for one that this rule leaves whole."""
        module, _, kind = f".{name}".rpartition(".")
        if not module.endswith(f".{self.layer}"):
            return None
        if self.kind == "column":
            return 0
        return 1 if kind == "weight" else None


@dataclass(frozen=True)
class ModelSpec(ABC):
    """Shape of a model, and what its family knows.

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

    presets: ClassVar[Mapping[str, Mapping[str, int]]]
    """Shapes by name."""
    layer_splits: ClassVar[tuple[LayerSplit, ...]]
    embedding: ClassVar[str] = "tokens"
    """Attribute of the token embedding, whose weight is tied to the head's and split by rows of the vocabulary."""
    block: ClassVar[type[nn.Module]]
    """Class of a transformer block among ``stages()``."""
    head: ClassVar[str] = "head"
    """Attribute of the ``LanguageModelHead``."""

    def __post_init__(self) -> None:
        for name in ("layers", "heads", "width", "context", "vocabulary", "loss_chunk_tokens"):
            check_range(f"model.{name}", getattr(self, name), 1, LARGEST_SIZE)
        if self.width % self.heads:
            raise ConfigError(f"model.width {self.width} is not a multiple of model.heads {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}, expected 0 <= dropout < 1")

    # -- what a family answers ----------------------------------------------------------------------------------

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the model, weights not yet set.

        Called with ``(token_ids, targets, first_position)`` it returns the loss of every token, and with
        ``likeliest=True`` besides what ``LanguageModelHead`` returns then, (2, batch, time). With ``(token_ids,
        logits_at=t)`` it returns the logits (batch, vocabulary) of position t, with ``token_ids`` alone the logits
        (batch, time, vocabulary) of all. It has the spec as ``config``. For families with a ``cache``, see there.
        """

    @abstractmethod
    def initial_weight(self, name: str, size: torch.Size, seed: int) -> Tensor:
        """Return one parameter's initial value, fp32, from its name in the whole model; see ``seeded_normal``."""

    @abstractmethod
    def stages(self) -> list[StageLayer]:
        """Return the model as layers, each fed with the output of the one before; the last is the head.

        The head is tied to the first layer and called with targets, where the loss is computed.
        """

    @abstractmethod
    def whole_name(self, layer: int, name: str) -> str:
        """Return the name that parameter ``name`` of ``stages()[layer]`` has in the whole model."""

    @abstractmethod
    def read_hf(self, folder: str | Path) -> dict[str, Tensor]:
        """Return the weights of a Hugging Face folder (or hub name) under our names.

        Raises
        ------
        CheckpointError
            When the folder cannot be read or its model has another shape.
        """

    @abstractmethod
    def write_hf(self, state: Mapping[str, Tensor], folder: str | Path, end_of_document: int) -> None:
        """Write a Hugging Face model folder from weights under our names."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Parameters as the family's paper counts them, padding rows left out."""

    @abstractmethod
    def flops_per_token(self, sequence_length: int) -> float:
        """Return training FLOPs a token, forward and backward."""

    # -- what a family may answer -------------------------------------------------------------------------------

    hf_model_type: ClassVar[str | None] = None
    """``model_type`` in the ``config.json`` of this family's Hugging Face folders; None where it has none."""

    @classmethod
    def from_hf_config(cls, raw: Mapping[str, Any]) -> ModelSpec:
        """Return the spec of a model from its Hugging Face ``config.json``; for families with ``hf_model_type``.

        Raises
        ------
        CheckpointError
            When the configuration lacks a value, or describes a model that computes something else.
        """
        raise NotImplementedError(f"{cls.__name__} has no Hugging Face folders")

    def cache(self, capacity: int) -> KeyValueCache | None:
        """Return an empty cache for rows of at most ``capacity`` tokens; None where the family has none.

        Where it has one, the model takes it as ``cache``, and ``logits_at`` may mark positions, a BoolTensor of shape
        (batch, time), for their logits row by row, of shape (marked, vocabulary).
        """
        return None

    # -- what follows from the answers --------------------------------------------------------------------------

    @property
    def padded_vocabulary(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocabulary // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE

    def vocabulary_rows(self, ranks: int) -> int:
        """Return rows of the embedding on each of ``ranks`` tensor-parallel ranks; all where they do not divide."""
        rows = self.padded_vocabulary
        return rows // ranks if rows % ranks == 0 else rows

    @property
    def vocabulary_parameter(self) -> str:
        """Name of the tied embedding's weight."""
        return f"{self.embedding}.weight"

    def whole_shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every parameter by name, tied ones once."""
        with torch.device("meta"):
            return {name: parameter.shape for name, parameter in self.build().named_parameters()}

    def compile_layers(self, model: nn.Module) -> None:
        """Let ``torch.compile`` work on every block of a built model and on its head, each on its own.

        Equal blocks share one compiled graph, made once whatever the depth: 12 blocks took 23 s on a CPU, compiled as
        a whole 60 s, at the same speed afterwards.
        """
        for module in model.modules():
            if isinstance(module, (self.block, LanguageModelHead)):
                module.forward = torch.compile(module.forward)  # not Module.compile: its cache is one for all classes

    def cut(self, name: str, whole: Tensor, rank: int, size: int) -> Tensor:
        """Return what tensor-parallel rank ``rank`` of ``size`` holds of a parameter."""
        if name == self.vocabulary_parameter:
            return whole if self.vocabulary_rows(size) == len(whole) else whole.chunk(size)[rank]
        for rule in self.layer_splits:
            dimension = rule.dimension(name)
            if dimension is not None:
                parts = [matrix.chunk(size, dimension)[rank] for matrix in whole.chunk(rule.matrices)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
        return whole

    def join(self, name: str, parts: list[Tensor]) -> Tensor:
        """Return a parameter from what each tensor-parallel rank holds of it: the inverse of ``cut``."""
        if name == self.vocabulary_parameter:
            return parts[0] if len(parts[0]) == self.padded_vocabulary else torch.cat(parts)
        for rule in self.layer_splits:
            dimension = rule.dimension(name)
            if dimension is not None:
                matrices = zip(*(part.chunk(rule.matrices) for part in parts), strict=True)
                return torch.cat([torch.cat(matrix, dimension) for matrix in matrices])
        return parts[0]

    def stage_parameters(self, tensor: int = 1) -> list[int]:
        """Return the values that one of ``tensor`` ranks holds of each of ``stages()``, padding rows included."""
        return [
            sum(self._held(self.whole_name(index, name), shape, tensor) for name, shape in _shapes(layer).items())
            for index, layer in enumerate(self.stages())
        ]

    def _held(self, name: str, shape: torch.Size, tensor: int) -> int:
        return self.cut(name, torch.empty(shape, device="meta"), 0, tensor).numel()


@cache
def _shapes(layer: StageLayer) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in layer.make(*layer.arguments).named_parameters()}


def seeded_normal(size: torch.Size, std: float, seed: int, name: str) -> Tensor:
    """Return a normal draw, fp32, from a generator keyed by seed and parameter name.

    The same on every rank, whatever else is created, however the model is split, for any number of layers.
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return torch.empty(size).normal_(0.0, std, generator=generator)


@torch.no_grad()
def initialise(model: Any, seed: int) -> None:
    """Set the initial weights of a whole model that its spec has built."""
    spec: ModelSpec = model.config
    for name, parameter in model.named_parameters():
        parameter.copy_(spec.initial_weight(name, parameter.shape, seed))

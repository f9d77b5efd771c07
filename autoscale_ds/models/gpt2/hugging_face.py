"""GPT-2 weights from and to Hugging Face: names differ, and its Conv1D stores matrices transposed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoscale_ds.errors import CheckpointError
from autoscale_ds.models.spec import ModelSpec

_BLOCK = {
    "norm1": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "norm2": "ln_2",
    "mlp.fc": "mlp.c_fc",
    "mlp.out": "mlp.c_proj",
}


def to_hf_state(state: Mapping[str, Tensor], config: ModelSpec) -> dict[str, Tensor]:
    """Return the state dictionary of ``GPT2LMHeadModel`` for one of ``GPT2``, without the tied head and padding."""
    named = {ours: state[ours].detach() for ours in _names(config)}
    renamed = {theirs: _turn(theirs, named[ours]) for ours, theirs in _names(config).items()}
    renamed["transformer.wte.weight"] = renamed["transformer.wte.weight"][: config.vocabulary]
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


def from_hf_state(state: Mapping[str, Tensor], config: ModelSpec) -> dict[str, Tensor]:
    """Return the state dictionary of ``GPT2`` for one of ``GPT2LMHeadModel`` (with or without ``transformer.``)."""
    prefixed = {name if name.startswith("transformer.") else f"transformer.{name}": t for name, t in state.items()}
    missing = sorted(set(_names(config).values()) - set(prefixed))
    if missing:
        raise CheckpointError(f"these are no GPT-2 weights of {config.layers} layers: {missing[0]} is missing")
    ours = {name: _turn(theirs, prefixed[theirs]) for name, theirs in _names(config).items()}
    embedding = ours["tokens.weight"]
    if len(embedding) < config.vocabulary or embedding.shape[1] != config.width:
        raise CheckpointError(
            f"these weights are for {len(embedding)} tokens x width {embedding.shape[1]}, "
            f"the model of this run has {config.vocabulary} x {config.width}"
        )
    padded = embedding.new_zeros(config.padded_vocabulary, config.width)
    padded[: config.vocabulary] = embedding[: config.vocabulary]
    return {**ours, "tokens.weight": padded, "head.weight": padded}


def hf_weights(folder: str | Path, config: ModelSpec) -> dict[str, Tensor]:
    """Return the weights of a Hugging Face model folder (or hub name) under the names of a ``GPT2`` of a shape.

    Raises
    ------
    CheckpointError
        When the folder cannot be read, or its model has another shape or computes something else.
    """
    model = read_model(folder)
    sizes = read_shape(model.config.to_dict())
    for name, words in _IN_WORDS.items():
        theirs, ours = sizes[name], getattr(config, name)
        if theirs != ours:  # no shape of a weight tells the heads
            raise CheckpointError(
                f"{folder}: its model has {theirs:,} {words}, the model of this run {ours:,}; set model.{name}={theirs}"
            )
    state = from_hf_state(model.state_dict(), config)
    for name, shape in config.whole_shapes().items():
        if state[name].shape != shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(state[name].shape)}, the model of this run {tuple(shape)}"
            )
    return state


# What ``config.json`` may change of the arithmetic, and the values that ``GPT2`` computes with.
_ARITHMETIC: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
}
_SHAPE = {
    "layers": "n_layer",
    "heads": "n_head",
    "width": "n_embd",
    "context": "n_positions",
    "vocabulary": "vocab_size",
}
_IN_WORDS = {"layers": "layers", "heads": "attention heads", "width": "values a position", "context": "positions"}


def read_shape(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return layers, heads, width, context and vocabulary of a GPT-2's ``config.json``.

    Raises
    ------
    CheckpointError
        When one is missing, or the model computes something else than ``GPT2``.
    """
    missing = next((theirs for theirs in _SHAPE.values() if not isinstance(raw.get(theirs), int)), None)
    if missing:
        raise CheckpointError(f"config.json of a GPT-2 has {missing} {raw.get(missing)!r}, expected a whole number")
    shape = {ours: raw[theirs] for ours, theirs in _SHAPE.items()}
    allowed = {**_ARITHMETIC, "n_inner": (None, 4 * shape["width"])}
    for name, values in allowed.items():
        if raw.get(name, values[0]) not in values:
            expected = " or ".join(map(repr, values))
            raise CheckpointError(f"config.json of a GPT-2 has {name} {raw[name]!r}, this program computes {expected}")
    return shape


def read_model(folder: str | Path) -> Any:
    """Return the ``GPT2LMHeadModel`` of a folder (or hub name); raises CheckpointError when there is none."""
    from transformers import GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # entry points own the terminal
    try:
        return GPT2LMHeadModel.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"cannot load a GPT-2 model from {folder}: {reason}; without the hub, give a local folder"
        ) from None


def save_hf(state: Mapping[str, Tensor], config: ModelSpec, folder: str | Path, end_of_document: int) -> None:
    """Write a Hugging Face model folder from a ``GPT2`` state dictionary: weights, config and generation config."""
    from transformers import GPT2LMHeadModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # entry points own the terminal
    shape = hf_config(config, end_of_document)
    with torch.device("meta"):
        model = GPT2LMHeadModel(shape)
    weights = {name: tensor.float() for name, tensor in to_hf_state(state, config).items()}
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    # Or generate() says at each call that it takes this one. Not in the model's configuration: then packed text without
    # an attention mask would be warned of.
    model.generation_config.pad_token_id = end_of_document
    model.save_pretrained(folder)


def hf_config(config: ModelSpec, end_of_document: int) -> Any:
    """Return the ``transformers.GPT2Config`` of the same shape."""
    from transformers import GPT2Config as HFConfig

    return HFConfig(
        n_layer=config.layers,
        n_head=config.heads,
        n_embd=config.width,
        n_positions=config.context,
        vocab_size=config.vocabulary,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        bos_token_id=end_of_document,
        eos_token_id=end_of_document,
    )


def _names(config: ModelSpec) -> dict[str, str]:
    """Map our parameter names to theirs."""
    names = {"tokens.weight": "transformer.wte.weight", "positions.weight": "transformer.wpe.weight"}
    for layer in range(config.layers):
        for ours, theirs in _BLOCK.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{ours}.{kind}"] = f"transformer.h.{layer}.{theirs}.{kind}"
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = f"transformer.ln_f.{kind}"
    return names


def _turn(hf_name: str, tensor: Tensor) -> Tensor:
    is_conv1d = ".c_" in hf_name and hf_name.endswith("weight")
    return tensor.t() if is_conv1d else tensor

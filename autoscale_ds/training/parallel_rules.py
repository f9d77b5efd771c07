"""Which layouts of ranks are possible: checked before anything starts, each refusal with the rule behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from autoscale_ds.errors import ConfigError
from autoscale_ds.training.hardware import precision, zero_stage

if TYPE_CHECKING:  # planning a run needs no torch
    from autoscale_ds.models import ModelSpec
    from autoscale_ds.training.config import RunConfig


class Rule(NamedTuple):
    """A condition that forbids a layout, what is wrong with it, and what to do."""

    broken: bool
    message: str


def check(run: RunConfig, ds_config: Mapping[str, Any], world_size: int) -> int:
    """Return the data-parallel size of a run.

    Raises
    ------
    ConfigError
        With the first rule that the layout breaks.
    """
    for rule in _rules(run, zero_stage(ds_config), world_size):
        if rule.broken:
            raise ConfigError(rule.message)
    return world_size // run.parallel.ranks_per_model


def record(run: RunConfig, ds_config: Mapping[str, Any], world_size: int) -> dict[str, Any]:
    """Return what a checkpoint's files depend on besides the model: with another of it, they must be converted."""
    return {
        "world_size": world_size,
        **dataclasses.asdict(run.parallel),
        "zero_stage": zero_stage(ds_config),
        "precision": precision(ds_config),
    }


def _rules(run: RunConfig, stage: int, world_size: int) -> Iterator[Rule]:
    parallel, each = run.parallel, run.parallel.ranks_per_model
    shape = run.model.build(run.data.sequence_length, vocabulary=1)
    together = _splits(**dataclasses.asdict(parallel))
    yield from split_rules(shape, stage, **dataclasses.asdict(parallel))
    yield Rule(
        world_size % each > 0,
        f"parallel.{together[0] if together else 'tensor'} is {each}, which does not divide {world_size} "
        f"rank{'s' if world_size > 1 else ''}; start a multiple of {each}",
    )
    yield Rule(
        run.data.sequence_length % parallel.sequence > 0,
        f"parallel.sequence is {parallel.sequence}, which does not divide data.sequence_length "
        f"{run.data.sequence_length}",
    )
    yield Rule(
        parallel.tensor > 1 and run.model.dropout > 0,
        f"parallel.tensor is {parallel.tensor} with model.dropout {run.model.dropout}: ranks that hold the same "
        "activations would drop different ones; set model.dropout=0",
    )
    yield Rule(
        run.model.compile and bool(together),
        f"model.compile with parallel.{together[0] if together else ''} is not supported: communication inside the "
        "layers breaks the graph; set model.compile=false",
    )


def split_rules(shape: ModelSpec, stage: int, tensor: int = 1, pipeline: int = 1, sequence: int = 1) -> Iterator[Rule]:
    """Yield what a split of a model asks of its shape and of the ZeRO stage; ``tools/plan_run.py`` asks it too."""
    together = _splits(tensor, pipeline, sequence)
    yield Rule(
        len(together) > 1,
        f"parallel.{' and parallel.'.join(together)} are both above 1: DeepSpeed splits a model in one of these ways "
        "at a time, each with data parallelism; set one of them to 1",
    )
    for name, size in (("tensor", tensor), ("sequence", sequence)):
        yield Rule(
            shape.heads % size > 0,
            f"parallel.{name} is {size}, but the model has {shape.heads} attention heads, which it must divide",
        )
    yield Rule(
        pipeline > shape.layers,
        f"parallel.pipeline is {pipeline}, but the model has only {shape.layers} layers to share out",
    )
    yield Rule(
        pipeline > 1 and stage >= 2,
        f"parallel.pipeline is {pipeline} with ZeRO stage {stage}: a pipeline adds gradients up over its "
        "micro-batches, which stages 2 and 3 would already have given away; use ZeRO 0 or 1",
    )


def _splits(tensor: int, pipeline: int, sequence: int) -> list[str]:
    """Return the ways in which a model is split."""
    sizes = {"tensor": tensor, "pipeline": pipeline, "sequence": sequence}
    return [name for name, size in sizes.items() if size > 1]

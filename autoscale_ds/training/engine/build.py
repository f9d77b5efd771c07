"""From a configuration to the engine of its layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autoscale_ds.errors import TrainingError
from autoscale_ds.models import GPT2, GPT2Config, initial_weight
from autoscale_ds.models.hf_gpt2 import hf_weights
from autoscale_ds.training.config import ParallelConfig, RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.core import Engine
from autoscale_ds.training.engine.pipeline import PipelineEngine
from autoscale_ds.training.engine.splitting import make_groups
from autoscale_ds.training.hardware import zero_stage
from autoscale_ds.training.workbench import Workbench

Weight = Callable[[str, torch.Size], Tensor]
_earlier_layouts: set[ParallelConfig] = set()  # like DeepSpeed's own groups, for the life of the process


def build_engine(
    run: RunConfig, ds_config: Mapping[str, Any], ranks: Ranks, shape: GPT2Config, workbench: Workbench
) -> Engine:
    """Return the engine of a run with its initial weights. Collective.

    Raises
    ------
    TrainingError
        When this process has trained in another layout: DeepSpeed would mix up the groups of the two.
    """
    _earlier_layouts.add(run.parallel)
    if len(_earlier_layouts) > 1:
        raise TrainingError(
            f"this process has trained with another layout than {run.parallel}; start a new process for each"
        )
    if run.parallel.pipeline > 1:
        return PipelineEngine(shape, _initial(run, shape), run, ds_config, ranks)
    if zero_stage(ds_config) == 3 and run.parallel.tensor == 1:
        return Engine(_sharded_model(run, ds_config, ranks, shape), run, ds_config, ranks)
    model = workbench.model(shape, run.seed, run.model.initial_weights, run.model.compile)
    return Engine(model, run, ds_config, ranks)


def _initial(run: RunConfig, shape: GPT2Config) -> Weight:
    """Return what gives a parameter's initial value by its name in ``GPT2``."""
    if run.model.initial_weights is None:
        return lambda name, size: initial_weight(name, size, shape, run.seed)
    state = hf_weights(run.model.initial_weights, shape)
    return lambda name, size: state[name]


def _sharded_model(run: RunConfig, ds_config: Mapping[str, Any], ranks: Ranks, shape: GPT2Config) -> GPT2:
    """Return a model of which no rank ever holds more than its shard and one whole parameter."""
    import deepspeed

    with deepspeed.zero.Init(config_dict_or_path=dict(ds_config), mpu=make_groups(ranks)):
        model = GPT2(shape)
    weight = _initial(run, shape)
    for name, parameter in model.named_parameters():
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if ranks.rank == 0:
                parameter.copy_(weight(name, parameter.shape))
    if run.model.compile:
        model.compile()
    return model

"""From a configuration to the engine of its layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoscale_ds.errors import TrainingError
from autoscale_ds.models import ModelSpec
from autoscale_ds.training.config import ParallelConfig, RunConfig
from autoscale_ds.training.engine.base import Engine, Job
from autoscale_ds.training.engine.pipeline import PipelineEngine
from autoscale_ds.training.engine.splitting import make_groups
from autoscale_ds.training.engine.zero import ZeroEngine
from autoscale_ds.training.hardware import zero_stage
from autoscale_ds.training.workbench import Workbench

Weight = Callable[[str, torch.Size], Tensor]
_earlier_layouts: set[ParallelConfig] = set()  # like DeepSpeed's own groups, for the life of the process


def build_engine(job: Job, workbench: Workbench) -> Engine:
    """Return the engine of a run with its initial weights. Collective.

    Raises
    ------
    TrainingError
        When this process has trained in another layout: DeepSpeed would mix up the groups of the two.
    """
    run = job.run
    _earlier_layouts.add(run.parallel)
    if len(_earlier_layouts) > 1:
        raise TrainingError(
            f"this process has trained with another layout than {run.parallel}; start a new process for each"
        )
    if run.parallel.pipeline > 1:
        return PipelineEngine(_initial(run, job.spec), job)
    if zero_stage(job.ds_config) == 3 and run.parallel.tensor == 1:
        return ZeroEngine(_sharded_model(job), job)
    return ZeroEngine(workbench.model(job.spec, run.seed, run.model.initial_weights, run.model.compile), job)


def _initial(run: RunConfig, spec: ModelSpec) -> Weight:
    """Return what gives a parameter's initial value by its name in the whole model."""
    if run.model.initial_weights is None:
        return lambda name, size: spec.initial_weight(name, size, run.seed)
    state = spec.read_hf(run.model.initial_weights)
    return lambda name, size: state[name]


def _sharded_model(job: Job) -> nn.Module:
    """Return a model of which no rank ever holds more than its shard and one whole parameter."""
    import deepspeed

    with deepspeed.zero.Init(config_dict_or_path=dict(job.ds_config), mpu=make_groups(job.ranks)):
        model = job.spec.build()
    weight = _initial(job.run, job.spec)
    for name, parameter in model.named_parameters():
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if job.ranks.rank == 0:
                parameter.copy_(weight(name, parameter.shape))
    if job.run.model.compile:
        job.spec.compile_layers(model)
    return model

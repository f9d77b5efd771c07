"""Putting whole weights and moments into the parts that an engine holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PartOf = Callable[[str, str], Tensor]
"""A parameter's ``fp32``, ``exp_avg`` or ``exp_avg_sq`` as this rank's model has it, by name and kind."""


def restore(engine: Any, optimizer: Any, parameters: dict[str, nn.Parameter], part: PartOf, updates: int) -> None:
    """Set weights, master weights, moments and the number of updates of a DeepSpeed engine in any ZeRO stage.

    Parameters
    ----------
    engine : DeepSpeedEngine
        The engine whose state is set.
    optimizer : torch.optim.Optimizer
        The one inside ZeRO's.
    parameters : dict of Parameter
        Those of this rank's model, by their name in the whole model.
    part : callable
        See ``PartOf``.
    updates : int
        Updates done: AdamW corrects its moments by them.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        _restore_plain(optimizer, parameters, part, updates)
    elif stage == 3:
        _restore_sharded(engine.optimizer, optimizer, parameters, part, updates)
    else:
        _restore_fragments(engine.optimizer, optimizer, parameters, part, updates)


def _restore_plain(optimizer: Any, parameters: dict[str, nn.Parameter], part: PartOf, updates: int) -> None:
    for name, parameter in parameters.items():
        parameter.data.copy_(part(name, "fp32"))
        state = _new_state(optimizer, parameter, updates)
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind].copy_(part(name, kind))


def _restore_fragments(
    zero: Any, optimizer: Any, parameters: dict[str, nn.Parameter], part: PartOf, updates: int
) -> None:
    """Stages 1 and 2: each rank has a range of the flattened parameters of a group."""
    flat = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_groups_flat_partition
    states = [_new_state(optimizer, partition, updates) for partition in flat]
    for name, parameter in parameters.items():
        weight = part(name, "fp32")
        parameter.data.copy_(weight.view_as(parameter))
        mapping: Any = getattr(parameter, "_hp_mapping", None)
        if mapping is None:  # another rank's
            continue
        here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
        for kind, values in [("fp32", flat), *((kind, states) for kind in ("exp_avg", "exp_avg_sq"))]:
            whole = weight if kind == "fp32" else part(name, kind)
            own: Any = values[mapping.param_group_index]
            target = own.data if kind == "fp32" else own[kind]
            target.narrow(0, here.start, here.numel).copy_(whole.flatten().narrow(0, there.start, there.numel))


def _restore_sharded(
    zero: Any, optimizer: Any, parameters: dict[str, nn.Parameter], part: PartOf, updates: int
) -> None:
    """Stage 3: each rank has an equal share of every parameter, the last one padded."""
    for partition in zero.fp32_partitioned_groups_flat:
        _new_state(optimizer, partition, updates)
    for name, parameter in parameters.items():
        sharded: Any = parameter
        rank, size = dist.get_rank(sharded.ds_process_group), sharded.ds_tensor.numel()

        def own(kind: str, name: str = name, rank: int = rank, size: int = size) -> Tensor:
            flat = part(name, kind).flatten()
            shard = flat[rank * size : (rank + 1) * size]
            return torch.cat([shard, shard.new_zeros(size - len(shard))])

        sharded.ds_tensor.data.copy_(own("fp32"))
        zero.set_local_hp_param(own("fp32"), sharded)
        for kind in ("exp_avg", "exp_avg_sq"):
            zero.set_local_hp_param(own(kind), sharded, kind)


def _new_state(optimizer: Any, parameter: Tensor, updates: int) -> dict[str, Tensor]:
    """Give AdamW the state it would have made at its first update."""
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    step = torch.tensor(float(updates), device=parameter.device if on_device else "cpu")
    state = {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
    optimizer.state[parameter] = state
    return state

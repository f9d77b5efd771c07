"""How a model is split over ranks: AutoTP's rules for its layers, and Ulysses around attention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from autoscale_ds.models import ModelSpec
from autoscale_ds.models.layers import SelfAttention
from autoscale_ds.models.spec import LayerSplit
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.optimizer import ModelParallel
from autoscale_ds.training.hardware import zero_stage


def _autotp_rule(rule: LayerSplit) -> dict[str, Any]:
    """Return a rule of the model's spec as AutoTP spells it."""
    pattern: dict[str, Any] = {"patterns": [rf".*{re.escape(rule.layer)}\.weight$"], "partition_type": rule.kind}
    if rule.matrices > 1:
        pattern |= {"shape": [rule.matrices, -1], "partition_dim": 0}
    return pattern


def make_groups(ranks: Ranks) -> Any:
    """Make DeepSpeed's groups of ranks that share a model or a sequence; return its ``mpu``. Collective.

    Without it DeepSpeed takes all ranks for data parallel. It keeps the groups for the life of the process.
    """
    if ranks.parallel.tensor > 1:
        from deepspeed.utils import groups

        groups._init_tp_mesh_device(tensor_model_parallel_size=ranks.parallel.tensor)
        return groups
    if ranks.parallel.sequence > 1:
        from deepspeed.runtime.sequence_parallel import parallel_state_sp

        if parallel_state_sp._SEQUENCE_PARALLEL_GROUP is None:
            parallel_state_sp.initialize_sequence_parallel(ranks.parallel.sequence)
        return parallel_state_sp
    return None


def split_config(ds_config: Mapping[str, Any], ranks: Ranks, spec: ModelSpec) -> dict[str, Any]:
    """Return the DeepSpeed configuration with the rules of tensor parallelism, where there is any."""
    if ranks.parallel.tensor == 1:
        return dict(ds_config)
    # The tied embedding is split in ``vocabulary``; what no rule names stays whole on every rank.
    specs = {"use_default_specs": False, "layer_specs": [_autotp_rule(rule) for rule in spec.layer_splits]}
    return {**ds_config, "tensor_parallel": {"autotp_size": ranks.parallel.tensor, "partition_config": specs}}


def share_sequences(model: nn.Module, mpu: Any) -> None:
    """Exchange tokens for heads around every attention."""
    for module in model.modules():
        if isinstance(module, SelfAttention):
            module.core = _Ulysses(module.core, mpu.get_sequence_parallel_group())


def loss_share(ds_config: Mapping[str, Any], ranks: Ranks) -> float:
    """Return the factor that makes the mean loss of a rank's tokens its part of the mean over whole sequences.

    DeepSpeed adds the gradients of ranks that share a sequence up, except that ZeRO-3 with ``reduce_scatter`` (its
    default) averages them (``reduce_scatter_coalesced`` in 0.19.8 knows no sequence parallelism).
    """
    averages = zero_stage(ds_config) == 3 and ds_config["zero_optimization"].get("reduce_scatter", True)
    return 1.0 if averages else 1.0 / ranks.parallel.sequence


def model_parallel(ranks: Ranks, mpu: Any) -> ModelParallel | None:
    """Return the ranks that hold one model between them, where tensor parallelism makes it several."""
    if ranks.parallel.tensor == 1:
        return None

    def is_counted(parameter: nn.Parameter) -> bool:
        return ranks.tensor_rank == 0 or getattr(parameter, "tensor_model_parallel", False)

    return ModelParallel(mpu.get_tensor_model_parallel_group(), is_counted)


class _Ulysses(nn.Module):
    """Attention over whole sequences of which every rank holds a part (Jacobs et al., arXiv 2309.14509)."""

    def __init__(self, core: nn.Module, group: Any) -> None:
        from deepspeed.sequence.layer import DistributedAttention

        super().__init__()
        self.exchange = DistributedAttention(core, group, scatter_idx=2, gather_idx=1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.exchange(q, k, v, 0)

"""How a model is split over ranks: AutoTP's rules for our layers, and Ulysses around attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoscale_ds.models import GPT2Config
from autoscale_ds.models.layers import SelfAttention
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.optimizer import ModelParallel
from autoscale_ds.training.hardware import zero_stage

# Column-parallel layers give each rank some heads or inner units, row-parallel ones add the parts up again. qkv holds
# three matrices one over the other: each is split on its own. The tied embedding is split in ``vocabulary``; positions
# and norms stay whole on every rank.
_LAYER_SPECS = [
    {
        "patterns": [r".*attn\.qkv\.weight$"],
        "partition_type": "column",
        "shape": [3, -1],
        "partition_dim": 0,
    },
    {"patterns": [r".*mlp\.fc\.weight$"], "partition_type": "column"},
    {"patterns": [r".*attn\.proj\.weight$", r".*mlp\.out\.weight$"], "partition_type": "row"},
]


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


def split_config(ds_config: Mapping[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return the DeepSpeed configuration with the rules of tensor parallelism, where there is any."""
    if ranks.parallel.tensor == 1:
        return dict(ds_config)
    specs = {"use_default_specs": False, "layer_specs": _LAYER_SPECS}
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


def tensor_part(name: str, whole: Tensor, rank: int, size: int, shape: GPT2Config) -> Tensor:
    """Return what a tensor-parallel rank holds of a parameter, by the rules above."""
    if ".attn.qkv." in name:
        return torch.cat([matrix.chunk(size)[rank] for matrix in whole.chunk(3)])
    if ".mlp.fc." in name:
        return whole.chunk(size)[rank]
    if name.endswith(("attn.proj.weight", "mlp.out.weight")):
        return whole.chunk(size, dim=1)[rank]
    if name == "tokens.weight":
        return whole if shape.vocabulary_rows(size) == len(whole) else whole.chunk(size)[rank]
    return whole


class _Ulysses(nn.Module):
    """Attention over whole sequences of which every rank holds a part (Jacobs et al., arXiv 2309.14509)."""

    def __init__(self, core: nn.Module, group: Any) -> None:
        from deepspeed.sequence.layer import DistributedAttention

        super().__init__()
        self.exchange = DistributedAttention(core, group, scatter_idx=2, gather_idx=1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.exchange(q, k, v, 0)

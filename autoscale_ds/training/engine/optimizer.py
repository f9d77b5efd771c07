"""AdamW whose updates can be left out, the same in every ZeRO stage and layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autoscale_ds.training.config import OptimizerConfig
from autoscale_ds.training.engine.op_builds import build_op
from autoscale_ds.training.hardware import offloads_optimizer, zero_stage


@dataclass(frozen=True)
class ModelParallel:
    """Ranks that hold one model between them.

    Attributes
    ----------
    group : ProcessGroup
        The ranks that hold one model.
    is_counted : callable
        Whether this rank speaks for a parameter: of copies on several ranks only one does.
    """

    group: Any
    is_counted: Callable[[nn.Parameter], bool]

    def norm(self, parameters: list[nn.Parameter]) -> torch.Tensor:
        """Return the norm of the whole model's gradient. Collective."""
        grads = [p.grad for p in parameters if self.is_counted(p) and p.grad is not None]
        square = nn.utils.get_total_norm(grads) ** 2 if grads else parameters[0].new_zeros(())
        dist.all_reduce(square, group=self.group)
        return square.sqrt()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices and embeddings decay, biases and norms do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = {id(p) for p in parameters if len(getattr(p, "ds_shape", p.shape)) >= 2}  # ds_shape: sharded by ZeRO-3
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]


class GuardedAdamW(torch.optim.AdamW):
    """AdamW whose updates can be switched off.

    ZeRO calls ``step`` on its shards, once a parameter group, and then drops the gradients: with ``frozen`` set, a bad
    step leaves weights and moments alone in every stage in the same way. Without ZeRO (``clip_norm`` set) it also
    does what the ZeRO engines do themselves: clip by the global norm, leave out an update whose norm is not finite.
    ``updated`` is set by every update; the engine clears it before a step.
    """

    frozen = False
    updated = False
    clip_norm: float | None = None
    last_norm: float | None = None
    model_parallel: ModelParallel | None = None

    def step(self, closure: Any = None) -> Any:
        """Update, unless frozen or the gradients are not finite."""
        if self.frozen or (self.clip_norm is not None and not self._clip(self.clip_norm)):
            return None
        self.updated = True
        return super().step(closure)

    def _clip(self, clip_norm: float) -> bool:
        """Clip by the global norm; return whether it is finite."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.model_parallel is None:
            norm = nn.utils.get_total_norm([p.grad for p in parameters])
        else:
            norm = self.model_parallel.norm(parameters)
        self.last_norm = float(norm)
        if clip_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        return bool(torch.isfinite(norm))


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, ds_config: Mapping[str, Any]
) -> tuple[Any, torch.optim.Optimizer]:
    groups = parameter_groups(model, config.weight_decay)
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.betas[0], config.betas[1]),
        "eps": config.epsilon,
    }
    if offloads_optimizer(ds_config) and ds_config.get("zero_force_ds_cpu_optimizer", True):
        optimizer = _offloaded_adamw()(groups, adamw_mode=True, **options)
        return optimizer, optimizer
    guarded = GuardedAdamW(groups, fused=torch.cuda.is_available(), **options)
    if zero_stage(ds_config) == 0:
        guarded.clip_norm = config.clip_norm or 0.0
    return guarded, guarded


def _offloaded_adamw() -> type:
    """Return DeepSpeed's AdamW for optimizer states in CPU memory, with the same switch (there is no ZeRO 0 there)."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    build_op("CPUAdamBuilder")

    class GuardedCPUAdam(DeepSpeedCPUAdam):
        frozen = False
        updated = False
        last_norm = None

        def step(self, closure: Any = None) -> Any:
            self.updated = not self.frozen
            return None if self.frozen else super().step(closure)

    return GuardedCPUAdam

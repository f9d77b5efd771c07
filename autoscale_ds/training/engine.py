"""The DeepSpeed engine: the only place that imports deepspeed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autoscale_ds.training.config import OptimizerConfig, RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.ds_config import offloads_optimizer, zero_stage
from autoscale_ds.training.op_builds import sole_build

log = logging.getLogger(__name__)


def start_distributed(ranks: Ranks) -> torch.device:
    """Join the other ranks and return this rank's device."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(os.environ.get("DS_LOG_LEVEL", "ERROR").upper())  # its warnings repeat what is checked here
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        deepspeed.init_distributed(dist_backend="nccl", auto_mpi_discovery=False, verbose=False)
        return torch.device("cuda", ranks.local_rank)
    _build_communication_op()
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    return torch.device("cpu")


def _build_communication_op() -> None:
    """Compile what ``init_distributed`` needs on a CPU (about a minute, once a machine), before ranks wait on it."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is not None and deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        with sole_build(Path(_get_build_directory(builder.name, verbose=False))):
            builder.load(verbose=False)


def stop_distributed() -> None:
    """Leave the other ranks; without it a process with offloaded state may abort at exit."""
    if dist.is_initialized():
        dist.destroy_process_group()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices and embeddings decay, biases and norms do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


class GuardedAdamW(torch.optim.AdamW):
    """AdamW whose updates can be switched off.

    ZeRO calls ``step`` on its shards, once a parameter group, and then drops the gradients: with ``frozen`` set, a bad
    step leaves weights and moments alone in every stage in the same way. Without ZeRO (``clip_norm`` set) it also
    does what the ZeRO engines do themselves: clip by the global norm, leave out an update whose norm is not finite.
    """

    frozen = False
    clip_norm: float | None = None
    last_norm: float | None = None

    def step(self, closure: Any = None) -> Any:
        """Update, unless frozen or the gradients are not finite."""
        if self.frozen or (self.clip_norm is not None and not self._clip(self.clip_norm)):
            return None
        return super().step(closure)

    def _clip(self, clip_norm: float) -> bool:
        """Clip by the global norm; return whether it is finite."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        self.last_norm = float(norm)
        if clip_norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        return bool(torch.isfinite(norm))


class Engine:
    """A model on DeepSpeed, with the few operations the training loop needs.

    Attributes
    ----------
    module : nn.Module
        The model as given.
    micro_batch, accumulation : int
        Samples a forward pass and forward passes a step, on one rank.
    """

    def __init__(self, model: nn.Module, run: RunConfig, ds_config: Mapping[str, Any]) -> None:
        import deepspeed

        self.module = model
        self._guard, optimizer = _build_optimizer(model, run.optimizer, ds_config)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=dict(ds_config), dist_init_required=False
        )
        self.micro_batch = int(ds_config["train_micro_batch_size_per_gpu"])
        self.accumulation = int(ds_config["gradient_accumulation_steps"])

    def set_mode(self, training: bool) -> None:
        """Switch between training and evaluation."""
        self._engine.train(training)

    def losses(self, token_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of every token, shape (batch, time), nats."""
        return self._engine(token_ids, targets)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of one micro-batch's mean loss."""
        self._engine.backward(loss)

    def micro_step(self, update: bool = True) -> None:
        """End one micro-batch; the last of a step updates the weights, unless told to leave them alone."""
        self._guard.frozen = not update
        self._engine.step()
        self._guard.frozen = False

    @property
    def gradient_norm(self) -> float | None:
        """Norm of the last step's gradient before clipping."""
        if self._guard.last_norm is not None:
            return self._guard.last_norm
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the coming update."""
        for group in self._optimizer.param_groups:
            group["lr"] = value

    def save(self, folder: Path, tag: str) -> None:
        """Write model and optimizer under ``folder/tag``. Collective: every rank must call it."""
        self._engine.save_checkpoint(str(folder), tag=tag, save_latest=False)

    def load(self, folder: Path, tag: str) -> None:
        """Read what ``save`` wrote, at the same world size. Collective."""
        self._engine.load_checkpoint(str(folder), tag=tag)

    def close(self) -> None:
        """Take the engine's hooks off the model, so that another engine can train it."""
        self._engine.destroy()


def _build_optimizer(
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

    class GuardedCPUAdam(DeepSpeedCPUAdam):
        frozen = False
        last_norm = None

        def step(self, closure: Any = None) -> Any:
            return None if self.frozen else super().step(closure)

    return GuardedCPUAdam


def saved_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the fp32 weights of a checkpoint folder by parameter name, put together from every rank's shards.

    On one process and in CPU memory; the optimizer's master weights where ZeRO keeps them.
    """
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    if any(checkpoint.glob("*optim_states.pt")):
        state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    else:  # ZeRO 0 keeps whole weights
        state = torch.load(checkpoint / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    return {name: tensor.detach().float() for name, tensor in state.items()}

"""Compare layouts: memory, whether it fits, expected step time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from autoscale_ds.sizing.cluster import Cluster
from autoscale_ds.sizing.layout import Layout, Training
from autoscale_ds.sizing.memory import BUCKET, Memory, memory
from autoscale_ds.sizing.traffic import Traffic, seconds, traffic

EFFICIENCY = 0.4
"""Part of the peak that forward and backward reach: MPT-760M at T = 1024 measured 39.8 % MFU on H100s."""


@dataclass(frozen=True)
class Plan:
    """A layout with its memory, traffic and step time.

    Attributes
    ----------
    layout : Layout
        How the ranks share the model.
    memory : Memory
        Bytes by part, of the rank with the most to hold.
    traffic : Traffic
        Bytes sent a step by the busiest rank.
    compute, communication, idle : float
        Seconds a step: arithmetic, communication that nothing hides, ranks waiting for a pipeline to fill and drain.
    over : float
        Bytes by which it does not fit, 0 when it does.
    mfu : float
        Model FLOPs utilisation to expect.
    tokens_per_second : float
        Of all GPUs.
    """

    layout: Layout
    memory: Memory
    traffic: Traffic
    compute: float
    communication: float
    idle: float
    over: float
    mfu: float
    tokens_per_second: float

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return self.compute + self.communication + self.idle

    @property
    def fits(self) -> bool:
        """Whether the rank that needs the most memory has enough."""
        return self.over == 0


def plan(
    training: Training,
    layout: Layout,
    cluster: Cluster,
    efficiency: float = EFFICIENCY,
    reserve: float = 2e9,
    bucket: int = BUCKET,
) -> Plan:
    """Return what to expect of a layout.

    Raises
    ------
    ConfigError
        When the layout is not possible.

    Notes
    -----
    A step is the arithmetic at ``efficiency``, stretched by the pipeline's bubble (p-1)/m, plus communication. ZeRO 2
    sends gradients beside the arithmetic, ZeRO 3 also weights: of that, only what takes longer counts. All other
    communication waits for the arithmetic, or the arithmetic for it.
    """
    layout.check(training)
    needed, sent = memory(training, layout, reserve, bucket), traffic(training, layout)
    tokens = training.global_batch * training.sequence_length
    compute = step_flops(training, layout) / (layout.gpus * cluster.peak_flops * efficiency)
    alone = seconds(sent, layout, cluster)
    beside = (0.0, 0.0, alone.gradients, alone.gradients + alone.weights)[layout.zero]
    between_copies = alone.gradients + alone.weights - min(beside, compute)
    idle = compute * (layout.pipeline - 1) / layout.accumulation(training)
    communication = between_copies + alone.tensor + alone.pipeline
    step = compute + communication + idle
    useful = tokens * training.model.flops_per_token(training.sequence_length)
    return Plan(
        layout,
        needed,
        sent,
        compute,
        communication,
        idle,
        over=max(needed.total - cluster.memory, 0.0),
        mfu=useful / (step * layout.gpus * cluster.peak_flops),
        tokens_per_second=tokens / step,
    )


def step_flops(training: Training, layout: Layout) -> float:
    """Return the FLOPs of a step as executed: with what checkpointing and the loss's chunks compute again."""
    model, length = training.model, training.sequence_length
    token = model.flops_per_token(length)
    head = 2 * model.width * model.vocabulary
    if layout.checkpointing:
        token += (token - 3 * head) / 3  # the blocks' forward, a third of their training
    if layout.micro * length > model.loss_chunk_tokens:
        token += head
    return token * training.global_batch * length


def rank(plans: Iterable[Plan]) -> list[Plan]:
    """Return plans, those that fit first, by step time; of equals (within 1 %) the one with fewer, larger passes.

    Those that do not fit follow, by how much they are over.
    """

    def key(candidate: Plan) -> tuple[Any, ...]:
        if not candidate.fits:
            return (1, candidate.over)
        layout = candidate.layout
        return (0, _percent(candidate.step), -layout.micro, layout.zero, layout.checkpointing, candidate.step)

    return sorted(plans, key=key)


def _percent(value: float) -> float:
    """Round to two digits: smaller differences are below the accuracy of the formulas and must not decide the order."""
    return float(f"{value:.2g}")


def settings(candidate: Plan, training: Training, bucket: int = BUCKET) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the DeepSpeed file and the lines of the run's configuration that make this layout."""
    layout = candidate.layout
    zero: dict[str, Any] = {"stage": layout.zero, "reduce_bucket_size": bucket}
    if layout.zero >= 2:
        zero |= {"overlap_comm": True, "contiguous_gradients": True}
    ds: dict[str, Any] = {"train_micro_batch_size_per_gpu": layout.micro, "zero_optimization": zero}
    if training.bf16:
        ds |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    run = {
        "parallel": {"tensor": layout.tensor, "pipeline": layout.pipeline, "sequence": 1},
        "model": {"activation_checkpointing": layout.checkpointing},
    }
    return ds, run

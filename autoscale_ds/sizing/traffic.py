"""Bytes a rank sends in a step, and the seconds that takes without overlap with computation.

A ring sends 2 (n-1)/n of the data a rank for an all-reduce, half of it for a reduce-scatter or an all-gather [1]_.
ZeRO 3 gathers the weights twice for every micro-batch; ZeRO 2 scatters gradients after every micro-batch, the others
once a step (DeepSpeed 0.19.8).

References
----------
.. [1] Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", J. Parallel Distrib. Comput. 69 (2009).
.. [2] Shoeybi et al., "Megatron-LM", arXiv 1909.08053: two all-reduces a block forward, two backward,
   one for the embedding forward, one for the head backward.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoscale_ds.sizing.cluster import Cluster
from autoscale_ds.sizing.layout import Layout, Training
from autoscale_ds.sizing.stages import stages


@dataclass(frozen=True)
class Traffic:
    """Bytes one rank sends a step.

    Attributes
    ----------
    gradients, weights : float
        Between copies of the model: gradients reduced, updated or sharded weights gathered.
    tensor : float
        Activations added up inside the blocks, the embedding and the head.
    pipeline : float
        Activations and their gradients between stages, and the tied embedding's gradient.
    """

    gradients: float
    weights: float
    tensor: float
    pipeline: float

    @property
    def total(self) -> float:
        """Return all of it."""
        return self.gradients + self.weights + self.tensor + self.pipeline


def traffic(training: Training, layout: Layout) -> Traffic:
    """Return the bytes that the rank with the most traffic sends in a step."""
    parts = stages(training.model, layout)
    parameters, blocks = max(part.parameters for part in parts), max(part.blocks for part in parts)
    accumulation, value = layout.accumulation(training), training.bytes_per_value
    activation = layout.micro * training.sequence_length * training.model.width * value
    all_reduces = 6 if layout.checkpointing else 4  # computing a block again repeats its two of forward
    vocabulary = 2  # looked up embeddings, and the gradient of the head's input; the loss's own sums are small
    embedding = training.model.padded_vocabulary * training.model.width * 4
    gradients, weights = _between_copies(layout, parameters, accumulation, value)
    return Traffic(
        gradients=gradients,
        weights=weights,
        tensor=accumulation * (blocks * all_reduces + vocabulary) * 2 * _ring(layout.tensor) * activation,
        pipeline=accumulation * 2 * activation + 2 * _ring(2) * embedding if layout.pipeline > 1 else 0.0,
    )


def _between_copies(layout: Layout, parameters: int, accumulation: int, value: int) -> tuple[float, float]:
    """Return bytes of gradients and of weights sent between data-parallel ranks."""
    share = _ring(layout.data)
    if layout.zero == 0:
        return 2 * share * 4 * parameters, 0.0
    if layout.zero == 1:
        # In bf16 DeepSpeed all-reduces the fp32 gradients; in fp32 it reduces each part to its owner.
        return (2 if value == 2 else 1) * share * 4 * parameters, share * value * parameters
    gathers = 2 * accumulation if layout.zero == 3 else 1
    return accumulation * share * value * parameters, gathers * share * value * parameters


def _ring(ranks: int) -> float:
    """Return the part of the data that each of ``ranks`` sends to scatter or gather it."""
    return (ranks - 1) / ranks


def seconds(sent: Traffic, layout: Layout, cluster: Cluster) -> Traffic:
    """Return the seconds each kind takes alone: ranks of one model are neighbours, stages are farthest apart."""
    copies = cluster.bandwidth(layout.tensor * layout.data)
    return Traffic(
        gradients=sent.gradients / copies,
        weights=sent.weights / copies,
        tensor=sent.tensor / cluster.bandwidth(layout.tensor),
        pipeline=sent.pipeline / cluster.bandwidth(layout.gpus),
    )

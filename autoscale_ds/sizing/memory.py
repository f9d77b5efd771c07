"""Bytes one rank needs, by part, from what DeepSpeed 0.19.8 and the layers of ``models`` keep.

``benchmarks/memory.py`` measures the same parts on real engines and compares. Where ZeRO's paper [1]_ counts 16P,
4P+12P/N, 2P+14P/N and 16P/N bytes for P parameters on N ranks, gradients are larger here: they are added up in fp32
(4 bytes instead of 2), and ZeRO 1 in bf16 keeps them beside the bf16 ones that backward writes.

References
----------
.. [1] Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020.
.. [2] Korthikanti et al., "Reducing activation recomputation in large transformer models", arXiv 2205.05198.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from autoscale_ds.sizing.layout import Layout, Training
from autoscale_ds.sizing.stages import Stage, stages

BUCKET = 50_000_000
"""Values in a bucket of gradients. DeepSpeed's own default, ten times this, costs 1 to 2 GB and sends no faster."""
_REDUCED_AT_ONCE = 500_000_000  # values DeepSpeed flattens for one all-reduce of whole gradients
_MAX_LIVE = 1_000_000_000  # stage3_max_live_parameters: so many gathered parameters stay until backward


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank.

    Attributes
    ----------
    parameters : float
        Weights as the model computes with them; at ZeRO 3 the rank's part and those gathered at the same time.
    gradients : float
        As they are added up over micro-batches.
    optimizer : float
        Adam's two moments, and with ZeRO the fp32 master weights.
    activations : float
        Kept by forward for backward, with the block that is being computed again.
    logits : float
        One chunk of the loss: logits, their softmax and gradients.
    buffers : float
        Buckets of gradients on their way to other ranks.
    update : float
        Copies of gradients made when backward is over: they never exist together with activations and logits.
    reserve : float
        CUDA context, libraries, fragmentation: an assumption.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float
    update: float
    reserve: float

    @property
    def total(self) -> float:
        """Return the peak: of backward or of the update, whichever is higher."""
        states = self.parameters + self.gradients + self.optimizer + self.reserve
        return states + max(self.activations + self.logits + self.buffers, self.update)

    def parts(self) -> dict[str, float]:
        """Return every part by name."""
        return asdict(self)


def memory(training: Training, layout: Layout, reserve: float = 2e9, bucket: int = BUCKET) -> Memory:
    """Return the memory of the rank that needs the most.

    Parameters
    ----------
    training : Training
        Model, batch and precision.
    layout : Layout
        Must be possible, see ``Layout.check``.
    reserve : float
        Bytes set aside for what is not counted.
    bucket : int
        ``reduce_bucket_size`` of the DeepSpeed file, values.
    """
    by_stage = (_of_stage(training, layout, stage, reserve, bucket) for stage in stages(training.model, layout))
    return max(by_stage, key=lambda needed: needed.total)


def _of_stage(training: Training, layout: Layout, stage: Stage, reserve: float, bucket: int) -> Memory:
    parameters, gradients, optimizer = states(stage.parameters, layout.data, layout.zero, training.bf16)
    value, zero = training.bytes_per_value, layout.zero
    whole_gradients = zero == 0 or (zero == 1 and training.bf16)  # DeepSpeed's BF16_Optimizer
    gathered = value * min(stage.parameters, _MAX_LIVE) if zero == 3 else 0
    update = 4 * min(stage.parameters, _REDUCED_AT_ONCE) if whole_gradients and layout.data > 1 else 0.0
    if zero in (1, 2) and not training.bf16:
        update = 4 * stage.parameters / layout.data  # gradients are flattened into a second copy
    buffers = 0 if whole_gradients else bucket * value * (2 if zero == 2 else 1)  # ZeRO 2 overlaps: two buckets
    return Memory(
        parameters=parameters + gathered,
        gradients=gradients,
        optimizer=optimizer,
        activations=_activations(training, layout, stage),
        logits=logits(training, layout.micro * training.sequence_length, layout.tensor) if stage.has_head else 0.0,
        buffers=buffers,
        update=update,
        reserve=reserve,
    )


def states(num_parameters: int, data: int, zero: int, bf16: bool) -> tuple[float, float, float]:
    """Return bytes of parameters, gradients and optimizer for P parameters on N data-parallel ranks.

    ======  ==================  ======================  ===================
    ZeRO    parameters          gradients               optimizer
    ======  ==================  ======================  ===================
    0       4P (fp32)           4P                      8P
    1       2P (fp32: 4P)       2P + 4P (fp32: 4P)      12P/N
    2       2P (fp32: 4P)       4P/N                    12P/N
    3       2P/N (fp32: 4P/N)   4P/N                    12P/N
    ======  ==================  ======================  ===================

    ZeRO keeps an fp32 copy of a rank's part of the weights also when the weights are fp32.
    """
    value = 2 if bf16 else 4
    parameters = value * num_parameters / (data if zero == 3 else 1)
    gradients = 4 * num_parameters / (data if zero >= 2 else 1)
    if zero == 1 and bf16:
        gradients += 2 * num_parameters
    optimizer = 8 * num_parameters if zero == 0 else 12 * num_parameters / data
    return parameters, gradients, optimizer


def _activations(training: Training, layout: Layout, stage: Stage) -> float:
    """Return what a stage keeps for backward: a pipeline keeps several micro-batches (1F1B)."""
    tokens = layout.micro * training.sequence_length
    in_flight = min(layout.accumulation(training), layout.pipeline - stage.index)
    whole = block_activations(training, tokens, layout.tensor)
    unit = training.bytes_per_value * tokens * training.model.width
    kept = (unit * stage.blocks if layout.checkpointing else whole * stage.blocks) * in_flight
    again = whole if layout.checkpointing and stage.blocks else 0.0
    # Token ids and targets, int64; input, output and statistics of the last norm.
    outside = 16 * tokens + (2 * unit + 8 * tokens if stage.has_head else 0)
    return kept + again + outside


def block_activations(training: Training, tokens: int, tensor: int = 1) -> float:
    """Return the bytes one block keeps for backward, on one of ``tensor`` ranks.

    In units of tokens x width: input and output of both norms (4), q, k and v (3), the attention's output (1), input
    and output of GELU (4 + 4). The last twelve are shared out by tensor parallelism. With bf16 these are the
    ``sbh(10 + 24/t)`` bytes of [2]_ less two dropout masks; its ``5 as/h`` for attention matrices is not there,
    because scaled-dot-product attention keeps only one fp32 number a head and token. Norms keep two.
    """
    model, value = training.model, training.bytes_per_value
    unit = tokens * model.width
    masks = 2 * unit if model.dropout else 0
    statistics = 4 * tokens * (model.heads / tensor + 4)
    return value * unit * (4 + 12 / tensor) + masks + statistics


def logits(training: Training, tokens: int, tensor: int = 1) -> float:
    """Return the bytes of one chunk of the loss at its peak, which is in backward, on one of ``tensor`` ranks.

    For every token and vocabulary entry: the softmax (fp32), its gradient (fp32), and that of the logits as the model
    computes them, once over the vocabulary and once with its padding rows.
    """
    model, value = training.model, training.bytes_per_value
    chunk = min(tokens, model.loss_chunk_tokens)
    per_logit = 8 + (2 * value if training.bf16 else value)
    rows = model.vocabulary_rows(tensor)
    return per_logit * chunk * rows + value * rows * model.width

"""A model on DeepSpeed as a pipeline of stages: one forward, one backward at a time (1F1B), tied embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from autoscale_ds.errors import TrainingError
from autoscale_ds.models.spec import StageLayer
from autoscale_ds.objectives import Batch
from autoscale_ds.training.engine.base import CountLosses, DeepSpeedEngine, Job, TokenLosses, allow_conversion
from autoscale_ds.training.engine.optimizer import ModelParallel, build_optimizer
from autoscale_ds.training.engine.portable import pipeline_name

Weight = Callable[[str, torch.Size], Tensor]
Labels = tuple[Tensor, ...]
"""Targets, domains, and the mask of counted positions where there is one."""


class PipelineEngine(DeepSpeedEngine):
    """A pipeline of stages; see ``base.Engine`` for what it does.

    DeepSpeed runs a whole step by its own schedule and calls ``_loss`` on the last stage with the hidden states of
    each micro-batch. What is done there depends on the call: losses are counted and reduced, collected, or the logits
    of one position are computed. The decision to update is put before the schedule's optimizer step.

    Parameters
    ----------
    weight : callable
        Initial value of a parameter by its name in the whole model and its shape.
    job : Job
        What it is built for.
    """

    def __init__(self, weight: Weight, job: Job) -> None:
        import deepspeed

        self._at_last_stage: Callable[[Any, Tensor, Labels], Tensor] = _no_loss
        self._decide: Callable[[], bool] = lambda: True
        module = self._build(job)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(weight(pipeline_name(name, job.spec), parameter.shape))
        guard, optimizer = build_optimizer(module, job.run.optimizer, job.ds_config)
        engine, wrapped, _, _ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=dict(job.ds_config), dist_init_required=False
        )
        super().__init__(job, module, (engine, wrapped), guard)
        guard.model_parallel = self._ranks_of_one_model()
        self._decide_before_the_update()
        self._shape: tuple[int, ...] | None = None
        allow_conversion(module, {"pipeline_replicated_parameter_patterns": [r"tied_modules\..*"]})

    def _build(self, job: Job) -> Any:
        from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec

        layers = job.spec.stages()
        head = layers[-1].tied

        def spec(layer: StageLayer, is_head: bool) -> Any:
            if layer.tied is None:
                return LayerSpec(layer.make, *layer.arguments)
            # The head is called with targets, where the loss is computed; as a layer it only ties the weight.
            forward = (lambda head, x: x) if is_head else None
            return TiedLayerSpec(layer.tied, layer.make, *layer.arguments, forward_fn=forward)

        return PipelineModule(
            [spec(layer, is_head=layer is layers[-1]) for layer in layers],
            num_stages=job.ranks.parallel.pipeline,
            loss_fn=lambda hidden, labels: self._at_last_stage(self.module.tied_modules[head], hidden, labels),
            activation_checkpoint_interval=int(job.spec.activation_checkpointing),
            # DeepSpeed's own function needs inputs with gradients, which token ids have not.
            activation_checkpoint_func=partial(checkpoint, use_reentrant=False),
            checkpointable_layers=[job.spec.block.__name__],
        )

    def _whole_name(self, name: str) -> str:
        return pipeline_name(name, self.spec)

    def _ranks_of_one_model(self) -> ModelParallel:
        """Return the ranks that hold one model; a tied weight is counted on the first of its ranks."""
        tied = self.module.tied_modules.parameters() if self._job.ranks.stage else []
        copies = {id(parameter) for parameter in tied}
        return ModelParallel(self._engine.mpu.get_pipe_parallel_group(), lambda p: id(p) not in copies)

    def _decide_before_the_update(self) -> None:
        """Put the decision before the optimizer step of the schedule."""
        from deepspeed.runtime.pipe.schedule import OptimizerStep

        update = self._engine._INSTRUCTION_MAP[OptimizerStep]

        def decide_and_update(engine: Any, **arguments: Any) -> None:
            self._guard.frozen = not self._decide()
            MethodType(update, engine)(**arguments)
            self._guard.frozen = False

        self._engine._INSTRUCTION_MAP = {**self._engine._INSTRUCTION_MAP, OptimizerStep: decide_and_update}

    def train_step(
        self,
        batch: Sequence[Batch],
        count: CountLosses,
        decide: Callable[[], bool],
        domain_weights: Tensor | None = None,
    ) -> None:
        """Do one optimizer step, see ``Engine.train_step``."""
        self._guard.updated = False
        scale = self._counted_scale(batch)

        def loss(head: Any, hidden: Tensor, labels: Labels) -> Tensor:
            targets, domains, counted = _unpacked(labels)
            losses = head(hidden, targets)
            count(TokenLosses(losses, counted), domains)
            return self._job.objective.reduce(losses, counted, domains, domain_weights) * scale

        self._at_last_stage = loss
        self._decide = decide
        self._expect(batch[0].tokens[:, :-1])
        self._engine.train_batch(iter([self._inputs_and_labels(micro) for micro in batch]))

    def losses(self, batch: Batch, likeliest: bool = False) -> TokenLosses | None:
        """Return the losses of a batch on the last stage, None on the others."""
        collected: list[TokenLosses] = []

        def collect(head: Any, hidden: Tensor, labels: Labels) -> Tensor:
            targets, _, counted = _unpacked(labels)
            if likeliest:
                losses, tops = head(hidden, targets, likeliest=True)
                collected.append(TokenLosses(losses, counted, tops))
            else:
                collected.append(TokenLosses(head(hidden, targets), counted))
            return collected[-1].losses.mean()

        self._forward(self._inputs_and_labels(batch), collect)
        return collected[0] if collected else None

    def next_token_logits(self, tokens: Tensor) -> Tensor:
        """Return logits of the token that follows, see ``Engine.next_token_logits``; sent on by the last stage."""
        if not 1 <= tokens.shape[1] <= self.spec.context:
            raise TrainingError(
                f"the next token after {tokens.shape[1]} tokens was asked for; expected 1 to {self.spec.context}, "
                "the model's context"
            )
        logits = torch.empty(len(tokens), self.spec.vocabulary, device=tokens.device)

        def keep(head: Any, hidden: Tensor, labels: Labels) -> Tensor:
            logits.copy_(head(hidden[:, -1]))
            return hidden.new_zeros(())

        self._forward((tokens, (tokens, tokens.new_zeros(len(tokens)))), keep)
        group = self._engine.mpu.get_pipe_parallel_group()
        dist.broadcast(logits, dist.get_global_rank(group, self._job.ranks.parallel.pipeline - 1), group=group)
        return logits

    def _forward(self, micro: tuple[Tensor, Labels], at_last_stage: Callable[[Any, Tensor, Labels], Tensor]) -> None:
        self._at_last_stage = at_last_stage
        self._expect(micro[0])
        self._engine.eval_batch(iter([micro]), bcast_loss=False, reduce_output=None, num_micro_batches=1)

    def _expect(self, inputs: Tensor) -> None:
        """Let stages agree anew on the shape of what they exchange, where it differs from the call before."""
        if self._shape is not None and self._shape != inputs.shape:
            self._engine.reset_activation_shape()
        self._shape = inputs.shape

    def _inputs_and_labels(self, batch: Batch) -> tuple[Tensor, Labels]:
        inputs, targets, counted = self._job.objective.prepare(batch)
        return inputs, (targets, batch.domains) if counted is None else (targets, batch.domains, counted)


def _unpacked(labels: Labels) -> tuple[Tensor, Tensor, Tensor | None]:
    return labels[0], labels[1], labels[2] if len(labels) > 2 else None


def _no_loss(head: Any, hidden: Tensor, labels: Labels) -> Tensor:
    raise AssertionError("DeepSpeed asked for a loss outside of a step")

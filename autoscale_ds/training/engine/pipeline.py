"""A model on DeepSpeed as a pipeline of stages: one forward, one backward at a time (1F1B), tied embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from autoscale_ds.models import GPT2Config
from autoscale_ds.models.gpt2_stages import StageLayer, stage_layers
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.engine.core import Engine, MicroBatch, allow_conversion
from autoscale_ds.training.engine.optimizer import ModelParallel, build_optimizer
from autoscale_ds.training.engine.portable import pipeline_name


class PipelineEngine(Engine):
    """A pipeline with the operations of ``Engine``.

    DeepSpeed runs a whole step by its own schedule. Losses are caught where the last stage computes them, and the
    decision to update is put before the schedule's optimizer step.
    """

    def __init__(
        self,
        shape: GPT2Config,
        weight: Callable[[str, torch.Size], Tensor],
        run: RunConfig,
        ds_config: Mapping[str, Any],
        ranks: Ranks,
    ) -> None:
        import deepspeed

        self.shape = shape
        self._describe(run, ds_config, ranks)
        self._caught: Callable[[Tensor, Tensor], None] = lambda losses, domains: None
        self._decide: Callable[[], bool] = lambda: True
        self.module: Any = self._build(shape)
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(weight(self.whole_name(name), parameter.shape))
        self._guard, optimizer = build_optimizer(self.module, run.optimizer, ds_config)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self.module, optimizer=optimizer, config=dict(ds_config), dist_init_required=False
        )
        self._guard.model_parallel = self._stages()
        self._decide_before_the_update()
        self._guard_files()
        allow_conversion(self.module, {"pipeline_replicated_parameter_patterns": [r"tied_modules\..*"]})

    def _build(self, shape: GPT2Config) -> Any:
        from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec

        last = shape.layers + 3

        def spec(index: int, layer: StageLayer) -> Any:
            if layer.tied is None:
                return LayerSpec(layer.make, *layer.arguments)
            # The head is called with targets, where the loss is computed; as a layer it only ties the weight.
            forward = (lambda head, x: x) if index == last else None
            return TiedLayerSpec(layer.tied, layer.make, *layer.arguments, forward_fn=forward)

        return PipelineModule(
            [spec(index, layer) for index, layer in enumerate(stage_layers(shape))],
            num_stages=self._ranks.parallel.pipeline,
            loss_fn=self._loss,
            activation_checkpoint_interval=int(shape.activation_checkpointing),
        )

    def whole_name(self, name: str) -> str:
        """Return the name that a parameter of this stage has in ``GPT2``."""
        return pipeline_name(name, self.shape)

    def _loss(self, hidden: Tensor, labels: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of a micro-batch and let its parts be counted; DeepSpeed calls it on the last stage."""
        targets, domains = labels
        losses = self.module.tied_modules["tokens"](hidden, targets)
        self._caught(losses, domains)
        return losses.mean()

    def _stages(self) -> ModelParallel:
        """Return the ranks that hold one model; a tied weight is counted on the first of its ranks."""
        tied = self.module.tied_modules.parameters() if self._ranks.stage else []
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
        self, batch: Sequence[MicroBatch], count: Callable[[Tensor, Tensor], None], decide: Callable[[], bool]
    ) -> None:
        """Do one optimizer step, see ``Engine.train_step``."""
        self._caught, self._decide = count, decide
        self._engine.train_batch(iter([_inputs_and_labels(*micro) for micro in batch]))

    def evaluate(self, tokens: Tensor) -> Tensor | None:
        """Return the losses of tokens (samples, time + 1) on the last stage, None on the others."""
        found: list[Tensor] = []
        self._caught = lambda losses, domains: found.append(losses)
        micro = _inputs_and_labels(tokens, tokens.new_zeros(len(tokens)))
        self._engine.eval_batch(iter([micro]), bcast_loss=False, reduce_output=None, num_micro_batches=1)
        return found[0] if found else None


def _inputs_and_labels(tokens: Tensor, domains: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return tokens[:, :-1], (tokens[:, 1:], domains)

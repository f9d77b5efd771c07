"""Open corpora and compiled models, shared by the runs that one process trains one after the other.

A run of seconds must not pay for compiling its model (10–60 s) or opening its corpus again. Only storage and code are
shared: every run gets initial weights of its own seed and a new optimizer, so that it equals a run in a new process.
"""

from __future__ import annotations

import torch
from torch import nn

from autoscale_ds.corpus import Corpus
from autoscale_ds.models import ModelSpec, initialise


class Workbench:
    """Keeps corpora by folder and models by shape for the next run.

    Parameters
    ----------
    device : torch.device
        Device of the models.
    reuse_models : bool
        False where an engine leaves modules unfit for another (ZeRO-3 partitions their parameters).
    """

    def __init__(self, device: torch.device, reuse_models: bool = True) -> None:
        self._device = device
        self._reuse_models = reuse_models
        self._corpora: dict[str, Corpus] = {}
        self._models: dict[tuple[ModelSpec, bool], nn.Module] = {}

    def corpus(self, folder: str) -> Corpus:
        """Return the corpus in a folder, opened once."""
        if folder not in self._corpora:
            self._corpora[folder] = Corpus(folder)
        return self._corpora[folder]

    def model(self, spec: ModelSpec, seed: int, pretrained: str | None, compiled: bool) -> nn.Module:
        """Return a model in fp32 with the initial weights of a seed, or of a Hugging Face folder.

        The model of an earlier run of the same shape is used again; that run must have closed its engine.
        """
        model = self._models.get((spec, compiled))
        if model is None:
            with self._device:  # torch draws values that are overwritten below: faster on a GPU
                model = spec.build()
            if compiled:
                spec.compile_layers(model)
            if self._reuse_models:
                self._models[spec, compiled] = model
        model.float().train().zero_grad(set_to_none=True)
        if pretrained is None:
            initialise(model, seed)
        else:
            model.load_state_dict(spec.read_hf(pretrained))
        return model.to(self._device)

"""What a start builds once, whatever step it goes on from: data, model, engine, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from autoscale_ds.evaluation.registry import check_needs, evaluations
from autoscale_ds.objectives import objective
from autoscale_ds.training import setup
from autoscale_ds.training.beginning import Beginning
from autoscale_ds.training.checkpoints import Checkpoints, list_checkpoints
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks, on_rank_zero
from autoscale_ds.training.engine import Job, build_engine
from autoscale_ds.training.faults import FaultGuard
from autoscale_ds.training.initial_weights import check_initial_weights
from autoscale_ds.training.loggers.registry import check_installed
from autoscale_ds.training.run_folder import RunFolder
from autoscale_ds.training.workbench import Workbench

log = logging.getLogger(__name__)


class Parts:
    """Takes the run folder and builds the parts of a run on one rank; see ``Trainer`` for the parameters. Collective.

    Attributes
    ----------
    run, ds_config, ranks, device
        As given; ``ranks`` with the run's layout.
    folder : RunFolder
        Held by rank 0 until ``close``.
    corpus : Corpus
    stream_spec : StreamSpec
        What fixes the data order besides the journal.
    model_spec : ModelSpec
    engine : Engine
    evaluations : list of Evaluation
    checkpoints : Checkpoints
    faults : FaultGuard
    beginning : Beginning or None
        On rank 0 only.
    """

    def __init__(
        self,
        run: RunConfig,
        ds_config: Mapping[str, Any],
        ranks: Ranks,
        device: torch.device,
        workbench: Workbench | None = None,
        accept_new_text: bool = False,
    ) -> None:
        self.run = run
        self.ds_config = ds_config
        self.ranks = replace(ranks, parallel=run.parallel)
        self.device = device
        self.beginning: Beginning | None = None
        on_rank_zero(lambda: check_installed(run.logging.loggers))
        self.folder = RunFolder(run.run)
        on_rank_zero(lambda: self.folder.take(run))
        try:
            self._build(workbench or Workbench(device), accept_new_text)
        except BaseException:
            self.folder.undo_start()
            raise

    def _build(self, workbench: Workbench, accept_new_text: bool) -> None:
        run, ranks = self.run, self.ranks
        self.corpus = workbench.corpus(run.data.corpus)
        had = on_rank_zero(self.folder.domains_so_far)
        on_rank_zero(lambda: run.objective.check_domains([*self.corpus.domains, *had]))
        self.stream_spec = setup.stream_spec(run, self.corpus, had)
        self.model_spec = run.model.build(run.data.sequence_length, self.corpus.manifest.tokenizer.vocabulary_size)
        for line in setup.describe(run, self.ds_config, self.model_spec, ranks):
            log.info(line)
        on_rank_zero(lambda: self._prepare_beginning(accept_new_text))
        began = on_rank_zero(lambda: bool(list_checkpoints(self.folder.checkpoints)))
        # What a run starts from is read once; its checkpoints hold what counts then.
        built = replace(run, model=replace(run.model, initial_weights=None)) if began else run
        initial = built.model.initial_weights
        if initial is not None:
            on_rank_zero(lambda: check_initial_weights(initial, self.corpus, self.model_spec))
        job = Job(built, self.ds_config, ranks, self.model_spec, objective(run.objective.kind))
        self.engine = build_engine(job, workbench)
        self.evaluations = evaluations(run, self.corpus)
        for evaluation in self.evaluations:
            check_needs(evaluation, self.engine)
        keeping = run.checkpoints
        self.checkpoints = Checkpoints(self.folder.checkpoints, ranks, keeping.keep, keeping.verify)
        self.faults = FaultGuard(self.folder.path, run.faults, ranks)

    def _prepare_beginning(self, accept_new_text: bool) -> None:
        self.beginning = Beginning(
            self.run, self.folder, self.corpus, self.model_spec, self.stream_spec, accept_new_text
        )

    def close(self) -> None:
        """Give up the run folder and the engine, so that this process can begin another run."""
        self.engine.close()
        self.folder.release()

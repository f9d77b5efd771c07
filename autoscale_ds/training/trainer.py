"""One run on one rank: its parts, and the training loop as often as it goes back to a checkpoint."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from autoscale_ds.errors import TrainingError
from autoscale_ds.training.checkpoints import BAD, COOLED
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks, any_rank, on_rank_zero
from autoscale_ds.training.faults import RollBack
from autoscale_ds.training.loop import TrainingLoop
from autoscale_ds.training.parts import Parts
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE, StopRequest
from autoscale_ds.training.workbench import Workbench

log = logging.getLogger(__name__)


class Trainer:
    """One run on one rank.

    Parameters
    ----------
    run : RunConfig
        What is learned.
    ds_config : mapping
        Resolved, see ``ds_config.resolve``.
    ranks : Ranks
        Place of this process among the others.
    device : torch.device
        Device of this rank.
    on_record : callable
        Given every metrics record on rank 0: the terminal's progress bar.
    workbench : Workbench, optional
        Keeps open corpora and compiled models for the next run of this process.
    stop : StopRequest, optional
        Shared with whoever starts several runs in this process.
    accept_new_text : bool
        Whether a domain of which the corpus holds other text than at the last start is read from its beginning; else
        such a start is refused.

    Attributes
    ----------
    parts : Parts
        What does not depend on the step.
    folder : RunFolder
        The run's own.
    loop : TrainingLoop
        What does; there from ``fit`` on, another after every return to a checkpoint.
    """

    loop: TrainingLoop

    def __init__(
        self,
        run: RunConfig,
        ds_config: Mapping[str, Any],
        ranks: Ranks,
        device: torch.device,
        on_record: Callable[[Mapping[str, Any]], None] = lambda record: None,
        workbench: Workbench | None = None,
        stop: StopRequest | None = None,
        accept_new_text: bool = False,
    ) -> None:
        self.parts = Parts(run, ds_config, ranks, device, workbench, accept_new_text)
        self.folder = self.parts.folder
        self.on_record = on_record
        self.stop = stop or StopRequest()

    def fit(self) -> int:
        """Train to the end of the budget and return the exit code: 0, or the requeue code when told to stop."""
        try:
            return self._fit()
        except BaseException:
            self.folder.undo_start()
            raise

    def _fit(self) -> int:
        parts = self.parts
        self.stop.install()
        until: int | None = on_rank_zero(self._step_before_cooldown)
        aside = COOLED
        while True:
            self.loop = self.restored(until)
            try:
                self.loop.begin(functools.partial(self._set_aside, until, aside))
                if any_rank(self.stop.requested, parts.device):
                    log.warning("stopped before the first step; nothing is new, the same command continues")
                    return REQUEUE_EXIT_CODE
                code = self.loop.train()
                dist.barrier()  # a rank that exits early breaks the collectives of those still running
                return code
            except RollBack as roll_back:
                until, aside = roll_back.until, BAD
                log.warning("returning to a checkpoint%s", "" if until is None else f" of step {until:,} or before")
            except TrainingError:
                if parts.faults.guilty is not None:
                    parts.checkpoints.set_aside(parts.faults.guilty, BAD)
                raise
            finally:
                self.loop.close()

    def restored(self, until: int | None = None) -> TrainingLoop:
        """Return the loop that goes on from the newest checkpoint (``until`` a step), or from step 0. Collective."""
        return TrainingLoop(self.parts, self.stop, self.on_record, until)

    def close(self) -> None:
        """Give up the run folder and the engine, so that this process can begin another run."""
        self.parts.close()

    def _set_aside(self, until: int | None, prefix: str) -> None:
        if until is not None:
            self.parts.checkpoints.set_aside(until, prefix)

    def _step_before_cooldown(self) -> int | None:
        beginning = self.parts.beginning
        return beginning.step_before_cooldown() if beginning is not None else None

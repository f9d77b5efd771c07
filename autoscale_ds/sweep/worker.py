"""A worker: claims a run, trains it to its end, writes its result, takes the next.

One process keeps one compiled model and one open corpus for all its runs. When it dies, only the
steps since the last checkpoint of one run are lost: another worker goes on from there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autoscale_ds.errors import AutoScaleError
from autoscale_ds.files import write_json
from autoscale_ds.sweep.claims import Claim, Claims
from autoscale_ds.sweep.plan import PlannedRun, SweepPlan, run_folder
from autoscale_ds.sweep.results import FAILED_FILE, RESULT_FILE, write_result
from autoscale_ds.training.distributed import Ranks, on_rank_zero
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.hardware import zero_stage
from autoscale_ds.training.setup import unique_tokens
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE, StopRequest
from autoscale_ds.training.trainer import Trainer
from autoscale_ds.training.workbench import Workbench

log = logging.getLogger(__name__)
# How often to look again while other workers hold every run that is left: one of them may die.
WAIT_SECONDS = 2.0


class Worker:
    """Works on a sweep until nothing is left to do.

    Parameters
    ----------
    sweep : Path
        Sweep folder.
    ranks : Ranks
        All ranks of a launch train one run together; workers are started as separate launches.
    device : torch.device
        Where this rank trains.
    lease_seconds : float
        See ``Claims``.
    on_record : callable
        Given (run, metrics record) on rank 0.
    corpus : Path, optional
        Where the corpus lies, if not where the plan says.
    """

    def __init__(
        self,
        sweep: Path,
        ranks: Ranks,
        device: torch.device,
        lease_seconds: float = 120.0,
        on_record: Callable[[PlannedRun, Mapping[str, Any]], None] = lambda run, record: None,
        corpus: Path | None = None,
    ) -> None:
        self._sweep = sweep
        self._ranks = ranks
        self._device = device
        self._on_record = on_record
        self._plan = SweepPlan.read(sweep)
        self._claims = Claims(sweep, lease_seconds)
        self._stop = StopRequest()
        reuse = zero_stage(self._plan.deepspeed) < 3  # ZeRO-3 partitions the parameters of the module
        self._workbench = Workbench(device, reuse)
        self._corpus = str(corpus or self._plan.config["data"]["corpus"])

    def work(self) -> int:
        """Train runs until none is left; return 0, or the requeue code when told to stop. Collective."""
        self._stop.install()
        on_rank_zero(lambda: self._plan.check_corpus(self._sweep, self._workbench.corpus(self._corpus)))
        while True:
            run, claim = self._next_run()
            if run is None:
                return REQUEUE_EXIT_CODE if self._stop.requested else 0
            code = self._train_claimed(run, claim)
            if code:
                return code

    # -- choosing -----------------------------------------------------------------------------------------------

    def _next_run(self) -> tuple[PlannedRun | None, Claim | None]:
        """Return a run to train and, on rank 0, the claim on it; waits while others hold all that is left."""
        claims: list[Claim] = []

        def choose() -> str | None:
            while not self._stop.requested:
                self._plan = SweepPlan.read(self._sweep)  # runs may have been added
                claim, others = self._claim_one()
                if claim is not None:
                    claims.append(claim)
                    return claim.run
                if not others:
                    break
                time.sleep(WAIT_SECONDS)
            return None

        name = on_rank_zero(choose)
        if name is None:
            return None, None
        self._plan = SweepPlan.read(self._sweep)
        return next(run for run in self._plan.runs if run.folder == name), claims[0] if claims else None

    def _claim_one(self) -> tuple[Claim | None, bool]:
        """Return a claim, or whether another worker still holds a run that is not finished."""
        others = False
        for run in self._plan.runs:
            if self._settled(run):
                continue
            claim = self._claims.take(run.folder)
            if claim is not None and self._settled(run):  # another worker finished it between the check and the claim
                claim.release()
            elif claim is not None:
                return claim, False
            else:
                others |= self._claims.owner(run.folder) is not None
        return None, others

    def _settled(self, run: PlannedRun) -> bool:
        folder = run_folder(self._sweep, run)
        return (folder / RESULT_FILE).exists() or (folder / FAILED_FILE).exists()

    # -- training -----------------------------------------------------------------------------------------------

    def _train_claimed(self, planned: PlannedRun, claim: Claim | None) -> int:
        """Train one run and release its claim, whatever happens; return an exit code to end with, or 0."""
        heart = Heart(claim, self._claims.lease_seconds / 4, self._stop) if claim is not None else None
        try:
            return self._train(planned)
        except AutoScaleError as error:
            reason = str(error)
            on_rank_zero(lambda: self._fail(planned, reason))
            return 0
        finally:
            if heart is not None:
                heart.stop()
            if claim is not None:
                claim.release()

    def _train(self, planned: PlannedRun) -> int:
        run = self._plan.run_config(planned, self._sweep)
        run = replace(run, data=replace(run.data, corpus=self._corpus))
        ds_config = resolve(self._plan.deepspeed, run, self._ranks.world_size)
        trainer = Trainer(
            run,
            ds_config,
            self._ranks,
            self._device,
            lambda r: self._on_record(planned, r),
            self._workbench,
            self._stop,
        )
        try:
            code = trainer.fit()
        finally:
            trainer.close()
        if code == 0:
            on_rank_zero(lambda: self._finish(planned, trainer))
        return code

    def _finish(self, planned: PlannedRun, trainer: Trainer) -> None:
        """Write the result and remove the checkpoints, which only a restart needs."""
        parts = trainer.parts
        figures = {
            "parameters": parts.model_spec.num_parameters,
            "flops_per_token": parts.model_spec.flops_per_token(parts.run.data.sequence_length),
            "corpus": parts.corpus.identity.digest,
            "unique": unique_tokens(parts.stream_spec, parts.run.data.sequence_length),
        }
        write_result(self._sweep, planned, parts.run, figures)
        shutil.rmtree(trainer.folder.checkpoints, ignore_errors=True)

    def _fail(self, planned: PlannedRun, reason: str) -> None:
        log.warning("run %s failed and is left out: %s", planned.run, reason)
        folder = run_folder(self._sweep, planned)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILED_FILE, {"run": planned.run, "reason": reason})


class Heart:
    """Renews a claim from a thread of its own; asks the worker to stop when the claim is lost."""

    def __init__(self, claim: Claim, every_seconds: float, stop: StopRequest) -> None:
        self._claim = claim
        self._every = every_seconds
        self._worker = stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            try:
                owned = self._claim.renew()
            except OSError as error:
                log.warning("cannot renew the claim on %s: %s", self._claim.run, error)
                continue
            if not owned:
                log.warning("another worker took %s over, this one was silent for too long", self._claim.run)
                self._worker.requested = True
                return

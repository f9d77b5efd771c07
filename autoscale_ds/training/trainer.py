"""The training loop, in the order things happen: data, forward, backward, step, log, swap, evaluate, save."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist

from autoscale_ds.controllers import Adviser, Budget
from autoscale_ds.errors import CheckpointError, TrainingError
from autoscale_ds.evaluation.base import Evaluation, Site
from autoscale_ds.evaluation.registry import check_needs, evaluations
from autoscale_ds.objectives import Batch, normalised_weights, objective
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.dataset import MixtureStream, StepBatch, open_windows
from autoscale_ds.stream.journal import Event
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.training import setup
from autoscale_ds.training.beginning import Beginning
from autoscale_ds.training.checkpoints import COOLED, Checkpoints, checkpoint_name, list_checkpoints
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.cooldown import last_constant_step
from autoscale_ds.training.distributed import Ranks, any_rank, on_rank_zero
from autoscale_ds.training.engine import Job, build_engine
from autoscale_ds.training.faults import FaultGuard, RollBack
from autoscale_ds.training.hot_swap import HotSwap
from autoscale_ds.training.losses import LossTally, StepReport
from autoscale_ds.training.metrics import memory_gigabytes, peak_flops, read_metrics
from autoscale_ds.training.records import RunRecords
from autoscale_ds.training.run_folder import RunFolder
from autoscale_ds.training.run_state import RunState
from autoscale_ds.training.schedule import learning_rate
from autoscale_ds.training.second_stage import begin_from
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE, StopRequest
from autoscale_ds.training.watchdog import Watchdog
from autoscale_ds.training.workbench import Workbench

log = logging.getLogger(__name__)
_AFTER_A_FAILED_SAVE = "make room and start it again: it continues from the checkpoint before"
_MEANWHILE = "a crash now would continue from the checkpoint before; make room"


class _Verdict:
    """What is decided when the losses of a step are known, before its update."""

    report: StepReport
    fault: Literal["skip"] | RollBack | None


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
    step : int
        Optimizer steps done.
    stream : MixtureStream
        The batches still to come.
    """

    # Step-dependent state, rebuilt by _restore().
    step: int
    stream: MixtureStream
    budget: Budget
    _events: list[Event]
    _swap: HotSwap
    _watchdog: Watchdog
    _tally: LossTally
    _records: RunRecords

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
        self.run = run
        self.device = device
        self._on_record = on_record
        self.ranks = replace(ranks, parallel=run.parallel)
        self._stop = stop or StopRequest()
        self._accept_new_text = accept_new_text
        self._ds_config = ds_config
        self._beginning: Beginning | None = None  # rank 0 only
        self.folder = RunFolder(run.run)
        on_rank_zero(lambda: self.folder.take(run))
        try:
            self._build(ds_config, workbench or Workbench(device))
        except BaseException:
            self.folder.release()
            raise

    def _build(self, ds_config: Mapping[str, Any], workbench: Workbench) -> None:
        """Build what does not depend on the step: data, model, engine."""
        run, ranks = self.run, self.ranks
        self.corpus = workbench.corpus(run.data.corpus)
        had = on_rank_zero(self.folder.domains_so_far)
        on_rank_zero(lambda: run.objective.check_domains([*self.corpus.domains, *had]))
        self.stream_spec = setup.stream_spec(run, self.corpus, had)
        self.model_spec = run.model.build(run.data.sequence_length, self.corpus.manifest.tokenizer.vocabulary_size)
        for line in setup.describe(run, ds_config, self.model_spec, ranks):
            log.info(line)
        on_rank_zero(self._prepare_beginning)
        began = on_rank_zero(lambda: bool(list_checkpoints(self.folder.checkpoints)))
        # What a run starts from is read once; its checkpoints hold what counts then.
        built = replace(run, model=replace(run.model, initial_weights=None)) if began else run
        job = Job(built, ds_config, ranks, self.model_spec, objective(run.objective.kind))
        self.engine = build_engine(job, workbench)
        self.evaluations = evaluations(run, self.corpus)
        for evaluation in self.evaluations:
            check_needs(evaluation, self.engine)
        keeping = run.checkpoints
        self.checkpoints = Checkpoints(self.folder.checkpoints, ranks, keeping.keep, keeping.verify)
        self._faults = FaultGuard(self.folder.path, run.faults, ranks)
        self._flops_per_token = self.model_spec.flops_per_token(run.data.sequence_length)
        self._peak_flops = peak_flops(self.device, run.logging.peak_flops)

    def fit(self) -> int:
        """Train to the end of the budget and return the exit code: 0, or the requeue code when told to stop."""
        self._stop.install()
        until: int | None = on_rank_zero(self._put_off_cooldown)
        while True:
            state = self._restore(until)
            try:
                self._begin(state)
                if any_rank(self._stop.requested, self.device):
                    log.warning("stopped before the first step; nothing is new, the same command continues")
                    return REQUEUE_EXIT_CODE
                code = self._loop()
                dist.barrier()  # a rank that exits early breaks the collectives of those still running
                return code
            except RollBack as roll_back:
                until = roll_back.until
                log.warning("returning to a checkpoint%s", "" if until is None else f" of step {until:,} or before")
            except TrainingError:
                if self._faults.guilty is not None:
                    self.checkpoints.set_aside(self._faults.guilty)
                raise
            finally:
                self._watchdog.stop()
                self._records.close()
                self.stream.close()

    def close(self) -> None:
        """Give up the run folder and the engine, so that this process can begin another run."""
        self.engine.close()
        self.folder.release()

    def _loop(self) -> int:
        """Train from the restored step on."""
        run = self.run
        if not self._evaluate_if_due():
            return self._leave()
        began = time.perf_counter()
        for batch in self.stream:
            # data was read ahead; forward, backward, update
            report = self._train_step(batch)
            self.step = batch.plan.step + 1
            self._watchdog.beat(self.step, "reading data")
            self._watchdog.start()  # after the first step, which may compile for minutes

            # log
            self._records.add_step(batch.plan, report, time.perf_counter() - began)
            began = time.perf_counter()
            if self.step % run.logging.every_steps == 0 or self.step == self.budget.total_steps:
                self._log_interval()

            # swap
            if report.swap_due:
                for event in self._swap.take_up():
                    self._log_swap(event)

            # stop, evaluate, save: not counted as training time
            paused = time.perf_counter()
            if report.stop or not self._evaluate_if_due():
                return self._leave()
            every = run.checkpoints.every_steps
            if (every is not None and self.step % every == 0) or self.step == self._cooldown_step():
                self._save()
            began += time.perf_counter() - paused
        return self._finish()

    def _train_step(self, batch: StepBatch) -> StepReport:
        """Do one optimizer step, or leave out its update when the loss is bad."""
        engine, step = self.engine, batch.plan.step
        if self.run.model.dropout:
            torch.manual_seed(hash((self.run.seed, step, self.ranks.rank)))
        self._watchdog.beat(step, "in forward and backward")
        engine.set_learning_rate(self._learning_rate(step))
        tokens = batch.tokens.to(self.device, non_blocking=True).split(engine.micro_batch)
        domains = batch.domains.to(self.device, non_blocking=True).split(engine.micro_batch)
        verdict = _Verdict()

        def decide() -> bool:
            self._watchdog.beat(step, "adding up losses, updating")
            verdict.report = self._tally.reduce(self._stop.requested, self._swap.waiting())
            verdict.fault = self._faults.judge(step, verdict.report)
            return verdict.fault is None

        micro_batches = [Batch(*micro) for micro in zip(tokens, domains, strict=True)]
        engine.train_step(micro_batches, self._tally.add, decide, self._domain_weights())
        if isinstance(verdict.fault, RollBack):
            raise verdict.fault
        if verdict.fault is None:
            self._faults.judge_update(step, engine.updated)
        self._swap.observe(step, verdict.report)
        return verdict.report

    def _loss_weights(self) -> dict[str, float] | None:
        """Return the scaled loss weight of every domain in the step at hand; None is 1 for all."""
        weights = self.run.objective.domain_weights
        return None if weights is None else normalised_weights(weights, self.stream.weights())

    def _domain_weights(self) -> torch.Tensor | None:
        """Return the same in the order of the planner's domains, (domains,)."""
        scaled = self._loss_weights()
        if scaled is None:
            return None
        return torch.tensor([scaled[name] for name in self.stream.planner.names], device=self.device)

    def _learning_rate(self, step: int) -> float:
        run, budget = self.run, self.budget
        # One step of warm-up already has a rate: the first update would otherwise do nothing.
        return learning_rate(budget.tokens_at(step + 1), budget.tokens, run.optimizer.learning_rate, run.schedule)

    # -- beginning and end --------------------------------------------------------------------------------------

    def _prepare_beginning(self) -> None:
        self._beginning = Beginning(
            self.run, self.folder, self.corpus, self.model_spec, self.stream_spec, self._accept_new_text
        )

    def _restore(self, until: int | None = None) -> RunState | None:
        """Build the step-dependent state, from the newest checkpoint (``until`` a step) or for step 0."""
        run, ranks, beginning = self.run, self.ranks, self._beginning
        checkpoint = self.checkpoints.load(self.engine, self.device, until)
        begins_elsewhere = checkpoint is None and run.start_from is not None
        source = begin_from(self.engine, self.checkpoints, run, self.model_spec) if begins_elsewhere else None
        state = checkpoint.state if checkpoint else None
        if checkpoint:
            log.info("resuming from %s", checkpoint.folder)
        lines = on_rank_zero(lambda: beginning.open_journal(state, source) if beginning is not None else [])
        events = [Event.from_json(line) for line in lines]
        planner = MixturePlanner(self.stream_spec, events)
        if state is not None:
            setup.check_journal_copy(events, state.journal)
            planner.restore(state.stream)
        self.step = planner.next_step
        self._events = events
        clock = Clock.of(events, run.data.sequence_length, run.data.global_batch)
        self.budget = run.budget_on(clock)
        self.stream = MixtureStream(
            planner,
            open_windows(self.corpus, planner.names, run.data.sequence_length),
            until_step=self.budget.total_steps,
            rank=ranks.data_parallel_rank,
            world_size=ranks.data_parallel_size,
            workers=run.data.workers,
            prefetch=run.data.prefetch,
            pin_memory=self.device.type == "cuda",
        )
        journal = beginning.journal if beginning is not None else None
        adviser = self._adviser(beginning, planner) if beginning is not None else None
        if adviser is not None and state is not None:
            adviser.restore(state.decided_step, state.controller)
        self._swap = HotSwap(self.folder.inbox, journal, planner, clock.tokens, run.mixture.poll_seconds, adviser)
        self._faults.bad_in_a_row = 0
        self._watchdog = Watchdog(self.folder.beats, ranks, run.faults.stall_seconds)
        self._tally = LossTally(len(planner.names), self.device)
        self._records = RunRecords(
            self.budget,
            run,
            self.folder,
            ranks,
            planner.names,
            self.step,
            state is not None,
            state.interval if state else None,
            [evaluation.name for evaluation in self.evaluations],
            self._on_record,
        )
        return state

    def _begin(self, state: RunState | None) -> None:
        """Take up what waits for this start, and say what the run is going to do."""
        budget, beginning = self.budget, self._beginning
        for event in self._swap.take_up_at_start(
            beginning is not None and beginning.budget_changed(budget),
            lambda: beginning.finish_journal() if beginning is not None else None,
        ):
            self._log_swap(event)
        on_rank_zero(lambda: beginning.record(self._ds_config, self.step) if beginning is not None else None)
        self._on_record({"kind": "start", "step": self.step, "total_steps": budget.total_steps})  # shown, not kept
        log.info("budget     %s steps = %s tokens", f"{budget.total_steps:,}", f"{budget.tokens:,}")
        self._say_domains()
        if self.step >= budget.total_steps:
            log.warning(
                "step %s of %s is done: nothing is left to train; give a larger budget_tokens to go on",
                f"{self.step:,}",
                f"{budget.total_steps:,}",
            )
        if state is None and (self.run.faults.policy == "rollback" or self.run.start_from):
            self._save(needed=True)  # so that there is something to return to, and the other run is not needed again

    def _put_off_cooldown(self) -> int | None:
        """Return the step to go back to when a larger budget puts off a cooldown that was under way, on rank 0."""
        step = self._beginning.step_before_cooldown() if self._beginning is not None else None
        if step is not None:
            self.checkpoints.set_aside(step, COOLED)
        return step

    def _adviser(self, beginning: Beginning, planner: MixturePlanner) -> Adviser:
        return Adviser(
            beginning.controller(),  # a roll back starts again from the initial state
            self.budget,
            planner,
            beginning.journal,
            validation=lambda: read_metrics(self.folder.metrics, "validation"),
            record=self._record,
            dry_run=self.run.mixture.dry_run,
        )

    def _save(self, needed: bool = False) -> None:
        """Save; one that fails for want of room, say, ends the run only when it is needed.

        Never after a step whose loss was not finite: the weights may be bad, and would push out good ones.
        """
        if self._weights_are_suspect():
            log.warning("step %s is not saved: its loss was not finite", f"{self.step:,}")
            return
        self._watchdog.beat(self.step, "saving")
        problem = self.checkpoints.save(
            self.engine,
            RunState(
                stream=self.stream.state(),
                journal=[json.loads(event.to_json()) for event in self._events],
                tokens=self.budget.tokens_at(self.step),
                interval=self._records.interval.state(),
                **(self._swap.adviser.state() if self._swap.adviser else {}),
            ),
            self._steps_to_keep(),
        )
        if problem is not None and needed:
            raise CheckpointError(f"step {self.step:,} could not be saved: {problem}; {_AFTER_A_FAILED_SAVE}")
        if problem is not None:
            log.error("step %s could not be saved: %s; training goes on, %s", f"{self.step:,}", problem, _MEANWHILE)

    def _weights_are_suspect(self) -> bool:
        """Return whether the last losses were not finite: those of training, unless a validation since was."""
        if self._records.unsound_step == self.step:
            return True
        return self._faults.bad_in_a_row > 0 and self._records.sound_step != self.step

    def _steps_to_keep(self) -> list[int]:
        """Return steps whose checkpoints outlive the newest ones."""
        before_cooldown = self._cooldown_step()
        return [self._records.sound_step, *([] if before_cooldown is None else [before_cooldown])]

    def _cooldown_step(self) -> int | None:
        """Return the last step of a constant learning rate, when its checkpoint is to be kept."""
        if not self.run.checkpoints.keep_before_cooldown:
            return None
        return last_constant_step(self.run, self.budget)

    def _leave(self) -> int:
        """Save and end early: told to stop."""
        self._save(needed=True)
        saved = "the last checkpoint counts" if self._weights_are_suspect() else "saved"
        log.warning("stopped at step %s, %s; the same command continues", f"{self.step:,}", saved)
        return REQUEUE_EXIT_CODE

    def _finish(self) -> int:
        """Evaluate and save at the end of the budget, or of the data."""
        if self.stream.end:
            log.warning("the data ended the run: %s", self.stream.end)
        newest = list_checkpoints(self.folder.checkpoints)[:1]
        if not self._evaluate_if_due(force=True):
            return self._leave()
        if not any_rank(bool(newest) and newest[0].name == checkpoint_name(self.step), self.device):
            self._save(needed=True)
        self.checkpoints.prune(self._steps_to_keep())  # the last validation may have shown that an older one can go
        return 0

    # -- evaluations and records --------------------------------------------------------------------------------

    def _evaluate_if_due(self, force: bool = False) -> bool:
        """Run the evaluations that are due and not yet recorded at this step; return False when interrupted."""
        due = [each for each in self.evaluations if force or each.due(self.step)]
        return all(self._evaluate(each) for each in due if (each.name, self.step) not in self._records.evaluated)

    def _evaluate(self, evaluation: Evaluation) -> bool:
        ranks = self.ranks
        site = Site(self.engine, self.device, ranks.data_parallel_rank, ranks.data_parallel_size, self._interrupted)
        figures = evaluation.run(site)
        if figures is None:
            return False
        self._records.evaluated.add((evaluation.name, self.step))
        self._record(evaluation.name, figures)
        return True

    def _interrupted(self) -> bool:
        self._watchdog.beat(self.step, "evaluating")
        return any_rank(self._stop.requested, self.device)

    def _log_interval(self) -> None:
        interval, run = self._records.take_interval(), self.run
        rate = interval.steps * run.tokens_per_step / interval.seconds
        peak, loss_weights = self._peak_flops, self._loss_weights()
        if loss_weights is not None and not any(loss_weights.values()):
            log.warning("step %s: every domain that is sampled has loss weight 0; nothing is learned", f"{self.step:,}")
        self._record(
            "train",
            {
                **interval.figures(),
                "weights": self.stream.weights(),
                **({"loss_weights": loss_weights} if loss_weights is not None else {}),
                "gradient_norm": self.engine.gradient_norm,
                "learning_rate": self._learning_rate(self.step - 1),
                "tokens_per_second": rate,
                "mfu": self._flops_per_token * rate / (peak * self.ranks.world_size) if peak else None,
                "step_seconds": interval.seconds / interval.steps,
                "memory_gigabytes": memory_gigabytes(self.device),
            },
        )

    def _log_swap(self, event: Event) -> None:
        self._events.append(event)
        self._record("swap", json.loads(event.to_json()))
        log.info("weights version %d from step %d: %s", event.version, event.effective_step, event.reason or "-")
        self._say_domains(event)

    def _say_domains(self, event: Event | None = None) -> None:
        weights = (event or self._events[-1]).weights
        for line in setup.describe_domains(self.run, self.budget, self.stream.planner, weights):
            log.info(line)

    def _record(self, kind: str, figures: Mapping[str, Any]) -> None:
        self._records.write(kind, self.step, figures)

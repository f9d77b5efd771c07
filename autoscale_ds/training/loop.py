"""The training loop, in the order things happen: data, forward, backward, step, log, swap, evaluate, save."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from autoscale_ds.config import to_dict
from autoscale_ds.controllers import Adviser
from autoscale_ds.evaluation.base import Evaluation, Site
from autoscale_ds.objectives import Batch, normalised_weights
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.dataset import MixtureStream, StepBatch, open_windows
from autoscale_ds.stream.journal import START, Event
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.training import setup
from autoscale_ds.training.beginning import Beginning
from autoscale_ds.training.checkpoints import checkpoint_name, list_checkpoints
from autoscale_ds.training.distributed import any_rank, on_rank_zero
from autoscale_ds.training.faults import RollBack
from autoscale_ds.training.hot_swap import HotSwap
from autoscale_ds.training.keeping import Keeping
from autoscale_ds.training.loggers.background import BackgroundLogger
from autoscale_ds.training.loggers.base import LoggedRun, git_commit
from autoscale_ds.training.loggers.registry import build_loggers
from autoscale_ds.training.losses import LossTally, StepReport
from autoscale_ds.training.metrics import memory_gigabytes, peak_flops
from autoscale_ds.training.parts import Parts
from autoscale_ds.training.records import RunRecords
from autoscale_ds.training.run_state import RunState
from autoscale_ds.training.schedule import learning_rate
from autoscale_ds.training.second_stage import Source, begin_from
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE, StopRequest
from autoscale_ds.training.watchdog import Watchdog

log = logging.getLogger(__name__)


class _Verdict:
    """What is decided when the losses of a step are known, before its update."""

    report: StepReport
    fault: Literal["skip"] | RollBack | None


class TrainingLoop:
    """The steps from a checkpoint, or from step 0, to the end of a run, an interruption or a roll back.

    Making one restores what depends on the step. Collective.

    Parameters
    ----------
    parts : Parts
        What does not depend on the step.
    stop : StopRequest
        Asked after every step.
    on_record : callable
        Given every metrics record on rank 0.
    until : int, optional
        Go on from the newest checkpoint of at most this step; None is the newest.

    Attributes
    ----------
    step : int
        Optimizer steps done.
    stream : MixtureStream
        The batches still to come.
    budget : Budget
        Counts the tokens of steps.
    """

    def __init__(
        self,
        parts: Parts,
        stop: StopRequest,
        on_record: Callable[[Mapping[str, Any]], None],
        until: int | None = None,
    ) -> None:
        self._parts = parts
        self._stop = stop
        self._on_record = on_record
        self.run, self.device, self.ranks = parts.run, parts.device, parts.ranks
        self.engine, self.checkpoints, self._faults = parts.engine, parts.checkpoints, parts.faults
        self._peak_flops = peak_flops(self.device, self.run.logging.peak_flops)

        run, ranks, beginning = parts.run, parts.ranks, parts.beginning
        state, source = self._load(until)
        lines = on_rank_zero(lambda: beginning.open_journal(state, source) if beginning is not None else [])
        events = [Event.from_json(line) for line in lines]
        planner = MixturePlanner(parts.stream_spec, events)
        if state is not None:
            setup.check_journal_copy(events, state.journal)
            planner.restore(state.stream)
        self.step = self._first_step = planner.next_step
        self._events = events
        clock = Clock.of(events, run.data.sequence_length, run.data.global_batch)
        self.budget = run.budget_on(clock)
        self.stream = self._open_stream(planner)
        journal = beginning.journal if beginning is not None else None
        adviser = self._adviser(beginning, planner) if beginning is not None else None
        if adviser is not None and state is not None:
            adviser.restore(state.decided_step, state.controller)
        self._swap = HotSwap(parts.folder.inbox, journal, planner, clock.tokens, run.mixture.poll_seconds, adviser)
        self._faults.begin_again()
        self._watchdog = Watchdog(parts.folder.beats, ranks, run.faults.stall_seconds)
        self._tally = LossTally(len(planner.names), self.device)
        self._records = RunRecords(
            self.budget,
            run,
            parts.folder,
            ranks,
            planner.names,
            self.step,
            state is not None,
            state.interval if state else None,
            [evaluation.name for evaluation in parts.evaluations],
            on_record,
            self._loggers(),
        )
        self._keeping = Keeping(parts, self.budget, self._records)
        self._resumes = state is not None

    def _load(self, until: int | None) -> tuple[RunState | None, Source | None]:
        """Load the weights to go on with; return the state of the run's checkpoint, or the other run's on rank 0."""
        checkpoint = self.checkpoints.load(self.engine, self.device, until)
        if checkpoint is not None:
            log.info("resuming from %s", checkpoint.folder)
            return checkpoint.state, None
        if self.run.start_from is None:
            return None, None
        parts = self._parts
        return None, begin_from(self.engine, self.checkpoints, self.run, parts.model_spec, parts.corpus.identity)

    def _open_stream(self, planner: MixturePlanner) -> MixtureStream:
        data, ranks = self.run.data, self.ranks
        return MixtureStream(
            planner,
            open_windows(self._parts.corpus, planner.names, data.sequence_length),
            until_step=self.budget.total_steps,
            rank=ranks.data_parallel_rank,
            world_size=ranks.data_parallel_size,
            workers=data.workers,
            prefetch=data.prefetch,
            pin_memory=self.device.type == "cuda",
        )

    def _loggers(self) -> list[BackgroundLogger]:
        """Return the metrics loggers that the run asks for; none on ranks other than 0."""
        names = self.run.logging.loggers if self.ranks.rank == 0 else ()
        if not names:
            return []
        folder, config = self._parts.folder, {**to_dict(self.run), "deepspeed": dict(self._parts.ds_config)}
        return build_loggers(names, LoggedRun(folder.path, config, git_commit()), folder.logger)

    def _adviser(self, beginning: Beginning, planner: MixturePlanner) -> Adviser:
        return Adviser(
            beginning.controller(),  # a roll back starts again from the initial state
            self.budget,
            planner,
            beginning.journal,
            validation=lambda: self._records.validations(),
            record=self._record,
            dry_run=self.run.mixture.dry_run,
        )

    def begin(self, accepted: Callable[[], None] = lambda: None) -> None:
        """Take up what waits for this start, and say what the run is going to do. Collective.

        Parameters
        ----------
        accepted : callable
            Called when nothing can be refused any more, before the configuration is recorded.
        """
        budget, beginning = self.budget, self._parts.beginning
        events = self._swap.take_up_at_start(
            beginning is not None and beginning.budget_changed(budget),
            lambda: beginning.finish_journal() if beginning is not None else None,
        )
        self._records.open()
        accepted()
        on_rank_zero(lambda: beginning.write_journal() if beginning is not None else None)
        self._swap.settle()
        for event in events:
            self._log_swap(event)
        on_rank_zero(lambda: beginning.record(self._parts.ds_config, self.step) if beginning is not None else None)
        self._on_record({"kind": "start", "step": self.step, "total_steps": budget.total_steps})  # shown, not kept
        log.info("budget     %s steps = %s tokens", f"{budget.total_steps:,}", f"{budget.tokens:,}")
        self._say_domains()
        if self.step > budget.total_steps:
            log.warning(
                "step %s is done, which is more than the budget_tokens of %s steps: nothing is left to train",
                f"{self.step:,}",
                f"{budget.total_steps:,}",
            )
        elif self.step == budget.total_steps:
            log.warning(
                "step %s of %s is done: nothing is left to train; give a larger budget_tokens to go on",
                f"{self.step:,}",
                f"{budget.total_steps:,}",
            )
        if not self._resumes and (self.run.faults.policy == "rollback" or self.run.start_from):
            self._save(needed=True)  # so that there is something to return to, and the other run is not needed again

    def train(self) -> int:
        """Train to the end of the budget, or until told to stop; return the exit code. Collective.

        Raises
        ------
        RollBack
            When the run is to go on from an earlier checkpoint.
        """
        run = self.run
        if not self._evaluate_if_due():
            return self._leave()
        began = time.perf_counter()
        for batch in self.stream:
            # data was read ahead; forward, backward, update
            report = self.train_step(batch)
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
            if (every is not None and self.step % every == 0) or self.step == self._keeping.cooldown_step():
                self._save()
            began += time.perf_counter() - paused
        return self._finish()

    def train_step(self, batch: StepBatch) -> StepReport:
        """Do one optimizer step, or leave out its update when the loss is bad. Collective."""
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

    def close(self) -> None:
        """Stop reading ahead and watching; close the files."""
        self._watchdog.stop()
        self._records.close()
        self.stream.close()

    # -- saving and ending --------------------------------------------------------------------------------------

    def _save(self, needed: bool = False) -> None:
        self._watchdog.beat(self.step, "saving")
        self._keeping.save(self.step, self._state, needed)

    def _state(self) -> RunState:
        return RunState(
            stream=self.stream.state(),
            journal=[json.loads(event.to_json()) for event in self._events],
            tokens=self.budget.tokens_at(self.step),
            interval=self._records.interval.state(),
            **(self._swap.adviser.state() if self._swap.adviser else {}),
        )

    def _leave(self) -> int:
        """Save and end early: told to stop."""
        self._save(needed=True)
        saved = "the last checkpoint counts" if self._keeping.is_suspect(self.step) else "saved"
        log.warning("stopped at step %s, %s; the same command continues", f"{self.step:,}", saved)
        return REQUEUE_EXIT_CODE

    def _finish(self) -> int:
        """Evaluate and save at the end of the budget, or of the data."""
        if self.stream.end:
            log.warning("the data ended the run: %s", self.stream.end)
        newest = list_checkpoints(self._parts.folder.checkpoints)[:1]
        if not self._evaluate_if_due(force=True):
            return self._leave()
        if not any_rank(bool(newest) and newest[0].name == checkpoint_name(self.step), self.device):
            self._save(needed=True)
        if self.step > self._first_step:  # a start that trained nothing, by a mistaken budget perhaps, removes nothing
            self._keeping.prune()  # the last validation may have shown that an older one can go
        self._records.is_finished = True
        return 0

    # -- evaluations and records --------------------------------------------------------------------------------

    def _evaluate_if_due(self, force: bool = False) -> bool:
        """Run the evaluations that are due and not yet recorded at this step; return False when interrupted."""
        due = [each for each in self._parts.evaluations if force or each.due(self.step)]
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
        flops = self._parts.model_spec.flops_per_token(run.data.sequence_length) * rate
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
                "mfu": flops / (peak * self.ranks.world_size) if peak else None,
                "step_seconds": interval.seconds / interval.steps,
                "memory_gigabytes": memory_gigabytes(self.device),
            },
        )

    def _log_swap(self, event: Event) -> None:
        self._events.append(event)
        self._record("swap", json.loads(event.to_json()))
        # What somebody else changes in the data order is said even under --quiet; a controller's own, maybe at every
        # step, stand in the journal and follow from the configuration.
        level = logging.WARNING if event.proposal or event.source == START else logging.INFO
        reason = event.reason or f"proposed by {event.source}"
        log.log(level, "weights version %d from step %s: %s", event.version, f"{event.effective_step:,}", reason)
        self._say_domains(event)

    def _say_domains(self, event: Event | None = None) -> None:
        weights = (event or self._events[-1]).weights
        for line in setup.describe_domains(self.run, self.budget, self.stream.planner, weights):
            log.info(line)

    def _record(self, kind: str, figures: Mapping[str, Any]) -> None:
        self._records.write(kind, self.step, figures)

"""What a run writes about itself while it goes: metrics, samples, and what was added up since the last log line."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoscale_ds.controllers import Budget
from autoscale_ds.stream.planner import StepPlan
from autoscale_ds.stream.samples import SampleLog, drop_samples_from
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks, on_rank_zero
from autoscale_ds.training.loggers.background import BackgroundLogger
from autoscale_ds.training.losses import StepReport
from autoscale_ds.training.metrics import Interval, MetricsWriter, read_metrics
from autoscale_ds.training.run_folder import RunFolder


class RunRecords:
    """The files a run appends to, from some step on, once they are opened; until then they stay as they are.

    Parameters
    ----------
    budget : Budget
        Counts the tokens of steps.
    run : RunConfig
        Configuration of the run.
    folder : RunFolder
        Where the files lie.
    ranks : Ranks
        Place of this process; only some ranks write.
    names : sequence of str
        Domains, as plans and reports index them.
    step : int
        Steps done.
    resumes : bool
        Whether from a checkpoint. If not, records of step 0 are of a model that is no more, and are dropped too.
    interval : mapping or None
        State of the interval a checkpoint was saved in.
    evaluations : sequence of str
        Names of the run's evaluations, which are the kinds of their records.
    on_record : callable
        Given every metrics record, on rank 0.
    loggers : sequence of BackgroundLogger
        Given every metrics record too; used on rank 0 only.

    Attributes
    ----------
    interval : Interval
        Steps since the last log line.
    evaluated : set of (str, int)
        Names of evaluations and steps whose records are already written; empty before ``open``.
    sound_step : int
        Weights up to this step are known to give a finite loss: the last step at which the validation loss was finite;
        that of the last training step in a run that has no validation.
    unsound_step : int or None
        The last step at which the validation loss was not finite.
    is_finished : bool
        Whether the run has reached its end; set by the training loop, for loggers that show it.
    """

    def __init__(
        self,
        budget: Budget,
        run: RunConfig,
        folder: RunFolder,
        ranks: Ranks,
        names: Sequence[str],
        step: int,
        resumes: bool,
        interval: Mapping[str, Any] | None,
        evaluations: Sequence[str],
        on_record: Callable[[Mapping[str, Any]], None],
        loggers: Sequence[BackgroundLogger] = (),
    ) -> None:
        self._names = names
        self._budget = budget
        self._on_record = on_record
        self._loggers = loggers
        self._folder, self._evaluations = folder, evaluations
        self._step, self._resumes = step, resumes
        self._board = folder.path / "tensorboard" if run.logging.tensorboard else None
        self._writes_metrics = ranks.rank == 0
        self.interval = Interval(names, interval)
        self._new_samples = functools.partial(
            SampleLog, folder.samples, ranks.data_parallel_rank, names, run.data.log_samples and ranks.leads_slice
        )
        self._samples: SampleLog | None = None
        self._metrics: MetricsWriter | None = None
        self._early: list[dict[str, Any]] = []
        self._validates = run.evaluation.every_steps is not None
        self.unsound_step: int | None = None
        self.sound_step = 0
        self.is_finished = False
        self.evaluated: set[tuple[str, int]] = set()

    def open(self) -> None:
        """Drop what was written of later steps, and begin to write. Collective.

        Raises
        ------
        ReportError, StreamError
            When a file is damaged; then none is changed.
        """
        folder = self._folder
        on_rank_zero(lambda: read_metrics(folder.metrics) if folder.metrics.exists() else None)
        on_rank_zero(lambda: drop_samples_from(folder.samples, self._step))
        self._samples = self._new_samples()
        if self._writes_metrics:
            last = self._step if self._resumes else -1
            self._metrics = MetricsWriter(folder.metrics, last, self._board, self._loggers)
            for record in self._early:
                self._write(self._metrics, record)
        self.sound_step, self.evaluated = on_rank_zero(self._known)

    def _known(self) -> tuple[int, set[tuple[str, int]]]:
        """Return the last step at which a validation loss was finite, and the evaluations that are written."""
        records = read_metrics(self._folder.metrics)
        sound = (r["step"] for r in records if r["kind"] == "validation" and r["loss"] is not None)
        return max(sound, default=0), {(r["kind"], r["step"]) for r in records if r["kind"] in self._evaluations}

    def add_step(self, plan: StepPlan, report: StepReport, seconds: float) -> None:
        """Add a step that was done to the samples and to the interval."""
        if math.isfinite(report.loss) and not self._validates:
            self.sound_step = plan.step
        self.interval.add(report, seconds)
        assert self._samples is not None, "a step is done before the files are open"
        self._samples.write(plan)

    def take_interval(self) -> Interval:
        """Return the interval for its log line, and begin another."""
        taken, self.interval = self.interval, Interval(self._names)
        return taken

    def validations(self) -> list[dict[str, Any]]:
        """Return the validation records of the steps that count, with the ``target_loss`` of their step.

        Before ``open``, records of other steps may still be in the file.
        """
        if not self._folder.metrics.exists():
            return []
        targets = {r["step"]: r["target_loss"] for r in read_metrics(self._folder.metrics, "targets")}
        records = read_metrics(self._folder.metrics, "validation")
        records = [{**record, "target_loss": targets.get(record["step"], {})} for record in records]
        last = self._step if self._resumes else -1
        return records if self._samples is not None else [record for record in records if record["step"] <= last]

    def write(self, kind: str, step: int, figures: Mapping[str, Any]) -> None:
        """Write one metrics record, when the files are open; does nothing on ranks other than 0."""
        if kind == "validation":
            if math.isfinite(figures["loss"]):
                self.sound_step = step
            else:
                self.unsound_step = step
        record = {"kind": kind, "step": step, "tokens": self._budget.tokens_at(step), **figures}
        if self._metrics is not None:
            self._write(self._metrics, record)
        elif self._writes_metrics:
            self._early.append(record)

    def _write(self, metrics: MetricsWriter, record: dict[str, Any]) -> None:
        metrics.write(record)
        self._on_record(record)

    def close(self) -> None:
        """Close the files."""
        if self._samples is not None:
            self._samples.close()
        if self._metrics is not None:
            self._metrics.close(self.is_finished)

"""Detects steps whose loss or gradient is not finite, or above a limit, and whether data or weights are to blame."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Literal

from autoscale_ds.corpus.identity import few
from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.files import read_json, write_json
from autoscale_ds.training.config import FaultConfig
from autoscale_ds.training.distributed import Ranks, on_rank_zero
from autoscale_ds.training.losses import StepReport

log = logging.getLogger(__name__)
# One bad sequence spoils one step. When the next steps, of other data, are not finite either, the weights are bad.
_SUSPECT, _CERTAIN = 2, 3


class RollBack(Exception):
    """The policy is to return to a checkpoint.

    Attributes
    ----------
    until : int or None
        The newest step whose weights may be returned to; None is any.
    """

    def __init__(self, until: int | None = None) -> None:
        super().__init__(until)
        self.until = until


class FaultGuard:
    """Judges each step by the policy and remembers the steps left out.

    ``skipped_steps.json`` in the run folder lists them, so that a resumed or rolled-back run leaves out the same
    updates: which samples come when never changes, only what is learned from them.

    When step s and the one after it are both bad, the update before s is to blame: from it on, updates are left out.

    Attributes
    ----------
    bad_in_a_row : int
        Steps up to now whose loss was not finite; nothing should be saved while there are any.
    dropped_in_a_row : int
        Steps up to now of a finite loss whose gradient was not finite.
    guilty : int or None
        The update that made the weights bad, when the run ended for it: checkpoints after it are of no use.
    """

    def __init__(self, folder: Path, config: FaultConfig, ranks: Ranks) -> None:
        self._path = folder / "skipped_steps.json"
        self._config = config
        self._ranks = ranks
        self._skipped: set[int] = set(on_rank_zero(self._read))
        self.begin_again()
        self.guilty: int | None = None
        self._times_blamed = 0  # the weights, in place of the data
        if self._skipped and ranks.rank == 0:
            log.warning(self._in_words())

    def begin_again(self) -> None:
        """Forget the steps in a row, after a return to a checkpoint."""
        self.bad_in_a_row = self.dropped_in_a_row = 0

    @property
    def are_weights_suspect(self) -> bool:
        """Whether the last steps say so: a loss that is not finite, or gradients that are not at two steps in a row."""
        return self.bad_in_a_row > 0 or self.dropped_in_a_row >= _SUSPECT

    def _in_words(self) -> str:
        """Return which updates stay left out, and how many more may be."""
        steps, most = sorted(self._skipped), self._config.max_skips
        room = max(most - len(steps), 0)
        follows = "" if room else ", so the next fault ends the run"
        return (
            f"updates that this run leaves out: {len(steps)}, of the steps {few([str(step) for step in steps])}; "
            f"{room} of faults.max_skips={most} remain{follows}. {self._forget}"
        )

    @property
    def _forget(self) -> str:
        return f"To make those after the checkpoint again, with a lower rate for one, remove {self._path}"

    def judge(self, step: int, report: StepReport) -> Literal["skip"] | RollBack | None:
        """Return what to do with a step, the same on every rank; None is to go on.

        Either way its update is left out. A ``RollBack`` is to be raised when the step has ended.

        Raises
        ------
        TrainingError
            When the policy is to stop, too many steps were left out, or the weights are bad.
        """
        limit = math.inf if self._config.loss_limit is None else self._config.loss_limit
        is_finite = math.isfinite(report.loss)
        self.bad_in_a_row = 0 if is_finite else self.bad_in_a_row + 1
        known = step in self._skipped
        if known or not (is_finite and report.loss <= limit):
            fault = f"the loss of step {step} is {report.loss:g}, the limit is {limit:g}"
            if not known:
                self._leave_out(step, fault)
            guilty = self._guilty_update(step) if self.bad_in_a_row >= _SUSPECT else None
            if not known and self._config.policy == "rollback":
                return RollBack(until=guilty)
            return "skip"
        return None

    def judge_update(self, step: int, updated: bool) -> None:
        """Take in whether the update of a step that was found good was made; it is not when a gradient is not finite.

        Raises RollBack, or what ``judge`` raises.
        """
        self.dropped_in_a_row = 0 if updated else self.dropped_in_a_row + 1
        if updated or step in self._skipped:
            return
        self._leave_out(step, f"the gradient of step {step} is not finite, though its loss is")
        if self._config.policy == "rollback":
            raise RollBack

    def _leave_out(self, step: int, fault: str) -> None:
        """Remember a step whose update is not made."""
        again = f"look at its data with tools/replay_stream.py --steps {step}:{step + 1}"
        if self._times_blamed:
            again = f"the weights are bad, not the data ({self._times_blamed} times so far): lower the learning rate"
        if self._config.policy == "stop":
            raise TrainingError(f"{fault}; the last checkpoint is untouched; {again}")
        if len(self._skipped) >= self._config.max_skips:
            self.guilty = self._last_update(step) if self._times_blamed else None
            raise TrainingError(
                f"{fault}, after {len(self._skipped)} other steps (faults.max_skips); {again}. {self._forget}"
            )
        self._remember({step})
        log.warning("%s; its update is left out (faults.policy: %s)", fault, self._config.policy)

    def _guilty_update(self, step: int) -> int | None:
        """Return the update before several bad steps in a row, which is to blame: other data does not help.

        To be left out too, when the policy is to roll back. Raises TrainingError when nothing else is left to do.
        """
        first = step - self.bad_in_a_row + 1
        guilty = self._last_update(first)
        blamed = (
            f"the losses of steps {first} to {step} are not finite whatever their data: the weights are bad"
            f"{'' if guilty is None else f', probably since the update of step {guilty}'}; nothing was saved since"
        )
        room = len(self._skipped) < self._config.max_skips
        if self._config.policy == "rollback" and guilty is not None and room:
            self._times_blamed += 1
            self._remember({guilty})
            log.warning("%s; it is left out too", blamed)
            return guilty
        if self.bad_in_a_row >= _CERTAIN:
            self.guilty = guilty
            advice = "" if self._config.policy == "rollback" else ", or set faults.policy=rollback"
            raise TrainingError(
                f"{blamed}. Lower optimizer.learning_rate{advice}, and start again from the newest checkpoint"
            )
        return None

    def _last_update(self, step: int) -> int | None:
        """Return the last step before one whose update was made."""
        return next((earlier for earlier in range(step - 1, -1, -1) if earlier not in self._skipped), None)

    def _remember(self, steps: set[int]) -> None:
        self._skipped |= steps
        if self._ranks.rank == 0:
            write_json(self._path, sorted(self._skipped))

    def _read(self) -> list[int]:
        if not self._path.exists():
            return []
        advice = "write into it, as [3, 17], the steps whose warnings say that their update is left out"
        steps: list[int] = read_json(self._path, list, advice)
        wrong = next((step for step in steps if type(step) is not int or step < 0), None)
        if wrong is not None:
            raise ConfigError(f"{self._path} is damaged, it holds {wrong!r}, expected numbers of steps; {advice}")
        return steps

"""Which checkpoints a run saves and keeps: none of weights that may be bad, and those that a later start returns to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoscale_ds.controllers import Budget
from autoscale_ds.errors import CheckpointError
from autoscale_ds.training.cooldown import last_constant_step
from autoscale_ds.training.parts import Parts
from autoscale_ds.training.records import RunRecords
from autoscale_ds.training.run_state import RunState

log = logging.getLogger(__name__)
_AFTER_A_FAILED_SAVE = "make room and start it again: it continues from the checkpoint before"
_MEANWHILE = "a crash now would continue from the checkpoint before; make room"


class Keeping:
    """Saves checkpoints and chooses those that outlive the newest. Collective.

    Parameters
    ----------
    parts : Parts
        Engine, checkpoints and faults of the run.
    budget : Budget
        Counts the tokens of steps.
    records : RunRecords
        Knows the steps whose losses were finite.
    """

    def __init__(self, parts: Parts, budget: Budget, records: RunRecords) -> None:
        self._parts = parts
        self._budget = budget
        self._records = records

    def save(self, step: int, state: Callable[[], RunState], needed: bool) -> None:
        """Save; one that fails for want of room, say, ends the run only when it is needed.

        Never after a step whose loss was not finite, or two whose gradients were not: the weights may be bad, and would
        push out good ones.

        Parameters
        ----------
        step : int
            Optimizer steps done.
        state : callable
            Returns what is saved besides the model.
        needed : bool
            Whether the run cannot go on without it.

        Raises
        ------
        CheckpointError
            When a needed one cannot be saved.
        """
        if self.is_suspect(step):
            log.warning("step %s is not saved: its loss or gradients were not finite", f"{step:,}")
            return
        problem = self._parts.checkpoints.save(self._parts.engine, state(), self._steps_to_keep())
        if problem is not None and needed:
            raise CheckpointError(f"step {step:,} could not be saved: {problem}; {_AFTER_A_FAILED_SAVE}")
        if problem is not None:
            log.error("step %s could not be saved: %s; training goes on, %s", f"{step:,}", problem, _MEANWHILE)

    def is_suspect(self, step: int) -> bool:
        """Return whether the last losses or gradients were not finite, unless a validation since was."""
        if self._records.unsound_step == step:
            return True
        return self._parts.faults.are_weights_suspect and self._records.sound_step != step

    def cooldown_step(self) -> int | None:
        """Return the last step of a constant learning rate, when its checkpoint is to be kept."""
        if not self._parts.run.checkpoints.keep_before_cooldown:
            return None
        return last_constant_step(self._parts.run, self._budget)

    def prune(self) -> None:
        """Remove checkpoints that are no longer kept."""
        self._parts.checkpoints.prune(self._steps_to_keep())

    def _steps_to_keep(self) -> list[int]:
        """Return steps whose checkpoints outlive the newest ones."""
        before_cooldown = self.cooldown_step()
        return [self._records.sound_step, *([] if before_cooldown is None else [before_cooldown])]

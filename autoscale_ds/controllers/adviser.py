"""Asking a controller at its knots, once each, however often the run is interrupted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoscale_ds.controllers.base import Budget, Controller, Suggestion, View, next_knot
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.stream.journal import Journal
from autoscale_ds.stream.planner import MixturePlanner

log = logging.getLogger(__name__)


class Adviser:
    """A controller and the run it looks at; on rank 0 only.

    A controller that fails is said so once and the weights stay. What a dry run would change is logged instead.

    Parameters
    ----------
    controller : Controller
    budget : Budget
    planner : MixturePlanner
    journal : Journal
    validation : callable
        Returns the validation records so far.
    record : callable
        Writes a metrics record of a kind: ``proposal``, in a dry run.
    dry_run : bool
    asked : int
        The last step whose knots were decided, from the checkpoint.

    Attributes
    ----------
    asked : int
        What the next checkpoint must hold.
    """

    def __init__(
        self,
        controller: Controller,
        budget: Budget,
        planner: MixturePlanner,
        journal: Journal,
        validation: Callable[[], Sequence[Mapping[str, Any]]],
        record: Callable[[str, Mapping[str, Any]], None],
        dry_run: bool = False,
        asked: int = 0,
    ) -> None:
        self._controller, self._budget, self._planner, self._journal = controller, budget, planner, journal
        self._validation, self._record, self._dry_run = validation, record, dry_run
        self.asked = asked
        self._has_failed = False

    @property
    def source(self) -> str:
        """What the journal calls the controller."""
        return f"controller:{self._controller.name}"

    def due(self) -> bool:
        """Return whether a knot has come since the last decision; cheap enough for every step."""
        step, newest = self._planner.next_step, self._journal.current
        if newest.effective_step > step or (newest.effective_step == step and newest.source == self.source):
            self.asked = step  # done again after a crash: what was decided here stands in the journal
        end = self._budget.total_steps
        return step < end and next_knot(self._controller.knots, self.asked, end) <= step

    def ask(self) -> Suggestion | None:
        """Return what the controller wants from the planner's next step on, weights checked; None for no change."""
        self.asked = self._planner.next_step
        try:
            suggestion = self._controller.propose(self._view())
            if suggestion is not None:
                self._planner.check_weights(suggestion.weights)
        except AutoScaleError as error:
            if not self._has_failed:
                log.warning("controller %s failed and the weights stay: %s", self._controller.name, error)
            self._has_failed = True
            return None
        if suggestion is not None and self._dry_run:
            self._say(suggestion)
            return None
        return suggestion

    def _view(self) -> View:
        width = self._budget.tokens_per_step / self._planner.spec.global_batch
        planned = {name: samples * width for name, samples in self._planner.asked().items()}
        return View(self._planner.next_step, self._budget, planned, self._journal.events, self._validation)

    def _say(self, suggestion: Suggestion) -> None:
        step = self._planner.next_step
        log.info("dry run: new weights from step %d would be: %s", step, suggestion.reason)
        said = {"effective_step": step, "weights": suggestion.weights.as_dict(), "source": self.source}
        self._record("proposal", {**said, "reason": suggestion.reason})

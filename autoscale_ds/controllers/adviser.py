"""Asking a controller at its knots, each knot once, however often the run is interrupted."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoscale_ds.controllers.base import Budget, Controller, StepLosses, Suggestion, View, next_knot
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.stream.journal import Journal
from autoscale_ds.stream.planner import MixturePlanner

log = logging.getLogger(__name__)


class Adviser:
    """Feeds a controller the losses of each step and asks it when a knot has come; on rank 0 only.

    If the controller raises, a warning is logged once and the weights stay. In a dry run a suggestion is logged and
    recorded, and nothing changes.

    A run that was killed has a journal that is ahead of its newest checkpoint. Until the replayed steps have reached
    the journal's last event, what was decided stands in the journal, and the controller is not asked.

    Parameters
    ----------
    controller : Controller
        In its initial state.
    budget : Budget
        The length of the run.
    planner : MixturePlanner
        Rank 0's; its ``next_step`` is the step new weights would take effect at.
    journal : Journal
        The run's events.
    validation : callable
        Returns the validation records so far.
    record : callable
        Writes a metrics record of a kind: ``proposal``, in a dry run.
    dry_run : bool
        Whether suggestions are only recorded.
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
    ) -> None:
        self._controller = controller
        self._budget = budget
        self._planner = planner
        self._journal = journal
        self._validation = validation
        self._record = record
        self._dry_run = dry_run
        self._decided_step = 0
        self._has_failed = False

    @property
    def source(self) -> str:
        """The source of the controller's events in the journal."""
        return f"controller:{self._controller.name}"

    def observe(self, losses: StepLosses) -> None:
        """Pass on the losses of a step that was trained; losses that are not finite are left out."""
        self._decided_step = self._decided()
        if not all(math.isfinite(total) for total in losses.sums.values()):
            return
        try:
            self._controller.observe(losses)
        except AutoScaleError as error:
            self._warn(error)

    def due(self) -> bool:
        """Return whether a knot has come that was not decided yet; cheap enough for every step. Changes nothing."""
        step, end = self._planner.next_step, self._budget.total_steps
        return step < end and next_knot(self._controller.knots, self._decided(), end) <= step

    def ask(self) -> Suggestion | None:
        """Return what the controller wants from the planner's next step on, weights checked; None for no change."""
        self._decided_step = self._planner.next_step
        return self._asked(self._controller.propose)

    def budget_changed(self) -> Suggestion | None:
        """Return what the controller wants now that the run is longer or shorter; None for no change."""
        return self._asked(self._controller.budget_changed)

    def _asked(self, question: Callable[[View], Suggestion | None]) -> Suggestion | None:
        try:
            suggestion = question(self._view())
            if suggestion is not None:
                self._planner.check_weights(suggestion.weights)
        except AutoScaleError as error:
            self._warn(error)
            return None
        if suggestion is not None and self._dry_run:
            self._record_dry_run(suggestion)
            return None
        return suggestion

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold: the last step that was decided, and the controller's state by name."""
        controller = {"name": self._controller.name, "state": self._controller.state()}
        return {"decided_step": self._decided_step, "controller": controller}

    def restore(self, decided_step: int, saved: Mapping[str, Any] | None) -> None:
        """Continue from what ``state`` returned; None for the controller is its initial state."""
        self._decided_step = decided_step
        if saved is None:
            return
        if saved["name"] == self._controller.name:
            self._controller.restore(saved["state"])
        elif saved["state"] or self._controller.state():
            log.warning(
                "the checkpoint holds the state of controller %s; %s starts without any",
                saved["name"],
                self._controller.name,
            )

    def _decided(self) -> int:
        """Return the last step whose knots are decided, the planner's next one if the journal already says so."""
        step = self._planner.next_step
        for event in reversed(self._journal.events):
            if event.effective_step < step:
                break
            if event.effective_step > step or event.source == self.source:
                return step
        return self._decided_step

    def _view(self) -> View:
        tokens_per_sample = self._budget.tokens_per_step / self._planner.spec.global_batch
        planned = {name: samples * tokens_per_sample for name, samples in self._planner.target_counts().items()}
        return View(self._planner.next_step, self._budget, planned, self._journal.events, self._validation)

    def _warn(self, error: AutoScaleError) -> None:
        if not self._has_failed:
            log.warning("controller %s failed and the weights stay: %s", self._controller.name, error)
        self._has_failed = True

    def _record_dry_run(self, suggestion: Suggestion) -> None:
        step = self._planner.next_step
        log.info("dry run: new weights from step %d would be: %s", step, suggestion.reason)
        figures = {"effective_step": step, "weights": suggestion.weights.as_dict(), "source": self.source}
        self._record("proposal", {**figures, "reason": suggestion.reason})

"""What rank 0 works out before the first step of a start: the journal, the controller, and what has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoscale_ds import config as configuration
from autoscale_ds.controllers import Budget, Controller
from autoscale_ds.controllers.fixed import FixedConfig
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.models import ModelSpec
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.spec import StreamSpec
from autoscale_ds.training import setup
from autoscale_ds.training.checkpoints import list_checkpoints
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.cooldown import put_off_cooldown
from autoscale_ds.training.differences import changed_settings, rate_jump
from autoscale_ds.training.run_corpus import recorded
from autoscale_ds.training.run_folder import RunFolder
from autoscale_ds.training.run_state import RunState
from autoscale_ds.training.second_stage import Source
from autoscale_ds.training.start import Start, refuse_other_tokenizer

log = logging.getLogger(__name__)


class Beginning:
    """The beginning of a run or of its next start; on rank 0 only.

    Parameters
    ----------
    run : RunConfig
        The configuration now.
    folder : RunFolder
        Holds that of the last start, and the journal.
    corpus : Corpus
        As it is now.
    shape : ModelSpec
        The model.
    spec : StreamSpec
        What configuration and corpus give for the data order.
    accept_new_text : bool
        See ``Start``.

    Attributes
    ----------
    journal : Journal
        The run's events; set by ``open_journal``.
    """

    journal: Journal
    _start: Start

    def __init__(
        self,
        run: RunConfig,
        folder: RunFolder,
        corpus: Corpus,
        shape: ModelSpec,
        spec: StreamSpec,
        accept_new_text: bool,
    ) -> None:
        self._run = run
        self._folder = folder
        self._corpus = corpus
        self._shape = shape
        self._spec = spec
        self._accept_new_text = accept_new_text
        self._last = folder.last_config()
        self._last_run = _readable(self._last)
        self._last_ds_config = folder.last_ds_config()
        # What cannot be is refused before the model is built.
        if list_checkpoints(folder.checkpoints):
            refuse_other_tokenizer(recorded(folder.path), corpus)
        self._controller_and_weights(Journal(folder.journal))

    def step_before_cooldown(self) -> int | None:
        """Return the step to go back to when a larger budget puts off a cooldown that was under way."""
        step = put_off_cooldown(self._run, self._last_run, self._folder)
        if step is not None:
            log.warning(
                "the budget is larger: going on from step %s, before the cooldown; the steps after it are done again "
                "without it, and its checkpoints are kept under other names",
                f"{step:,}",
            )
        return step

    def open_journal(self, state: RunState | None, source: Source | None) -> list[str]:
        """Begin or continue the journal and return its lines; nothing is written before ``write_journal``.

        Parameters
        ----------
        state : RunState or None
            Of the checkpoint the run goes on from.
        source : Source or None
            Where a run without one goes on from.
        """
        run = self._run
        journal = self.journal = Journal(self._folder.journal)
        journal.hold()
        step = state.step if state is not None else 0
        self._start = Start(
            self._folder.path, journal, self._spec, self._corpus, step, self._clock().tokens, self._accept_new_text
        )
        if not journal.events:
            reads_on = source if "stream" in run.start_with else None
            self._start.begin(self._opening_event(), reads_on)
            return self._lines()
        if state is not None:
            setup.check_journal_copy(journal.events, state.journal)
        if not setup.says_the_same(run, self._last):
            setup.check_first_weights(run, journal, self._opening_event().weights)
        last_batch = ((self._last or {}).get("data") or {}).get("global_batch", run.data.global_batch)
        waits = bool(self._folder.inbox.pending()) or not isinstance(run.mixture.controller, FixedConfig)
        self._start.continue_journal(last_batch, may_be_turned_off=waits)
        return self._lines()

    def finish_journal(self) -> Event | None:
        """Record the domains that left, when the proposals that waited are judged; see ``Start.finish``."""
        return self._start.finish()

    def write_journal(self) -> None:
        """Write what this start has added: nothing can be refused any more."""
        self._folder.accept()
        if self.journal.commit():
            log.warning("the last line of %s was torn by a crash and has been removed", self.journal.path)

    def controller(self) -> Controller:
        """Return who decides the weights, in the initial state."""
        return self._controller_and_weights(self.journal)[0]

    def budget_changed(self, budget: Budget) -> bool:
        """Return whether the last start had another budget."""
        before = (self._last or {}).get("budget_tokens", self._run.budget_tokens)
        return self._clock().steps(before) != budget.total_steps

    def record(self, ds_config: Mapping[str, Any], step: int) -> None:
        """Say which settings have changed, and write both configurations: nothing was refused.

        From now on they are those of the last start. The budget is that of the last one that trained: by it the
        cooldown is known that a later start puts off.
        """
        run = self._run
        if self._last_run is not None and step >= self._clock().steps(run.budget_tokens):
            run = replace(run, budget_tokens=self._last_run.budget_tokens)
        if self._last_run is not None:
            changed = changed_settings(configuration.to_dict(self._run), configuration.to_dict(self._last_run))
            for line in [*changed, *changed_settings(ds_config, self._last_ds_config or ds_config)]:
                log.info("since the last start: %s", line)
            warning = rate_jump(self._run, self._last_run, self._clock(), step)
            if warning is not None:
                log.warning(warning)
        self._folder.record(run, dict(ds_config))
        self._last = configuration.to_dict(run)
        self._last_run = run
        self._last_ds_config = dict(ds_config)

    def _lines(self) -> list[str]:
        return [event.to_json() for event in self.journal.events]

    def _clock(self) -> Clock:
        run = self._run
        return Clock.of(self.journal.events, run.data.sequence_length, run.data.global_batch)

    def _opening_event(self) -> Event:
        controller, weights = self._controller_and_weights(self.journal)
        return setup.opening_event(self._run, controller, weights)

    def _controller_and_weights(self, journal: Journal) -> tuple[Controller, setup.WeightsReader]:
        run, events = self._run, journal.events
        weights = setup.WeightsReader(
            self._corpus,
            events[0].weights if events else None,
            lambda path: self._folder.own_copy(path, refresh=not events),
        )
        budget = run.budget_on(Clock.of(events, run.data.sequence_length, run.data.global_batch))
        return setup.controller(run, budget, self._spec, self._shape, weights), weights


def _readable(config: Mapping[str, Any] | None) -> RunConfig | None:
    """Return a configuration that this version can read; None for others: of an earlier version, or edited by hand."""
    try:
        return configuration.build(RunConfig, config) if config is not None else None
    except AutoScaleError:
        return None

"""Taking up new weights while training: rank 0 decides, every rank appends the same event at the same step."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from autoscale_ds.controllers import Adviser, StepLosses, Suggestion
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.proposals import Inbox, Proposal, checked_weights, read_proposal
from autoscale_ds.training.distributed import on_rank_zero
from autoscale_ds.training.losses import StepReport

log = logging.getLogger(__name__)
MOST_AT_ONCE = 50  # proposals checked between two steps: checking thousands at once would delay the next step


class HotSwap:
    """Turns proposals, from the inbox or of the run's controller, into journal events.

    Rank 0 reads and checks the proposals, writes an event to the journal and broadcasts it; every rank adds it to its
    planner. An event takes effect at the first step no rank has planned. All ranks have planned the same number of
    steps ahead, so rank 0's next step is that of every rank. A planner refuses an event for a step it has planned, so
    that a mistake here stops the run: ranks never sample by different weights.

    Parameters
    ----------
    inbox : Inbox
        The run's proposal folders.
    journal : Journal or None
        Rank 0's file; None on the other ranks, which hold the events in their planners only.
    planner : MixturePlanner
        This rank's.
    tokens : callable
        Training tokens before a step.
    poll_seconds : float
        Least time between two looks into the inbox.
    adviser : Adviser or None
        Asks the run's controller; None on ranks other than 0.
    """

    def __init__(
        self,
        inbox: Inbox,
        journal: Journal | None,
        planner: MixturePlanner,
        tokens: Callable[[int], int],
        poll_seconds: float,
        adviser: Adviser | None = None,
    ) -> None:
        self.adviser = adviser
        self._inbox = inbox
        self._journal = journal
        self._planner = planner
        self._tokens = tokens
        self._poll_seconds = poll_seconds
        self._next_poll = 0.0
        self._stuck: set[str] = set()  # names of proposals that could not be moved away
        self._unsettled: list[Callable[[], None]] | None = None

    def observe(self, step: int, report: StepReport) -> None:
        """Give the run's controller the losses of a step; call it before ``take_up`` after that step."""
        if self.adviser is None:
            return
        names = self._planner.names
        sums = dict(zip(names, report.sums, strict=True))
        counts = dict(zip(names, map(int, report.counts), strict=True))
        self.adviser.observe(StepLosses(step, sums, counts))

    def waiting(self) -> bool:
        """Return whether ``take_up`` has something to do: the controller is due, or the inbox holds a proposal.

        False on ranks other than 0. The inbox is looked into every ``poll_seconds``.
        """
        return self._controller_due() or self._inbox_filled()

    def _controller_due(self) -> bool:
        return self.adviser is not None and self.adviser.due()

    def _inbox_filled(self) -> bool:
        if self._journal is None or time.monotonic() < self._next_poll:
            return False
        self._next_poll = time.monotonic() + self._poll_seconds
        return bool(self._pending())

    def _pending(self) -> list[Path]:
        """Return the next proposals to check, without those that could not be moved away before."""
        try:
            return [path for path in self._inbox.pending() if path.name not in self._stuck][:MOST_AT_ONCE]
        except OSError as error:
            log.warning("cannot look into %s: %s", self._inbox.folder, error)
            return []

    def take_up(self) -> list[Event]:
        """Check the proposals, ask the controller, and return the new events, already in the planner. Collective."""
        return self._share(self._judge)

    def take_up_at_start(self, budget_changed: bool, finish: Callable[[], Event | None]) -> list[Event]:
        """Check the proposals that wait before the first step, and return the new events. Collective.

        Their files stay where they are until ``settle``: the start may yet be refused.

        Parameters
        ----------
        budget_changed : bool
            Whether to tell the controller of it, on rank 0.
        finish : callable
            Called last, on rank 0; it may append one more event to the journal.
        """

        def judge(journal: Journal) -> list[Event]:
            self._unsettled = []
            accepted = self._judge_inbox(journal)
            if budget_changed and self.adviser is not None:
                accepted += self._suggested(journal, self.adviser.budget_changed())
            last = finish()
            return [*accepted, *([last] if last is not None else [])]

        return self._share(judge)

    def settle(self) -> None:
        """Move the files of the proposals that a start judged: their events are in the journal."""
        unsettled, self._unsettled = self._unsettled or [], None
        for move in unsettled:
            move()

    def _share(self, judge: Callable[[Journal], list[Event]]) -> list[Event]:
        """Return the events that rank 0 decides on, added to this rank's planner."""
        journal = self._journal
        lines = on_rank_zero(lambda: [event.to_json() for event in judge(journal)] if journal is not None else [])
        events = [Event.from_json(line) for line in lines]
        for event in events:
            self._planner.add_event(event)
        return events

    def _judge(self, journal: Journal) -> list[Event]:
        return [*self._judge_inbox(journal), *self._consult(journal)]

    def _consult(self, journal: Journal) -> list[Event]:
        due = self.adviser is not None and self.adviser.due()
        return self._suggested(journal, self.adviser.ask() if self.adviser is not None and due else None)

    def _suggested(self, journal: Journal, suggestion: Suggestion | None) -> list[Event]:
        if suggestion is None or self.adviser is None:
            return []
        try:
            weights = self._completed(suggestion.weights)
            return [self._append(journal, weights, self.adviser.source, suggestion.reason)]
        except OSError as error:
            log.error("the controller's weights cannot be journalled and are left out: %s", error)
            return []

    def _completed(self, weights: DomainWeights) -> DomainWeights:
        """Return a controller's weights for the corpus as it is now: what joined is off, what left is not named."""
        domains = self._planner.domains
        kept = {name: weight for name, weight in weights.items() if weight > 0 or name in domains}
        return DomainWeights({**dict.fromkeys(domains, 0.0), **kept})

    def _judge_inbox(self, journal: Journal) -> list[Event]:
        accepted = []
        known = {event.proposal for event in journal.events}
        for path in self._pending():
            try:
                if path.name not in known:  # else the run was killed between writing the event and removing the file
                    proposal = read_proposal(path)
                    if proposal is None:
                        continue
                    accepted.append(self._accept(proposal, journal))
                self._move(path, path.unlink)
            except AutoScaleError as error:
                log.warning("proposal %s refused: %s", path.name, error)
                self._move(path, functools.partial(self._inbox.reject, path, str(error)))
            except OSError as error:
                self._leave(path, error)
        return accepted

    def _move(self, path: Path, move: Callable[[], object]) -> None:
        """Move a proposal away, or have ``settle`` do it."""

        def attempt() -> None:
            try:
                move()
            except OSError as error:
                self._leave(path, error)

        if self._unsettled is None:
            attempt()
        else:
            self._unsettled.append(attempt)

    def _leave(self, path: Path, error: OSError) -> None:
        log.warning("proposal %s cannot be handled and is left alone: %s", path.name, error)
        self._stuck.add(path.name)

    def _accept(self, proposal: Proposal, journal: Journal) -> Event:
        weights = checked_weights(proposal, self._planner.domains, journal)
        self._planner.check_weights(weights)
        self._planner.check_left(weights)  # a controller may name such a domain: the planner leaves it out
        return self._append(journal, weights, proposal.source, proposal.reason, proposal.id)

    def _append(self, journal: Journal, weights: DomainWeights, source: str, reason: str, proposal: str = "") -> Event:
        """Return the event of accepted weights. It is on disk before any rank samples by it."""
        version = journal.current.version + 1
        # After a crash the journal may be ahead: what it holds comes first.
        step = max(self._planner.next_step, journal.current.effective_step)
        event = Event(version, step, weights, source, reason, now(), self._tokens(step), proposal)
        journal.append(event)
        return event


def first_event(weights: DomainWeights, reason: str, source: str = "config") -> Event:
    """Return the event a run starts with."""
    return Event(0, 0, weights, source, reason, time=now(), tokens_seen=0)


def now() -> str:
    """Return the time in UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

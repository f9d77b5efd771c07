"""Taking up new weights while training: rank 0 decides, every rank appends the same event at the same step."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timezone

from autoscale_ds.errors import AutoScaleError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.proposals import Inbox, Proposal, check, read_proposal
from autoscale_ds.training.distributed import broadcast

log = logging.getLogger(__name__)


class HotSwap:
    """Turns proposals into journal events.

    An event takes effect at the first step no rank has planned. Ranks plan in lockstep (the same number of steps
    ahead), so rank 0's is everybody's; the planner refuses an event that comes too late, so a mistake here stops the
    run instead of splitting it.

    Parameters
    ----------
    inbox : Inbox
    journal : Journal or None
        Rank 0's file; None on the other ranks, which hold the events in their planners only.
    planner : MixturePlanner
    tokens_per_step : int
    poll_seconds : float
    """

    def __init__(
        self,
        inbox: Inbox,
        journal: Journal | None,
        planner: MixturePlanner,
        tokens_per_step: int,
        poll_seconds: float,
    ) -> None:
        self._inbox, self._journal, self._planner = inbox, journal, planner
        self._tokens_per_step, self._poll_seconds = tokens_per_step, poll_seconds
        self._next_poll = 0.0

    def waiting(self) -> bool:
        """Return whether there is something to take up; looks at most every ``poll_seconds``, on rank 0 only."""
        if self._journal is None or time.monotonic() < self._next_poll:
            return False
        self._next_poll = time.monotonic() + self._poll_seconds
        try:
            return bool(self._inbox.pending())
        except OSError as error:
            log.warning("cannot look into %s: %s", self._inbox.inbox, error)
            return False

    def take_up(self) -> list[Event]:
        """Judge what waits and return the accepted events, already planned in. Collective."""
        judged = [event.to_json() for event in self._judge(self._journal)] if self._journal is not None else None
        events = [Event.from_json(line) for line in broadcast(judged)]
        for event in events:
            self._planner.add_event(event)
        return events

    def _judge(self, journal: Journal) -> list[Event]:
        accepted = []
        known = {event.proposal for event in journal.events}
        for path in self._inbox.pending():
            try:
                if path.name in known:  # journalled, then killed before the file was removed
                    path.unlink()
                    continue
                proposal = read_proposal(path)
                if proposal is None:
                    continue
                accepted.append(self._accept(proposal, journal))
                path.unlink()
            except AutoScaleError as error:
                log.warning("proposal %s refused: %s", path.name, error)
                self._inbox.reject(path, str(error))
            except OSError as error:
                log.warning("proposal %s cannot be handled: %s", path.name, error)
        return accepted

    def _accept(self, proposal: Proposal, journal: Journal) -> Event:
        """Journal first, on disk, before any rank samples by it."""
        current = journal.current
        check(proposal, self._planner.names, current.version)
        self._planner.check_weights(proposal.weights)
        step = self._planner.next_step
        event = Event(
            version=current.version + 1,
            effective_step=step,
            weights=proposal.weights,
            source=proposal.source,
            reason=proposal.reason,
            time=now(),
            tokens_seen=step * self._tokens_per_step,
            proposal=proposal.id,
        )
        journal.append(event)
        return event


def first_event(weights: DomainWeights, reason: str) -> Event:
    """Return the event a run starts with."""
    return Event(0, 0, weights, source="config", reason=reason, time=now(), tokens_seen=0)


def now() -> str:
    """Return the time in UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

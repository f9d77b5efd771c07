"""The journal: every set of weights a run has used and the step each took effect. Append-only.

``journal.jsonl`` in the run folder is what a restart reads; every checkpoint holds a copy, which the file must
continue. The seed and the journal determine the whole data order, also of steps after the newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from autoscale_ds.errors import AutoScaleError, StreamError
from autoscale_ds.files import append_line, write_atomic
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.spec import SpecChange

START = "start"
"""Source of an event that keeps the weights and says what else a start of the run changed."""
_ADVICE = 'restore it from the copy in the newest checkpoint\'s run.json ("journal"), one event a line'


@dataclass(frozen=True)
class Event:
    """One change of weights.

    Attributes
    ----------
    version : int
        0 for the weights a run starts with, then one more each time.
    effective_step : int
        The first step sampled with these weights.
    weights : DomainWeights
    source : str
        Who asked: ``config``, ``user``, ``file``, ``predictor`` or ``controller:NAME``; ``start`` for an event that
        keeps the weights and says what else a start of the run changed.
    reason : str
        Why, in words.
    time : str
        When it was accepted, ISO 8601 in UTC.
    tokens_seen : int
        Training tokens before ``effective_step``.
    proposal : str
        Name of the proposal file, so that it is accepted once; empty if the event comes from no file.
    stream : SpecChange or None
        What else changes for the data order at this step: corpus, batch, limits; all of it in the first event. None in
        most events, and in all of journals from before it was kept.
    """

    version: int
    effective_step: int
    weights: DomainWeights
    source: str
    reason: str
    time: str
    tokens_seen: int
    proposal: str = ""
    stream: SpecChange | None = None

    def to_json(self) -> str:
        """Return the one-line JSON form."""
        raw = {**vars(self), "weights": self.weights.as_dict()}
        if self.stream is None:
            del raw["stream"]
        else:
            raw["stream"] = self.stream.to_json()
        return json.dumps(raw, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str | dict[str, Any]) -> Event:
        """Return the event that ``to_json`` wrote; raises StreamError for anything else."""
        try:
            raw = json.loads(line) if isinstance(line, str) else dict(line)
            if "stream" in raw:
                raw = {**raw, "stream": SpecChange.from_json(raw["stream"])}
            return cls(**{**raw, "weights": DomainWeights(raw["weights"])})
        except (ValueError, KeyError, TypeError, AttributeError, AutoScaleError) as error:
            raise StreamError(f"{str(line)[:120]!r} is no journal event: {error}") from None


class Journal:
    """The events of a run, in memory and in its file.

    Attributes
    ----------
    path : Path
        The file, one event a line.
    events : list of Event
        By version, effective steps not decreasing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # One without a whole event was left by a crash in the first moment of a run: its checkpoints, if any, object.
        self.events = _read(self.path) if self.path.exists() else []
        self._held: list[Event] | None = None

    @property
    def current(self) -> Event:
        """The newest event, whether or not its effective step has been reached."""
        return self.events[-1]

    @property
    def weights_version(self) -> int:
        """Version of the newest event that changed the weights."""
        return next(event.version for event in reversed(self.events) if event.source != START)

    def append(self, event: Event) -> None:
        """Add an event to memory and, unless events are held, to the file."""
        check_order([*self.events[-1:], event])
        if self._held is None:
            append_line(self.path, event.to_json())
        else:
            self._held.append(event)
        self.events.append(event)

    def hold(self) -> None:
        """Keep events in memory until ``commit``: the start that makes them may yet be refused."""
        self._held = []

    def commit(self) -> bool:
        """Write the events that were held; return whether a last line that a crash cut off was removed before.

        Only the job that holds the run folder's lock may call this.
        """
        held, self._held = self._held or [], None
        before = self.events[: len(self.events) - len(held)]
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        whole = "".join(event.to_json() + "\n" for event in before)
        if text != whole:
            write_atomic(self.path, whole)
        for event in held:
            append_line(self.path, event.to_json())
        return bool(text) and text != whole


def read_events(path: str | Path) -> list[Event]:
    """Read the journal file of a run that has started.

    A last line without its newline was cut off by a crash. No rank had sampled by it yet, so it is left out.

    Raises
    ------
    StreamError
        For a line that is no event, versions or steps out of order, or a file without an event.
    """
    events = _read(path)
    if not events:
        raise StreamError(f"{path} is damaged: it holds no whole event; {_ADVICE}")
    return events


def _read(path: str | Path) -> list[Event]:
    *lines, _torn = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        events = [Event.from_json(line) for line in lines]
        check_order(events)
    except StreamError as error:
        raise StreamError(f"{path} is damaged: {error}; {_ADVICE}") from None
    return events


def history(events: Sequence[Event]) -> list[Event]:
    """Return the events that count: without those a later start put aside.

    A start that goes back behind earlier events decides anew what else holds from its step on: its event puts aside all
    that take effect later, and what earlier starts said at the same step.
    """
    counting: list[Event] = []
    for event in events:
        if event.source != START:
            counting.append(event)
            continue
        step = event.effective_step
        counting = [e for e in counting if (e.effective_step, e.source == START) < (step, True)]
        # Before the weights of the same step, which may name domains that this start brought. No step was sampled by
        # those that others of the step replaced, and they may name domains that have left.
        weights = [e for e in counting if e.effective_step == step and not e.stream]
        others = [e for e in counting if e.effective_step < step or e.stream]
        counting = [*others, event, *weights[-1:]]
    return counting


def known_texts(events: Iterable[Event]) -> dict[str, str]:
    """Return the digest of the last text of every domain, also of those that left."""
    return {
        name: text.train
        for event in events
        if event.stream is not None
        for name, text in event.stream.domains.items()
        if text is not None
    }


def check_order(events: Sequence[Event]) -> None:
    """Raise StreamError unless versions count up by one, and effective steps never go back but at a start."""
    for before, after in pairwise(events):
        goes_back = after.effective_step < before.effective_step and after.source != START
        if after.version != before.version + 1 or goes_back:
            raise StreamError(
                f"event version {after.version} at step {after.effective_step} cannot follow version {before.version} "
                f"at step {before.effective_step}"
            )

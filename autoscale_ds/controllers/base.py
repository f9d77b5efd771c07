"""What a controller is, what it sees and what it says.

A controller decides at knots: steps known before the run starts. What it says there follows from the knot, the journal
and the validation losses alone, so that a run that was killed and started again decides the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event


@dataclass(frozen=True)
class Budget:
    """The length of a run.

    Attributes
    ----------
    tokens_per_step : int
    total_steps : int
    """

    tokens_per_step: int
    total_steps: int

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.tokens_per_step * self.total_steps

    def knots(self, interval_tokens: float | None) -> range:
        """Return every step at which an interval begins, after step 0; ``None`` is a hundredth of the budget."""
        tokens = self.tokens / 100 if interval_tokens is None else interval_tokens
        every = max(1, round(tokens / self.tokens_per_step))
        return range(every, self.total_steps, every)


@dataclass(frozen=True)
class View:
    """The run as a controller sees it.

    Attributes
    ----------
    next_step : int
        The first step nobody has planned: new weights rule from here.
    budget : Budget
    planned : mapping of str to float
        Tokens that the journal's weights give each domain before ``next_step``; what was read is within one sample.
    events : sequence of Event
        The journal; the last one's weights rule now.
    validation : callable
        Returns the ``validation`` records of ``metrics.jsonl`` so far.
    """

    next_step: int
    budget: Budget
    planned: Mapping[str, float]
    events: Sequence[Event]
    validation: Callable[[], Sequence[Mapping[str, Any]]]

    @property
    def current(self) -> Event:
        """The event that rules now."""
        return self.events[-1]

    @property
    def tokens(self) -> int:
        """Training tokens before ``next_step``."""
        return self.next_step * self.budget.tokens_per_step


@dataclass(frozen=True)
class Suggestion:
    """Weights a controller wants, and why in words."""

    weights: DomainWeights
    reason: str


class Controller(Protocol):
    """Decides the weights of a run.

    Attributes
    ----------
    name : str
        As the journal says it: ``controller:NAME``.
    key : str
        Where the configuration says what its first weights are.
    knots : sequence of int
        Steps after 0 at which it wants to be asked, ascending.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def knots(self) -> Sequence[int]: ...

    def initial(self) -> Suggestion:
        """Return the weights of step 0."""

    def propose(self, view: View) -> Suggestion | None:
        """Return the weights from ``view.next_step`` on, or None to leave them as they are.

        Asked at the knots, or at the first step that can still be planned after one.
        """


@dataclass(frozen=True)
class Fixed:
    """The configured weights to the end."""

    weights: DomainWeights
    reason: str
    name: str = "fixed"
    key: str = "mixture.weights"
    knots: tuple[int, ...] = ()

    def initial(self) -> Suggestion:
        """Return the configured weights."""
        return Suggestion(self.weights, self.reason)

    def propose(self, view: View) -> None:
        """Keep them."""


def next_knot(knots: Sequence[int], step: int, end: int) -> int:
    """Return the first knot after a step, or ``end``."""
    place = bisect_right(knots, step)
    return knots[place] if place < len(knots) else end

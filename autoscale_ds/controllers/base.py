"""What a controller is, what it is told, what it may look at, and what it answers.

A controller decides at knots: steps known before the run starts. Its answer there is a function of the knot, the
journal, the validation losses and its own state. Its state changes only in ``observe``, once for each optimizer step,
and is saved in every checkpoint. A run that was killed trains the steps since its newest checkpoint again, and so gets
the same answers at the same steps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.journal import Event

# Weights as a configuration writes them: a rule, a file, or numbers by name; None is the default rule.
WrittenWeights = str | Mapping[str, float] | None


@dataclass(frozen=True)
class Budget:
    """The length of a run.

    Attributes
    ----------
    tokens_per_step : int
        Training tokens of one optimizer step, over all ranks, as the run goes on now.
    total_steps : int
        Optimizer steps of the whole run.
    clock : Clock, optional
        Tokens of the steps so far, where the batch has changed between starts; None is the same for every step.
    """

    tokens_per_step: int
    total_steps: int
    clock: Clock | None = None

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.tokens_at(self.total_steps)

    def tokens_at(self, step: int) -> int:
        """Return the training tokens before a step."""
        return self._clock.tokens(step)

    def step_after(self, tokens: float) -> int:
        """Return the first step before which at least this many tokens were trained on."""
        return self._clock.step_after(tokens)

    def every(self, interval_tokens: float | None, tokens_per_step: int | None = None) -> int:
        """Return the steps of an interval, at least one; ``None`` is a hundredth of the budget."""
        tokens = self.tokens / 100 if interval_tokens is None else interval_tokens
        return max(1, round(tokens / (tokens_per_step or self.tokens_per_step)))

    def knots(self, interval_tokens: float | None) -> list[int]:
        """Return every step at which an interval begins, after step 0; a change of batch begins one too."""
        steps: list[int] = []
        stretches = self._clock.changes
        ends = [*(first for first, _ in stretches[1:]), self.total_steps]
        for (first, per_step), end in zip(stretches, ends, strict=True):
            every = self.every(interval_tokens, per_step)
            steps += range(first or every, min(end, self.total_steps), every)
        return steps

    @property
    def _clock(self) -> Clock:
        return self.clock or Clock(((0, self.tokens_per_step),))


@dataclass(frozen=True)
class StepLosses:
    """Training loss of one optimizer step by domain, over all ranks; the same on every rank.

    Attributes
    ----------
    step : int
        The step, counted from 0.
    sums : mapping of str to float
        Loss in nats summed over the step's tokens of each domain. Finite.
    counts : mapping of str to int
        Those tokens; 0 for a domain that the step has no sample of.
    """

    step: int
    sums: Mapping[str, float]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class View:
    """What a controller may look at when it is asked.

    Attributes
    ----------
    next_step : int
        The first step nobody has planned: new weights take effect here.
    budget : Budget
        The length of the run.
    planned : mapping of str to float
        Tokens that the journal's weights give each domain before ``next_step``; what was read is within one sample.
    events : sequence of Event
        The journal; the last event's weights are in effect.
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
        """The event whose weights are in effect."""
        return self.events[-1]

    @property
    def tokens(self) -> int:
        """Training tokens before ``next_step``."""
        return self.budget.tokens_at(self.next_step)


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
        The source of its events in the journal is ``controller:NAME``.
    knots : sequence of int
        Steps after 0 at which it wants to be asked, ascending.
    """

    @property
    def name(self) -> str: ...
    @property
    def knots(self) -> Sequence[int]: ...

    def initial(self) -> Suggestion:
        """Return the weights of step 0; they depend on the configuration only, not on the state."""

    def observe(self, losses: StepLosses) -> None:
        """Take in the losses of one optimizer step; the only method that may change the state.

        Called once for each step, in order, before the controller is asked after that step. Not called for a step
        whose loss is not finite. After a restart the steps since the checkpoint are observed again, from its state.
        """

    def propose(self, view: View) -> Suggestion | None:
        """Return the weights from ``view.next_step`` on, or None to leave them as they are. Changes no state.

        Asked at the knots, or at the first step that can still be planned after one.
        """

    def budget_changed(self, view: View) -> Suggestion | None:
        """Return the weights from ``view.next_step`` on, or None, at a start with another budget; changes no state."""

    def state(self) -> dict[str, Any]:
        """Return everything ``observe`` has changed, as JSON values; saved in every checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the state to what ``state`` returned when the checkpoint was saved."""


class Stateless:
    """Base of controllers that learn nothing from the losses of steps: there is nothing to save."""

    def budget_changed(self, view: View) -> Suggestion | None:
        """Leave the weights as they are."""
        return None

    def observe(self, losses: StepLosses) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class ControllerConfig:
    """Base of the settings of a controller: a frozen dataclass beside its class, and a line in ``registry``.

    Its fields are keys of the ``mixture`` section, beside the keys that all controllers share.

    Attributes
    ----------
    first_weights : str
        The key of the ``mixture`` section that determines the weights of step 0.
    """

    first_weights: ClassVar[str] = "weights"

    def check_run(self, schedule: str, evaluation_steps: int | None) -> None:
        """Raise ConfigError when the rest of the run's configuration does not suit the controller.

        Parameters
        ----------
        schedule : str
            ``schedule.kind``.
        evaluation_steps : int or None
            ``evaluation.every_steps``.
        """


@dataclass(frozen=True)
class RunFacts:
    """What a controller may need to know of a run when it is built.

    Attributes
    ----------
    budget : Budget
        The length of the run.
    read_weights : callable
        Turns weights as a configuration writes them into weights of exactly the corpus's domains. Raises ConfigError
        or MixtureError.
    weights : str, mapping of str to float, or None
        ``mixture.weights`` as written.
    parameters : int
        Parameters of the model, for laws that depend on it.
    constant_tokens : (float, float)
        Between these numbers of training tokens the run's learning rate is constant.
    limits : mapping of str to float, optional
        Tokens that may be read of a domain, where there is a limit; the optimum of a law stays within.
    unique : mapping of str to float, optional
        Tokens of text that the run can draw from each domain, for laws that count how often text is repeated.
    own_copy : callable
        From a path in the configuration to the file to read: the run keeps its own copy of what it was told to read.
    """

    budget: Budget
    read_weights: Callable[[WrittenWeights], DomainWeights]
    weights: WrittenWeights
    parameters: int
    constant_tokens: tuple[float, float] = (0.0, math.inf)
    limits: Mapping[str, float] | None = None
    unique: Mapping[str, float] | None = None
    own_copy: Callable[[str], str] = str

    def configured(self) -> Suggestion:
        """Return the weights of ``mixture.weights``, for a controller that starts with them."""
        written = "given" if isinstance(self.weights, Mapping) else self.weights or "uniform"
        return Suggestion(self.read_weights(self.weights), f"mixture.weights: {written}")


def next_knot(knots: Sequence[int], step: int, end: int) -> int:
    """Return the first knot after a step, or ``end``."""
    place = bisect_right(knots, step)
    return knots[place] if place < len(knots) else end


def check_interval(interval_tokens: float | None) -> None:
    """Raise ConfigError unless ``mixture.interval_tokens`` is positive or None."""
    if interval_tokens is not None and not interval_tokens > 0:
        raise ConfigError(f"mixture.interval_tokens is {interval_tokens:g}, expected more than 0")

"""Training tokens at a step, and back, also when the batch changes between the starts of a run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from autoscale_ds.stream.journal import Event, history


@dataclass(frozen=True)
class Clock:
    """Counts tokens exactly; steps stay optimizer steps.

    Attributes
    ----------
    changes : tuple of (int, int)
        (first step, tokens a step from there on), ascending; the first begins at step 0.
    """

    changes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, events: Sequence[Event], sequence_length: int, global_batch: int) -> Clock:
        """Return the clock of a journal; ``global_batch`` holds where its events do not say one."""
        changes = [(0, global_batch * sequence_length)]
        for event in history(events):
            if event.stream is not None and event.stream.global_batch is not None:
                changes = [change for change in changes if change[0] < event.effective_step]
                changes.append((event.effective_step, event.stream.global_batch * sequence_length))
        return cls(tuple(changes))

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step after the last change."""
        return self.changes[-1][1]

    def tokens(self, step: int) -> int:
        """Return the training tokens of all steps before ``step``."""
        ends = [*(first for first, _ in self.changes[1:]), step]
        stretches = zip(self.changes, ends, strict=True)
        return sum(per_step * (min(end, step) - first) for (first, per_step), end in stretches if first < step)

    def steps(self, tokens: float) -> int:
        """Return how many whole steps fit into a number of training tokens."""
        starts = [self.tokens(first) for first, _ in self.changes]
        place = max(bisect_right(starts, tokens) - 1, 0)
        first, per_step = self.changes[place]
        return first + int((tokens - starts[place]) // per_step)

    def step_after(self, tokens: float) -> int:
        """Return the first step before which at least this many tokens were trained on."""
        whole = self.steps(tokens)
        return whole if self.tokens(whole) >= tokens else whole + 1

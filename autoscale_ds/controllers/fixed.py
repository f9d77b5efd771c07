"""The configured weights from the first step to the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoscale_ds.controllers.base import ControllerConfig, RunFacts, Stateless, Suggestion, View


@dataclass(frozen=True)
class FixedConfig(ControllerConfig):
    """Nothing to set: the weights are those of ``mixture.weights``."""


class Fixed(Stateless):
    """Keeps the weights it is given.

    Parameters
    ----------
    first : callable
        Returns the weights, and where they come from; called when they are asked for, so that a run that resumes
        needs no file of weights any more.
    """

    name = "fixed"
    knots: tuple[int, ...] = ()

    def __init__(self, first: Callable[[], Suggestion]) -> None:
        self._first = first

    def initial(self) -> Suggestion:
        """Return the configured weights."""
        return self._first()

    def propose(self, view: View) -> None:
        """Keep them."""


def build_fixed(config: FixedConfig, run: RunFacts) -> Fixed:
    """Return the controller of ``mixture.weights``."""
    return Fixed(run.configured)

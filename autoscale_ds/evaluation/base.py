"""What an evaluation is: a name, when it is due, what it needs of the engine, and the figures of its record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch


@dataclass(frozen=True)
class Site:
    """Where an evaluation runs.

    Attributes
    ----------
    engine : Engine
        The model; only what ``Evaluation.needs`` names is used.
    device : torch.device
        Where its inputs must lie.
    rank, world_size : int
        Data-parallel rank and size: which share of the work is this process's.
    interrupted : callable
        Collective; whether to give up. Must be asked equally often on all ranks, before every batch.
    """

    engine: Any
    device: torch.device
    rank: int
    world_size: int
    interrupted: Callable[[], bool]


class Evaluation(ABC):
    """Something measured at some steps; the trainer does not know what.

    Attributes
    ----------
    name : str
        Kind of its records in ``metrics.jsonl``, and how "already done at this step" is known after a restart.
    needs : frozenset of str
        Methods of the engine that it calls; missing ones are refused before step 0.
    every_steps : int or None
        How often, optimizer steps; None is only at the end.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    every_steps: int | None

    def due(self, step: int) -> bool:
        """Return whether it is to run after ``step`` steps; the end of a run is always due."""
        return self.every_steps is not None and step % self.every_steps == 0

    @abstractmethod
    def is_empty(self) -> bool:
        """Return whether there is nothing to measure, so that it is never run."""

    @abstractmethod
    def run(self, site: Site) -> dict[str, Any] | None:
        """Return the figures of the record, the same on all ranks; None when interrupted. Collective."""

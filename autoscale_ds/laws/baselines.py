"""Baselines a law is compared with: the mean, the nearest run, the nearest run at the last scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from autoscale_ds.laws.base import Inputs
from autoscale_ds.mixture.arrays import Array


@dataclass(frozen=True)
class Baseline(ABC):
    """Training runs x and their losses y, kept as they are: nothing is fitted."""

    x: Inputs
    y: Array

    @abstractmethod
    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""


class Mean(Baseline):
    """Predicts the mean loss of the training runs."""

    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""
        return np.full(len(x), self.y.mean())


class NearestRun(Baseline):
    """Predicts the loss of the training run with the most similar mixture (L1), then the most similar scale."""

    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""
        mixture = np.abs(x.weights[:, None, :] - self.x.weights[None]).sum(2)
        scale = np.abs(x.log_tokens[:, None] - self.x.log_tokens) + np.abs(
            x.log_parameters[:, None] - self.x.log_parameters
        )
        # Scale only decides between equal mixtures: 1e-6 of an L1 distance is under the rounding of weights.
        return np.asarray(self.y[np.argmin(mixture + 1e-6 * scale, axis=1)])


class KeepLast(NearestRun):
    """The nearest run at the largest scale trained: "keep the last weights", the mixture does not shift."""

    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""
        compute = self.x.log_tokens + self.x.log_parameters
        last = np.flatnonzero(compute >= compute.max() - 1e-9)
        return NearestRun(self.x.take(last), self.y[last]).predict(x)


BASELINES: dict[str, type[Baseline]] = {"mean": Mean, "nearest run": NearestRun, "keep the last weights": KeepLast}

"""Scales of a run table: what varies, in which units a law counts it, and which domain stands for a target."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Inputs, Setting
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

# Token counts within five per cent are one scale: budgets are rounded to whole steps.
SAME = 1.05


@dataclass(frozen=True)
class Scales:
    """Units and ranges of tokens and size.

    Attributes
    ----------
    tokens, parameters : float
        References, geometric means of the smallest and the largest; parameters is 0 when the table has none.
    tokens_vary, parameters_vary : bool
        Whether the table holds more than one token count, or model size.
    largest_tokens, largest_parameters : float
        The end of what was seen.
    """

    tokens: float
    parameters: float
    tokens_vary: bool
    parameters_vary: bool
    largest_tokens: float
    largest_parameters: float

    @classmethod
    def of(cls, table: RunTable) -> Scales:
        """Read the scales of a table; raises MixtureError when only some runs have a size."""
        unknown = np.isnan(table.parameters)
        if unknown.any() and not unknown.all():
            row = table.runs[int(np.flatnonzero(unknown)[0])]
            raise MixtureError(f"run {row!r} has no parameters while others do; fill the column, or leave it out")
        sizes = np.array([0.0]) if unknown.all() else table.parameters
        return cls(
            tokens=float(np.sqrt(table.tokens.min() * table.tokens.max())),
            parameters=float(np.sqrt(sizes.min() * sizes.max())),
            tokens_vary=bool(table.tokens.max() > SAME * table.tokens.min()),
            parameters_vary=bool(sizes.max() > SAME * sizes.min()),
            largest_tokens=float(table.tokens.max()),
            largest_parameters=float(sizes.max()),
        )

    @property
    def tokens_seen(self) -> tuple[float, float]:
        """Smallest and largest number of tokens; the reference is the middle of their logs."""
        return self.tokens**2 / self.largest_tokens, self.largest_tokens

    @property
    def parameters_seen(self) -> tuple[float, float]:
        """Smallest and largest model size; zeros when the table has none."""
        largest = self.largest_parameters
        return (self.parameters**2 / largest, largest) if largest else (0.0, 0.0)

    def beyond_the_only(self, tokens: float, parameters: float) -> float:
        """Return how many factors of e lie between a scale and the only one seen; what varied counts as none."""
        of_tokens = 0.0 if self.tokens_vary else np.log(tokens / self.tokens)
        unknown = self.parameters_vary or not self.parameters or np.isnan(parameters)
        return float(np.hypot(of_tokens, 0.0 if unknown else np.log(parameters / self.parameters)))

    def inputs(
        self, weights: Array, tokens: npt.ArrayLike, parameters: npt.ArrayLike, unique: Array | None = None
    ) -> Inputs:
        """Return the inputs of laws; a scale that did not vary in the table has no effect.

        ``unique`` are the tokens of text of each domain, (n, m) or (m,), None where they are not known.
        """
        n = len(weights)
        tokens, parameters = np.broadcast_to(np.asarray(tokens, float), n), np.broadcast_to(parameters, n)
        if self.parameters_vary and np.isnan(parameters).any():
            raise MixtureError("the law depends on the model size, and none is given: name the number of parameters")
        zero = np.zeros(n)
        return Inputs(
            weights=np.asarray(weights, float),
            log_tokens=np.log(tokens / self.tokens) if self.tokens_vary else zero,
            log_parameters=np.log(parameters / self.parameters) if self.parameters_vary else zero,
            passes=None if unique is None else passes(tokens, np.broadcast_to(unique, np.shape(weights))),
        )

    def of_table(self, table: RunTable) -> Inputs:
        """Return the inputs of a table's runs; rows of one mixture, size and text count as one run's checkpoints."""
        inputs = self.inputs(table.weights, table.tokens, table.parameters, table.unique)
        unique = np.empty((len(table), 0)) if table.unique is None else table.unique
        designs = np.column_stack([np.round(table.weights, 6), np.nan_to_num(table.parameters), unique])
        _, run = np.unique(designs, axis=0, return_inverse=True)
        return replace(inputs, run=run.ravel())

    def within(self, x: Inputs) -> tuple[Inputs, Inputs]:
        """Return the inputs with tokens, and with sizes, moved to the nearest that was seen."""
        # References are the middle of the logs, so that the ends lie equally far from it.
        tokens = np.log(self.largest_tokens / self.tokens) if self.tokens_vary else 0.0
        sizes = np.log(self.largest_parameters / self.parameters) if self.parameters_vary else 0.0
        return (
            replace(x, log_tokens=np.clip(x.log_tokens, -tokens, tokens)),
            replace(x, log_parameters=np.clip(x.log_parameters, -sizes, sizes)),
        )

    def setting(self, table: RunTable, target: str) -> Setting:
        """Return the setting in which one target is fitted."""
        return Setting(
            domains=table.domains,
            own=own_domain(table, target),
            reference_tokens=self.tokens,
            reference_parameters=self.parameters,
            tokens_vary=self.tokens_vary,
            parameters_vary=self.parameters_vary,
            repeats=most_passes(table) > 1,
        )

    def nearest(self, tokens: float, parameters: float) -> tuple[float, float]:
        """Return the scale of the table that is nearest to a run's; what did not vary stays as it is."""
        seen = float(np.clip(tokens, *self.tokens_seen)) if self.tokens_vary else tokens
        size = float(np.clip(parameters, *self.parameters_seen)) if self.parameters_vary else parameters
        return seen, size

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def passes(tokens: Array, unique: Array) -> Array:
    """Return how often runs of ``tokens`` (n,) would read ``unique`` tokens (n, m) over, reading nothing else."""
    return np.asarray(tokens)[:, None] / np.maximum(unique, 1e-6)


def most_passes(table: RunTable) -> float:
    """Return how often the most repeated text of any run was read; 0 where the table does not say."""
    return 0.0 if table.unique is None else float((table.weights * passes(table.tokens, table.unique)).max())


def own_domain(table: RunTable, target: str) -> int:
    """Return the column of the domain of the target's name, else of the one that lowers its loss the most."""
    if target in table.domains:
        return table.domains.index(target)
    rows = table.measured(target)
    logs = np.log(table.weights[rows] + 1e-2)
    loss = table.losses[rows, table.targets.index(target)]
    logs, loss = logs - logs.mean(0), loss - loss.mean()
    spread = np.sqrt((logs**2).sum(0) * (loss**2).sum())
    return int(np.argmin(np.where(spread > 0, (logs * loss[:, None]).sum(0) / np.maximum(spread, 1e-300), 0.0)))

"""Laws fitted to every target of a run table: predictions, their intervals, and law.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # scipy.stats takes 0.7 s to import, in every rank of a job

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import registry
from autoscale_ds.laws.base import Inputs, TargetModel
from autoscale_ds.laws.scales import Scales
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

# 48 draws, scaled as a whole, give the spread of one prediction within about ten per cent.
DRAWS = 48
# 5 % and 95 % points of a Gaussian: intervals are 90 % throughout.
GAUSSIAN_90 = 1.6448536269514722
# A scale this many times outside the table's is worth a warning.
FAR = 1.5
# Fewer runs than this are refused.
FEWEST = 4


@dataclass(frozen=True)
class Average:
    """A fixed average of several fits of one target; its noise is the average of theirs."""

    parts: tuple[TargetModel, ...]
    shares: tuple[float, ...]

    @property
    def noise(self) -> float:
        """Standard deviation of a run around the prediction, nats."""
        return float(np.dot(self.shares, [part.noise for part in self.parts]))

    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""
        return np.asarray(sum(s * part.predict(x) for s, part in zip(self.shares, self.parts, strict=True)))

    def slope(self, x: Inputs) -> Array:
        """Return the derivative by each weight (n, m)."""
        pairs = zip(self.shares, self.parts, strict=True)
        return np.asarray(sum(s * part.slope(x) for s, part in pairs))  # type: ignore[attr-defined]

    def members(self) -> list[Average]:
        """Return alternatives, draw d of each part together."""
        drawn = zip(*(part.members() for part in self.parts), strict=False)
        return [Average(parts, self.shares) for parts in drawn]


@dataclass(frozen=True)
class LossModel:
    """Predicts the loss of every target for any mixture and scale.

    Attributes
    ----------
    law : str
        A law's name, or ``average`` of several.
    domains : tuple of str
        Names of the m domains, in the order of the weights.
    scales : Scales
        Reference tokens and size, and the range seen in the fit.
    targets : mapping of str to TargetModel
        The fitted law of each target.
    selection : sequence of mappings
        The comparison that chose the law, one row a law; empty when it was named.
    source : mapping
        Number of runs and files it was fitted to.
    """

    law: str
    domains: tuple[str, ...]
    scales: Scales
    targets: Mapping[str, TargetModel]
    selection: Sequence[Mapping[str, Any]] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    def inputs(self, weights: Array, tokens: npt.ArrayLike, parameters: npt.ArrayLike = np.nan) -> Inputs:
        """Return inputs for weights (n, m) in the order of ``domains``, tokens and size (n,) or one for all."""
        return self.scales.inputs(weights, tokens, parameters)

    def predict(self, x: Inputs) -> Array:
        """Return losses (n, k), nats per token, targets in the order of ``targets``."""
        return np.stack([model.predict(x) for model in self.targets.values()], axis=1)

    def slope(self, x: Inputs) -> Array:
        """Return the derivative of each loss by each weight, (n, k, m); raises AttributeError for trees."""
        return np.stack([model.slope(x) for model in self.targets.values()], axis=1)  # type: ignore[attr-defined]

    def size(self, parameters: float | None) -> float:
        """Return the model size of a prediction, NaN where none is needed; raise MixtureError if it is missing."""
        if parameters is not None:
            return parameters
        if self.scales.parameters_vary:
            raise MixtureError("this law depends on the model size: give --parameters, 774e6 for example")
        return math.nan

    @property
    def smooth(self) -> bool:
        """Whether the derivative exists."""
        return all(hasattr(model, "slope") for model in self.targets.values())

    @property
    def noise(self) -> Array:
        """Return the noise of each target (k,), nats."""
        return np.array([model.noise for model in self.targets.values()])

    def members(self) -> list[LossModel]:
        """Return alternatives, one for each draw, with the draws of all targets side by side."""
        drawn = [model.members() for model in self.targets.values()]
        return [
            LossModel(self.law, self.domains, self.scales, dict(zip(self.targets, models, strict=True)))
            for models in zip(*drawn, strict=False)
        ]

    def intervals(self, x: Inputs, *, of_a_run: bool = False) -> tuple[Array, Array]:
        """Return the ends of 90 % intervals, (n, k) each.

        Parameters
        ----------
        of_a_run : bool
            For the loss a single run would show, noise included, instead of its expectation.
        """
        centre = self.predict(x)
        drawn = [member.predict(x) for member in self.members()]
        spread = np.std(drawn, axis=0, ddof=1) if len(drawn) > 1 else np.zeros_like(centre)
        # Student's t: the spread is itself estimated from few members.
        times = float(stdtrit(max(len(drawn) - 1, 1), 0.95))
        half = times * np.sqrt(spread**2 + (self.noise**2 if of_a_run else 0.0))
        return centre - half, centre + half

    def with_source(self, **source: Any) -> LossModel:
        """Return the model with a note of what it was fitted to."""
        return replace(self, source=source)

    def warnings(self, weights: Mapping[str, float], tokens: float, parameters: float | None) -> list[str]:
        """Return warnings about a prediction at these weights and this scale, one line each."""
        seen = self.source.get("largest_weights", {})
        far = [name for name, weight in weights.items() if weight > FAR * seen.get(name, 1.0) + 0.01]
        texts = [
            f"no run gave {name} more than {seen[name]:.3g}, the optimum gives it {weights[name]:.3g}: a guess; "
            f"add runs, or give --cap {name}={seen[name]:.3g}"
            for name in far
        ]
        return [*texts, *(text for text in [self._beyond(tokens, parameters)] if text)]

    def _beyond(self, tokens: float | None, parameters: float | None) -> str | None:
        """Return a warning when a scale outside what was trained is asked for and the law cannot know it."""
        if tokens and not self.scales.tokens_vary and tokens > FAR * self.scales.largest_tokens:
            return (
                f"every run has about {self.scales.largest_tokens:.3g} tokens: the law says nothing about how the best "
                f"mixture shifts by {tokens:.3g}; fit runs at several token counts to know"
            )
        if parameters and not self.scales.parameters_vary and self.scales.largest_parameters:
            far = parameters / self.scales.largest_parameters
            if max(far, 1 / far) > FAR:
                return (
                    f"every run has {self.scales.largest_parameters:.3g} parameters: the law ignores the size asked for"
                )
        return None


def fit_law(table: RunTable, name: str, *, seed: int = 0, starts: int = 2, draws: int = DRAWS) -> LossModel:
    """Fit one law to every target of a table.

    Raises
    ------
    MixtureError
        For a law the table cannot support: several token counts or sizes missing, or too few rows.
    """
    name, scales = registry.check_name(name), Scales.of(table)
    refusal = unsupported(table, name)
    if refusal:
        raise MixtureError(refusal)
    fitted = {target: fit_target(table, scales, name, target, seed, starts, draws) for target in table.targets}
    return LossModel(name, table.domains, scales, fitted)


def fit_target(
    table: RunTable, scales: Scales, name: str, target: str, seed: int = 0, starts: int = 2, draws: int = 0
) -> TargetModel:
    """Fit one law to one target, on the runs that measured it."""
    rows = np.flatnonzero(table.measured(target))
    y = table.losses[rows, table.targets.index(target)]
    x, setting = scales.of_table(table).take(rows), scales.setting(table, target)
    fitted: TargetModel = registry.LAWS[name].fit(x, y, setting, seed=seed, starts=starts, draws=draws)
    return fitted


def usable_rows(table: RunTable) -> int:
    """Return how many runs measured the usual target; raises MixtureError for a target hardly any run measured.

    Where a few targets were measured less often, their fits lean on the priors and say so by wide intervals.
    """
    counts = {target: int(table.measured(target).sum()) for target in table.targets}
    rare = min(counts, key=lambda target: counts[target])
    if counts[rare] < FEWEST:
        raise MixtureError(
            f"target {rare!r} was measured in {counts[rare]} usable rows, expected at least {FEWEST}; leave it out "
            "with --targets, or add runs"
        )
    return int(np.median(list(counts.values())))


def unsupported(table: RunTable, name: str) -> str | None:
    """Return why a table cannot support a law, or None when it can."""
    name = registry.check_name(name)
    rows = usable_rows(table)
    law, setting = registry.LAWS[name], Scales.of(table).setting(table, table.targets[0])
    if missing := law.lacks(setting):
        return (
            f"law {name} describes how losses change with scale, and the table has one; add runs {missing}, or choose "
            "a law without scale (--law exposure)"
        )
    needed = law.fewest_rows(setting)
    if rows < needed:
        needs, instead = law.says_it_needs(setting)
        return f"law {name} {needs} {needed} runs, the targets have {rows}; add runs, or {instead}"
    return None

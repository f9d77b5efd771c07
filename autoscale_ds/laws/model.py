"""Laws fitted to every target of a run table: predictions, their intervals, and what to warn of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # scipy.stats takes 0.7 s to import, in every rank of a job

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Inputs, TargetModel
from autoscale_ds.laws.calibration import Calibration
from autoscale_ds.laws.scales import SAME, Scales
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.table import RunTable

# 5 % and 95 % points of a Gaussian: intervals are 90 % throughout.
GAUSSIAN_90 = 1.6448536269514722
# A scale this many times outside the table's is worth a warning.
FAR = 1.5
# And this many times, worth a loud one.
MUCH = 8.0
# Begins the name of a model that averages laws.
AVERAGE = "average of "


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
    calibration : Calibration
        How far intervals are widened; by default only beyond the table's scales.
    unique : array (m,) or None
        Tokens of text of each domain in the corpus of the runs it is asked about, see ``with_unique``.
    """

    law: str
    domains: tuple[str, ...]
    scales: Scales
    targets: Mapping[str, TargetModel]
    selection: Sequence[Mapping[str, Any]] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    unique: Array | None = None

    def inputs(
        self,
        weights: Array,
        tokens: npt.ArrayLike,
        parameters: npt.ArrayLike = np.nan,
        unique: Array | None = None,
    ) -> Inputs:
        """Return inputs for weights (n, m) in the order of ``domains``, tokens and size (n,) or one for all.

        Parameters
        ----------
        unique : array (n, m) or (m,), optional
            Tokens of text of each domain that the runs draw from; by default those of ``with_unique``.

        Raises
        ------
        MixtureError
            When the law needs a size or unique tokens that are not known.
        """
        known = self.unique if unique is None else unique
        if known is None and self.needs_unique:
            raise MixtureError(
                f"law {self.law} counts how often text is repeated, so it needs the tokens of text of every domain: "
                "give --corpus DIR, or --unique FILE or NAME=TOKENS,…"
            )
        return self.scales.inputs(weights, tokens, parameters, known)

    def inputs_of(self, table: RunTable) -> Inputs:
        """Return the inputs of a table's runs, whose domains are in the order of ``domains``.

        Raises
        ------
        MixtureError
            When the law counts how often text is repeated, and the table does not say.
        """
        if self.needs_unique and table.unique is None:
            raise MixtureError(
                f"law {self.law} counts how often text is repeated, so the table needs the columns unique/<domain>"
            )
        return self.inputs(table.weights, table.tokens, table.parameters, table.unique)

    def with_unique(self, tokens: Mapping[str, float]) -> LossModel:
        """Return the model with the tokens of text of each domain that the runs it is asked about draw from.

        Raises
        ------
        MixtureError
            When a domain of the law is missing.
        """
        missing = [name for name in self.domains if name not in tokens]
        if missing:
            raise MixtureError(f"the unique tokens of {missing[0]!r} are not known; they are of: {', '.join(tokens)}")
        return replace(self, unique=np.array([float(tokens[name]) for name in self.domains]))

    @property
    def needs_unique(self) -> bool:
        """Whether the law counts how often text is repeated."""
        return any(_needs_unique(model) for model in self.targets.values())

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
            LossModel(
                self.law, self.domains, self.scales, dict(zip(self.targets, models, strict=True)), unique=self.unique
            )
            for models in zip(*drawn, strict=False)
        ]

    def components(self) -> list[tuple[float, LossModel]]:
        """Return the laws an average is made of, each with its share, the largest first; itself where it is none."""
        first = next(iter(self.targets.values()))
        if not isinstance(first, Average):
            return [(1.0, self)]
        names = self.law.removeprefix(AVERAGE).split(", ")
        found = []
        for j, (share, name) in enumerate(zip(first.shares, names, strict=True)):
            targets = {target: average.parts[j] for target, average in self.targets.items()}  # type: ignore[attr-defined]
            found.append((share, replace(self, law=name, targets=targets)))
        return sorted(found, key=lambda pair: -pair[0])

    def intervals(self, x: Inputs, *, of_a_run: bool = False) -> tuple[Array, Array]:
        """Return the ends of 90 % intervals, (n, k) each.

        Parameters
        ----------
        of_a_run : bool
            For the loss a single run would show, noise included, instead of its expectation.
        """
        centre = self.predict(x)
        beyond = self.change_beyond(x)
        wrong = np.hypot(self.calibration.tokens * beyond["tokens"], self.calibration.parameters * beyond["parameters"])
        deviation = np.hypot(self.spread(x), self.noise if of_a_run else 0.0)
        inside = self.calibration.factors(tuple(self.targets)) * deviation
        # Student's t: the spread is itself estimated from few members.
        members = len(self.members())
        half = (float(stdtrit(members - 1, 0.95)) if members > 1 else GAUSSIAN_90) * np.hypot(inside, wrong)
        return np.maximum(centre - half, 0.0), centre + half  # no loss is negative

    def spread(self, x: Inputs) -> Array:
        """Return the standard deviation of predictions over the ensemble (n, k); 0 without one."""
        drawn = [member.predict(x) for member in self.members()]
        return np.std(drawn, axis=0, ddof=1) if len(drawn) > 1 else np.zeros((len(x), len(self.targets)))

    def change_beyond(self, x: Inputs) -> dict[str, Array]:
        """Return how far losses change from the edge of the table's tokens and parameters, (n, k) each; 0 inside."""
        tokens, parameters = self.scales.within(x)
        at_edge = self.predict(tokens)
        return {
            "tokens": np.abs(self.predict(x) - at_edge),
            "parameters": np.abs(at_edge - self.predict(replace(tokens, log_parameters=parameters.log_parameters))),
        }

    def with_source(self, **source: Any) -> LossModel:
        """Return the model with more notes of what it was fitted to."""
        return replace(self, source={**self.source, **source})

    @property
    def notes(self) -> list[str]:
        """Warnings of the fit itself, one line each."""
        return list(self.source.get("warnings", ()))

    @property
    def largest_weights(self) -> dict[str, float]:
        """Largest weight that any run gave a domain, where the law knows it."""
        return dict(self.source.get("largest_weights", {}))

    @property
    def bundle(self) -> Bundle | None:
        """Which of the domains stands for several that keep their proportions."""
        return Bundle.from_json(self.source["bundle"]) if "bundle" in self.source else None

    def refuse_beyond(self, tokens: float, parameters: float | None) -> None:
        """Raise MixtureError when trees are asked for a scale outside the table's: they stay constant there."""
        if self.smooth:
            return
        known = self.scales
        axes = (
            (tokens, known.tokens_vary, known.tokens_seen, "tokens"),
            (parameters, known.parameters_vary, known.parameters_seen, "parameters"),
        )
        for asked, varies, (smallest, largest), what in axes:
            if varies and asked and not smallest / SAME <= asked <= largest * SAME:
                raise MixtureError(
                    f"law {self.law} cannot say what happens at {asked:g} {what}: trees stay constant outside the "
                    f"table's {smallest:g} to {largest:g}; fit another law (--law auto)"
                )

    def warnings(
        self, weights: Mapping[str, float], tokens: float, parameters: float | None, *, optimum: bool = False
    ) -> list[str]:
        """Return warnings about a prediction at these weights and this scale, one line each.

        For an optimum also where it lies at the largest weight that was seen.
        """
        texts = self.notes
        for name, seen in self.largest_weights.items():
            weight = weights[name]
            if weight > FAR * seen + 0.01:
                texts.append(f"no run gave {name} more than {seen:.3g}, here it gets {weight:.3g}: a guess; add runs")
            elif optimum and 0 <= seen - weight < 1e-6 and seen < 1:
                texts.append(
                    f"{name} is held at {seen:.3g}, the most any run gave it; add runs with more of it, or give "
                    "--allow-unseen"
                )
        known, measured = self.scales, self.calibration.origins
        texts += self._beyond_passes(weights, tokens)
        texts += _beyond("tokens", tokens, known.tokens_vary, known.tokens_seen, measured.get("tokens", 0))
        if parameters and not known.largest_parameters:
            texts.append("the law's runs have no model size, so the one given changes nothing")
        elif parameters:
            origins = measured.get("parameters", 0)
            texts += _beyond("parameters", parameters, known.parameters_vary, known.parameters_seen, origins)
        return texts

    def _beyond_passes(self, weights: Mapping[str, float], tokens: float) -> list[str]:
        """Return a warning where a domain is repeated more often than in any run, and the law counts that."""
        seen = self.source.get("most_passes")
        if not self.needs_unique or self.unique is None or seen is None:
            return []
        times = {n: weights[n] * tokens / max(u, 1.0) for n, u in zip(self.domains, self.unique, strict=True)}
        worst = max(times, key=lambda name: times[name])
        if times[worst] <= max(FAR * seen, 1.0):
            return []
        return [
            f"{worst} is read {times[worst]:.3g} times over, and no run read any domain more than {seen:.3g} times: "
            "what that is worth is a guess; plan probes with launch/sweep.py plan --match-repetition"
        ]


def _needs_unique(model: TargetModel) -> bool:
    if isinstance(model, Average):
        return any(_needs_unique(part) for part in model.parts)
    return bool(getattr(getattr(model, "law", None), "needs_unique", False))


def _beyond(what: str, asked: float, varies: bool, ends: tuple[float, float], origins: int) -> list[str]:
    """Return a warning where a scale outside what was trained is asked for, the louder the farther."""
    smallest, largest = ends
    times = max(asked / largest, smallest / asked)
    if times <= FAR:
        return []
    if not varies:
        return [
            f"every run has about {largest:.3g} {what}: the law says nothing about how losses and the best mixture "
            f"shift by {asked:.3g}; fit runs with several numbers of {what} to know"
        ]
    said = f"{asked:.3g} {what} are {asked / largest:.3g} times the largest of the table ({largest:.3g})"
    if asked < smallest:
        said = f"{asked:.3g} {what} are 1/{times:.3g} of the smallest of the table ({smallest:.3g})"
    if times > MUCH:
        return [f"{said}, MUCH FARTHER than anything that could be checked: take the result as a guess, and add runs"]
    if not origins:
        return [f"{said}, and the table has too few numbers of {what} to check how well the law extrapolates"]
    return [f"{said}; the intervals are as wide as the law's errors were where larger runs were left out"]

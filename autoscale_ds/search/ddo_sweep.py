"""The DDO runs of one scale with all their seeds: effects beside noise, the optimum, and its intervals.

A curve of three parameters through three points has no residual, so its error comes from repeated runs. Every value is
drawn anew with its measured noise, the curves are fitted and solved again, and the spread of the optima is the
interval. The error of the form of the curve is not included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import repeats
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.repeats import Effect
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search.ddo import DDO, Curve, fit_curve, fit_curves, perturbations
from autoscale_ds.search.uncertainty import DRAWS, Intervals, intervals

# A curve that hardly falls: the allocation leaves its domain on the floor.
FLAT = Curve(a=1.0, b=1e-9, c=0.0)


@dataclass(frozen=True)
class DDOSweep:
    """A base run, its perturbations, and what they change.

    Attributes
    ----------
    table : RunTable
        One row a seed.
    base : str
        Name of the base run, without its seed.
    objective : Objective
        What is minimised.
    changed : mapping of str to (domain, factor)
        The perturbations by name: whose tokens, in multiples of the base run's.
    effects : sequence of Effect
        Of every perturbation against the base, seed by seed.
    """

    table: RunTable
    base: str
    objective: Objective
    changed: Mapping[str, tuple[str, float]]
    effects: Sequence[Effect]

    @classmethod
    def of(cls, table: RunTable, base: str, objective: Objective) -> DDOSweep:
        """Recognise the perturbations of a base run.

        Raises
        ------
        MixtureError
            For an unknown base run, or a perturbation that shares no seed with it.
        """
        means = repeats.averaged(table)
        changed = {means.runs[row]: (domain, factor) for row, domain, factor in perturbations(means, base)}
        effects = repeats.effects(table, base, objective, list(changed)) if changed else []
        return cls(table, base, objective, changed, effects)

    @property
    def is_clear(self) -> bool | None:
        """Whether the effects are larger than the noise between seeds; None where no run was repeated."""
        return repeats.is_clear(self.effects)

    def refuse_noise(self) -> None:
        """Raise MixtureError when the effects are known not to be larger than the noise."""
        if self.is_clear is not False:
            return
        raise MixtureError(
            f"the perturbations around {self.base!r} do not stand out of the noise between seeds (median "
            f"{np.median([effect.ratio for effect in self.effects]):.2g} standard errors, 2 wanted): repeat them with "
            "more seeds (sweep.py plan --seeds), train longer, or fit noise with --accept-noise"
        )

    @cached_property
    def fitted(self) -> DDO:
        """The curves through the effects; raises MixtureError where a domain has none."""
        return DDO.from_table(repeats.paired(self.table, self.base, list(self.changed)), self.base, self.objective)

    def curves(self) -> dict[str, Curve]:
        """Return the curves there are, also where some domain has none."""
        unit, points = float(np.mean(self._base_values())), self._points()
        return fit_curves({name: [(x, unit + change) for x, change in runs] for name, runs in points.items()}, unit)[0]

    def redrawn(self, *, draws: int = DRAWS, seed: int = 0) -> list[DDO]:
        """Return fits to the effects plus simulated noise between seeds; none where the noise is not known.

        Notes
        -----
        All effects are differences from one base, whose noise they share: half of each variance is drawn once for
        all. The level of the base itself, the unit of the curves, is drawn too. A domain that a draw shows as useless
        (the objective rises with it) is flat in that draw.
        """
        if self.is_clear is None:
            return []
        rng = np.random.default_rng([seed, 5])
        return [self._redraw(rng) for _ in range(draws)]

    def optimum(
        self, redrawn: Sequence[DDO] = (), *, floor: float = 0.0, caps: Mapping[str, float] | None = None
    ) -> tuple[DomainWeights, Intervals]:
        """Return the best weights at this scale and their 90 % intervals over fits drawn anew."""
        best = self.fitted.optimum(floor=floor, caps=caps)
        return best, intervals([each.optimum(floor=floor, caps=caps) for each in redrawn], best)

    def _redraw(self, rng: np.random.Generator) -> DDO:
        values, fitted = self._base_values(), self.fitted
        shared, unit = rng.normal(), float(np.mean(values)) + _standard_error(values) * rng.normal()
        error = {self.changed[effect.design]: effect.standard_error / np.sqrt(2) for effect in self.effects}
        curves = {}
        for name, runs in self._points().items():
            moved = [(x, change + error[name, x] * (rng.normal() - shared)) for x, change in runs]
            points = [(1.0, 1.0), *((x, (unit + change) / unit) for x, change in moved)]
            curves[name] = _curve_or_flat(points, fitted.curves[name])
        return DDO(fitted.base, fitted.tokens, curves)

    def _points(self) -> dict[str, list[tuple[float, float]]]:
        """Return (factor, change of the objective) of the perturbations of each domain."""
        points: dict[str, list[tuple[float, float]]] = {}
        for effect in self.effects:
            domain, factor = self.changed[effect.design]
            points.setdefault(domain, []).append((factor, effect.difference))
        return points

    def _base_values(self) -> list[float]:
        values = zip(self.table.designs, self.objective.of_table(self.table), strict=True)
        return [float(value) for design, value in values if design == self.base]


def _standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean over seeds; 0 for one seed, which tells none."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _curve_or_flat(points: Sequence[tuple[float, float]], near: Curve) -> Curve:
    try:
        return fit_curve(*zip(*points, strict=True), starts=[(near.a, near.b)], tolerance=1e-9)
    except MixtureError:
        return FLAT

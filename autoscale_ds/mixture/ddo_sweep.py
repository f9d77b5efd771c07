"""The DDO runs of one scale with all their seeds: effects beside noise, the optimum, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import repeats
from autoscale_ds.mixture.ddo import DDO, perturbations
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.repeats import Effect
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.uncertainty import Intervals, ddo_draws, intervals
from autoscale_ds.mixture.weights import DomainWeights


@dataclass(frozen=True)
class DDOSweep:
    """A base run, its perturbations, and the curves through their means.

    Attributes
    ----------
    table : RunTable
        One row a seed.
    base : str
        Name of the base run, without its seed.
    objective : Objective
    fitted : DDO
    effects : sequence of Effect
        Of every perturbation against the base.
    """

    table: RunTable
    base: str
    objective: Objective
    fitted: DDO
    effects: Sequence[Effect]

    @classmethod
    def of(cls, table: RunTable, base: str, objective: Objective) -> DDOSweep:
        """Recognise the perturbations of a base run and fit them; raises MixtureError as ``DDO.from_table``."""
        means = repeats.averaged(table)
        fitted = DDO.from_table(means, base, objective)
        designs = [means.runs[row] for row, _, _ in perturbations(means, base)]
        return cls(table, base, objective, fitted, repeats.effects(table, base, objective, designs))

    @property
    def is_clear(self) -> bool | None:
        """Whether the effects stand out of the noise between seeds; None where no run was repeated."""
        return repeats.is_clear(self.effects)

    def refuse_noise(self) -> None:
        """Raise MixtureError when the effects are known not to stand out of the noise."""
        if self.is_clear is not False:
            return
        raise MixtureError(
            f"the perturbations around {self.base!r} do not stand out of the noise between seeds (median "
            f"{np.median([effect.ratio for effect in self.effects]):.2g} standard errors, 2 wanted): repeat them with "
            "more seeds (sweep.py plan --seeds), train longer, or fit noise with --accept-noise"
        )

    def optimum(
        self, *, floor: float = 0.0, caps: Mapping[str, float] | None = None, seed: int = 0
    ) -> tuple[DomainWeights, Intervals]:
        """Return the best weights at this scale and their 90 % intervals, empty where the noise is not known."""
        best = self.fitted.optimum(floor=floor, caps=caps)
        if self.is_clear is None:
            return best, {}
        draws = ddo_draws(
            self.fitted, self.table, self.base, self.objective, self.effects, floor=floor, caps=caps, seed=seed
        )
        return best, intervals(draws)

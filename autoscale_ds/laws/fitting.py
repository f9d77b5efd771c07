"""Formulas of laws, and one of them fitted to the losses of a target."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds.laws.base import Inputs, Law, Natural, Parameter, Setting
from autoscale_ds.laws.estimation import decode, estimate, natural
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.jsonfiles import Field


@dataclass(frozen=True)
class Fit:
    """A law fitted to one target.

    Attributes
    ----------
    law : Formula
        The formula.
    setting : Setting
        Domains and what varies in the table it was fitted to.
    layout : list of Parameter
        The law's parameters, in the order of the fitted numbers.
    theta : array (p,)
        Internal parameters (see Parameter).
    noise : float
        Standard deviation of a run around the law, nats.
    draws : array (d, p)
        Equally likely alternatives to ``theta``; the spread of their predictions is the uncertainty of the law.
    """

    law: Formula
    setting: Setting
    layout: list[Parameter]
    theta: Array
    noise: float
    draws: Array

    @property
    def natural(self) -> dict[str, Array]:
        """Parameters in natural units: scalars (), and (m,) for those of each domain."""
        return natural(self.layout, self.theta, len(self.setting.domains))

    def predict(self, x: Inputs) -> Array:
        """Return losses, shape (n,)."""
        return self.law.evaluate(self.natural, x, self.setting)[0]

    def slope(self, x: Inputs) -> Array:
        """Return the derivative by each weight, shape (n, m)."""
        return self.law.slope(self.natural, x, self.setting)

    def members(self) -> list[Fit]:
        """Return one fit for each draw."""
        return [Fit(self.law, self.setting, self.layout, theta, self.noise, theta[None]) for theta in self.draws]


class Formula(Law):
    """A law with named parameters."""

    @abstractmethod
    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return the parameters with starts fit for losses y (n,)."""

    @abstractmethod
    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses (n,) and the derivative by each natural parameter, (n,) or (n, m)."""

    @abstractmethod
    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative of the loss by each weight, shape (n, m)."""

    def num_parameters(self, setting: Setting) -> int:
        """Return how many numbers are fitted."""
        m = len(setting.domains)
        return sum(m if q.per_domain else 1 for q in self.parameters(setting, np.array([1.0, 2.0])))

    def fewest_rows(self, setting: Setting) -> int:
        """Return how many runs a fit asks for: as many as parameters, unless its priors can stand in."""
        return self.num_parameters(setting)

    def says_it_needs(self, setting: Setting) -> tuple[str, str]:
        """Return the number of parameters in words, and another law."""
        has = f"has {self.num_parameters(setting)} parameters for {len(setting.domains)} domains and needs"
        return has, "choose a smaller law (--law auto does)"

    def fit(
        self,
        x: Inputs,
        y: Array,
        setting: Setting,
        *,
        seed: int = 0,
        starts: int = 2,
        draws: int = 0,
        widen: float = 1.0,
    ) -> Fit:
        """Return the formula fitted to losses y (n,), see ``estimate``."""
        layout = self.parameters(setting, y)
        found = estimate(
            lambda p: self.evaluate(p, x, setting),
            layout,
            y,
            m=len(setting.domains),
            run=x.run,
            seed=seed,
            starts=starts,
            draws=draws,
            widen=widen,
        )
        return Fit(self, setting, layout, found.theta, found.noise, found.draws)

    def encode(self, fitted: Fit) -> dict[str, Any]:
        """Return parameters by name, those of domains by domain, and the ensemble."""
        values = fitted.natural
        parameters = {
            name: float(v) if v.ndim == 0 else dict(zip(fitted.setting.domains, map(float, v), strict=True))
            for name, v in values.items()
        }
        return {
            "formula": self.formula,
            "own": fitted.setting.domains[fitted.setting.own],
            "noise": fitted.noise,
            "parameters": parameters,
            # Internal parameters in the order above, one line a draw; seven digits are beyond their spread.
            "draws": [" ".join(f"{number:.7g}" for number in draw) for draw in fitted.draws],
        }

    def decode(self, entry: Field, setting: Setting) -> Fit:
        """Return the fit that ``encode`` described."""
        layout = self.parameters(setting, np.array([1.0, 2.0]))  # only names and forms are used after fitting
        found = decode(layout, entry, setting.domains)
        return Fit(self, setting, layout, found.theta, found.noise, found.draws)

"""Laws that add up over domains, or are linear inside one function: additive, linear, log-linear, Data Mixing Laws."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from autoscale_ds.laws.base import (
    Inputs,
    Natural,
    Parameter,
    Setting,
    amplitude,
    level,
    scale_parameters,
    scale_terms,
)
from autoscale_ds.laws.fitting import Formula
from autoscale_ds.mixture.arrays import Array


class Additive(Formula):
    """``E + sum_i c_i (D w_i + a_i)^-b_i`` with free coefficients: AutoScale's sum of power laws.

    Kang et al., arXiv 2407.20177, eq. 3 has unit coefficients because each curve is scaled by hand. D counts in
    multiples of the reference budget, so offsets are in the units of weights at that budget.
    """

    name: ClassVar[str] = "additive"
    formula: ClassVar[str] = "E + sum_i c_i (D w_i + a_i)^-b_i [+ A/N^alpha]"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, c, a and b, and the size's parameters."""
        per_domain = float(np.log(max(float(y.std()), 1e-6) / len(setting.domains)))
        size = [q for q in scale_parameters(setting, y) if q.name in ("A", "alpha")]
        return [
            level(y),
            Parameter("c", per_domain, per_domain - 9, per_domain + 7, width=2.0, per_domain=True, form="log"),
            Parameter("a", np.log(0.02), np.log(1e-5), np.log(10.0), width=1.5, per_domain=True, form="log"),
            Parameter("b", np.log(0.1), np.log(0.03), np.log(2.5), width=1.0, per_domain=True, form="log"),
            *size,
        ]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        amounts = x.weights * np.exp(x.log_tokens)[:, None] + p["a"]
        powers = amounts ** -p["b"]
        parts = p["c"] * powers
        scale, by_scale = scale_terms(p, x)
        by = {"c": powers, "a": -p["b"] * parts / amounts, "b": -parts * np.log(amounts)}
        return p["E"] + parts.sum(1) + scale, {"E": np.ones(len(x)), **by, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        tokens = np.exp(x.log_tokens)[:, None]
        return -p["b"] * p["c"] * (x.weights * tokens + p["a"]) ** (-p["b"] - 1) * tokens


class Linear(Formula):
    """``sum_i t_i w_i``: every domain's contribution is proportional. A baseline."""

    name: ClassVar[str] = "linear"
    formula: ClassVar[str] = "c + sum_i t_i w_i [+ A/N^alpha + B_D/D^beta]"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return c, t and the scale's parameters; t is relative to the mean loss."""
        spread = max(float(y.std()), 1e-6)
        bound = 1e3 * spread
        return [
            Parameter("c", float(y.mean()), float(y.mean()) - bound, float(y.mean()) + bound, jitter=spread),
            Parameter("t", 0.0, -bound, bound, width=10 * spread, per_domain=True, jitter=spread),
            *scale_parameters(setting, y),
        ]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        scale, by_scale = scale_terms(p, x)
        return p["c"] + x.weights @ p["t"] + scale, {"c": np.ones(len(x)), "t": x.weights, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return np.broadcast_to(p["t"], x.weights.shape).copy()


class DataMixingLaw(Formula):
    """``E + k exp(sum_i t_i w_i)``: Ye et al., arXiv 2403.16952, eq. 7; k stands in for a constant shift of t."""

    name: ClassVar[str] = "data-mixing"
    formula: ClassVar[str] = "E + k exp(sum_i t_i w_i) [+ A/N^alpha + B_D/D^beta]"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, k, t and the scale's parameters."""
        # A wide prior on t: RegMix's runs, with losses falling steeply from weight 0, need |t| of 10 to 50.
        return [
            level(y, 1.0),
            amplitude("k", y),
            Parameter("t", 0.0, -100.0, 100.0, width=17.0, per_domain=True, jitter=1.0),
            *scale_parameters(setting, y),
        ]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        growth = np.exp(np.minimum(x.weights @ p["t"], 50.0))  # a trial step may overshoot; e^50 is refused by its cost
        part = p["k"] * growth
        scale, by_scale = scale_terms(p, x)
        by = {"E": np.ones(len(x)), "k": growth, "t": part[:, None] * x.weights}
        return p.get("E", np.zeros(())) + part + scale, {**by, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return (p["k"] * np.exp(x.weights @ p["t"]))[:, None] * p["t"]


class LogLinear(DataMixingLaw):
    """``exp(c + sum_i t_i w_i)``: the log of the loss is linear. A baseline."""

    name: ClassVar[str] = "log-linear"
    formula: ClassVar[str] = "k exp(sum_i t_i w_i) [+ A/N^alpha + B_D/D^beta]"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return k, t and the scale's parameters."""
        centre = float(np.log(max(float(y.mean()), 1e-6)))
        return [
            Parameter("k", centre, centre - 5, centre + 5, form="log", jitter=0.1),
            Parameter("t", 0.0, -20.0, 20.0, width=5.0, per_domain=True, jitter=0.2),
            *scale_parameters(setting, y),
        ]

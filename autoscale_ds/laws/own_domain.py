"""Laws that know one domain: the target's own share, with tokens and size. BiMix, D-CPT, Chinchilla by domain."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from autoscale_ds.laws.base import (
    Inputs,
    Natural,
    Parameter,
    Setting,
    amplitude,
    exponent,
    level,
    scale_parameters,
    scale_terms,
)
from autoscale_ds.laws.fitting import Formula
from autoscale_ds.mixture.arrays import Array


def _offset(start: float = 1e-3) -> Parameter:
    """Return eps, added to the weight so that a domain that is off has a finite loss."""
    return Parameter("eps", np.log(start), np.log(1e-6), np.log(0.5), width=2.0, form="log")


def _in_own_column(derivative: Array, x: Inputs, setting: Setting) -> Array:
    slope = np.zeros_like(x.weights)
    slope[:, setting.own] = derivative
    return slope


class Chinchilla(Formula):
    """``E + A / N^alpha + B / (D (w + eps))^beta``: the Chinchilla law in the tokens of the own domain."""

    name: ClassVar[str] = "chinchilla"
    formula: ClassVar[str] = "E + A/N^alpha + B / (D (w_own + eps))^beta"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, B, beta, eps, and A and alpha where sizes vary."""
        size = [q for q in scale_parameters(setting, y) if q.name in ("A", "alpha")]
        return [level(y), amplitude("B", y), exponent("beta", 0.3, 0.02), _offset(), *size]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        shifted = x.weights[:, setting.own] + p["eps"]
        logs = np.log(shifted) + x.log_tokens
        power = np.exp(-p["beta"] * logs)
        scale, by_scale = scale_terms({name: p[name] for name in ("A", "alpha") if name in p}, x)
        by = {"B": power, "beta": -p["B"] * power * logs, "eps": -p["B"] * p["beta"] * power / shifted}
        return p["E"] + p["B"] * power + scale, {"E": np.ones(len(x)), **by, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight; only the own domain's is not zero."""
        return _in_own_column(self.evaluate(p, x, setting)[1]["eps"], x, setting)


class BiMix(Formula):
    """``(w + eps)^-alpha_w (C + A / N^alpha + B_D / D^beta)``: Ge et al., arXiv 2405.14908, eq. 4.

    The paper's law has no size term; it is added where sizes vary, since nothing else could describe them.
    """

    name: ClassVar[str] = "bimix"
    formula: ClassVar[str] = "(w_own + eps)^-alpha_w (C + B_D/D^beta [+ A/N^alpha])"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return C, alpha_w, eps and the scale's parameters."""
        return [
            amplitude("C", y, max(float(y.mean() / max(y.std(), 1e-9)), 1.0)),
            exponent("alpha_w", 0.1, 1e-3),
            _offset(),
            *scale_parameters(setting, y),
        ]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        shifted = x.weights[:, setting.own] + p["eps"]
        power = shifted ** -p["alpha_w"]
        scale, by_scale = scale_terms(p, x)
        value = power * (p["C"] + scale)
        by = {"C": power, "alpha_w": -value * np.log(shifted), "eps": -p["alpha_w"] * value / shifted}
        return value, {**by, **{name: power * d for name, d in by_scale.items()}}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight; only the own domain's is not zero."""
        return _in_own_column(self.evaluate(p, x, setting)[1]["eps"], x, setting)


class DCPT(Formula):
    """``E + A / N^alpha + B r^eta / D^beta + C / (r + eps)^gamma``: Que et al., arXiv 2406.01375, eq. 6.

    r is the share of the target's own domain.
    """

    name: ClassVar[str] = "d-cpt"
    formula: ClassVar[str] = "E + A/N^alpha + B r^eta / D^beta + C / (r + eps)^gamma"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, B, eta, C, gamma, eps, and the scale's where it varies."""
        size = [q for q in scale_parameters(setting, y) if q.name != "B_D"]
        return [
            level(y),
            amplitude("B", y, 1.0),
            exponent("eta", 0.5),
            amplitude("C", y, 1.0),
            exponent("gamma", 0.3, 0.02),
            _offset(),
            *size,
        ]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        share = np.maximum(x.weights[:, setting.own], 1e-12)  # 0^eta is 0, but its logarithm is not
        rise, fall = share ** p["eta"], (share + p["eps"]) ** -p["gamma"]
        shrink = np.exp(-p["beta"] * x.log_tokens) if "beta" in p else np.ones(len(x))
        scale, by = scale_terms({name: p[name] for name in ("A", "alpha") if name in p}, x)
        by |= {"E": np.ones(len(x)), "B": rise * shrink, "eta": p["B"] * rise * shrink * np.log(share), "C": fall}
        by["gamma"] = -p["C"] * fall * np.log(share + p["eps"])
        by["eps"] = -p["C"] * p["gamma"] * fall / (share + p["eps"])
        if "beta" in p:
            by["beta"] = -p["B"] * rise * shrink * x.log_tokens
        return p["E"] + p["B"] * rise * shrink + p["C"] * fall + scale, by

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight; only the own domain's is not zero.

        ``r^eta`` has an infinite slope at 0; there it is taken a thousandth away.
        """
        by = self.evaluate(p, x, setting)[1]
        share = np.maximum(x.weights[:, setting.own], 1e-3)
        shrink = np.exp(-p["beta"] * x.log_tokens) if "beta" in p else 1.0
        rise = p["B"] * p["eta"] * share ** (p["eta"] - 1) * shrink
        return _in_own_column(rise + by["eps"], x, setting)

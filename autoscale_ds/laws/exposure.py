"""Effective exposure: a target learns from every domain, each at its own exchange rate and with its own saturation.

``S(w) = (sum_i k_i (w_i + eps)^gamma_i)^-b``: k_i is what domain i is worth to the target, gamma_i <= 1 how soon more
of it stops helping, b how fast the loss falls with the sum. Better than the older laws on every table it was tried on.
"""

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


def exposure_parameters(shared: bool = False) -> list[Parameter]:
    """Return k, gamma, eps and b.

    The priors keep k within a factor of about 50 and gamma away from its ends: unbounded fits blew up. eps is what
    every domain is worth unseen, in weight; with 3-digit weights a few 1e-4.
    """
    return [
        Parameter("k", 0.0, -7.0, 7.0, width=2.0, per_domain=True, form="log"),
        Parameter("gamma", -0.5, -3.5, 6.0, width=1.0, per_domain=not shared, form="logit"),
        Parameter("eps", float(np.log(2e-4)), float(np.log(1e-6)), float(np.log(1e-2)), width=1.0, form="log"),
        exponent("b"),
    ]


def exposure(p: Natural, x: Inputs) -> tuple[Array, dict[str, Array], Array]:
    """Return S (n,), its derivatives by k, gamma, eps and b, and by each weight (n, m)."""
    shifted = x.weights + p["eps"]
    logs = np.log(shifted)
    powers = np.exp(p["gamma"] * logs)
    parts = p["k"] * powers
    total = parts.sum(1)
    value = total ** -p["b"]
    outer = (-p["b"] * value / total)[:, None]
    by_weight = outer * parts * p["gamma"] / shifted
    by_gamma = outer * parts * logs
    by = {
        "k": outer * powers,
        "gamma": by_gamma if p["gamma"].ndim else by_gamma.sum(1),
        "eps": by_weight.sum(1),
        "b": -value * np.log(total),
    }
    return value, by, by_weight


class Exposure(Formula):
    """``E + B S(w)``, with ``A / N^alpha + B_D / D^beta`` added where size and tokens vary."""

    name: ClassVar[str] = "exposure"
    formula: ClassVar[str] = "E + B (sum_i k_i (w_i + eps)^gamma_i)^-b [+ A/N^alpha + B_D/D^beta]"
    shared: ClassVar[bool] = False

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, B, the exposure's and the scale's parameters."""
        return [level(y), amplitude("B", y), *exposure_parameters(self.shared), *scale_parameters(setting, y)]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        s, by_s, _ = exposure(p, x)
        scale, by_scale = scale_terms(p, x)
        by = {name: p["B"] * d for name, d in by_s.items()}
        return p["E"] + p["B"] * s + scale, {"E": np.ones(len(x)), "B": s, **by, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return p["B"] * exposure(p, x)[2]


class SharedExposure(Exposure):
    """Effective exposure with one saturation for all domains: m + 5 parameters, for small tables."""

    name: ClassVar[str] = "exposure-shared"
    formula: ClassVar[str] = "E + B (sum_i k_i (w_i + eps)^gamma)^-b [+ A/N^alpha + B_D/D^beta]"
    shared: ClassVar[bool] = True

    def fewest_rows(self, setting: Setting) -> int:
        """Return two runs more than domains: the priors determine eps, b and the scale's exponents in small tables."""
        return len(setting.domains) + 2


class ExposureScale(Formula):
    """``E + S(w) (C + A / N^alpha + B_D / D^beta)``: scale shrinks what the mixture leaves over.

    Best over token counts and held-out mixtures of the two forms.
    """

    name: ClassVar[str] = "exposure-scale"
    formula: ClassVar[str] = "E + (sum_i k_i (w_i + eps)^gamma_i)^-b (C + A/N^alpha + B_D/D^beta)"
    needs_scale: ClassVar[bool] = True

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, C, the exposure's and the scale's parameters."""
        return [level(y), amplitude("C", y), *exposure_parameters(), *scale_parameters(setting, y)]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        s, by_s, _ = exposure(p, x)
        scale, by_scale = scale_terms(p, x)
        size = p["C"] + scale
        by = {name: (size if d.ndim == 1 else size[:, None]) * d for name, d in by_s.items()}
        by |= {name: s * d for name, d in by_scale.items()}
        return p["E"] + s * size, {"E": np.ones(len(x)), "C": s, **by}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return (p["C"] + scale_terms(p, x)[0])[:, None] * exposure(p, x)[2]


class ExposureBudget(Formula):
    """``E + A / N^alpha + B / (D sum_i k_i w_i^gamma_i)^b``: exposure counted in tokens.

    Best over model sizes of the two forms.
    """

    name: ClassVar[str] = "exposure-budget"
    formula: ClassVar[str] = "E + A/N^alpha + B / (D sum_i k_i (w_i + eps)^gamma_i)^b"
    needs_tokens: ClassVar[bool] = True

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, B, the exposure's parameters, and A and alpha where sizes vary."""
        size = [q for q in scale_parameters(setting, y) if q.name in ("A", "alpha")]
        return [level(y), amplitude("B", y), *exposure_parameters(), *size]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        s, by_s, _ = exposure(p, x)
        shrink = np.exp(-p["b"] * x.log_tokens)
        scale, by_scale = scale_terms(p, x)
        part = p["B"] * shrink
        by = {name: (part if d.ndim == 1 else part[:, None]) * d for name, d in by_s.items()}
        by["b"] = by["b"] - part * s * x.log_tokens
        return p["E"] + part * s + scale, {"E": np.ones(len(x)), "B": shrink * s, **by, **by_scale}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return (p["B"] * np.exp(-p["b"] * x.log_tokens))[:, None] * exposure(p, x)[2]

"""Effective exposure: a target learns from every domain, each at its own exchange rate and with its own saturation.

``S(w) = (sum_i k_i (w_i + eps)^gamma_i)^-b``: k_i is what domain i is worth to the target, gamma_i <= 1 how soon more
of it stops helping, b how fast the loss falls with the sum. Better than the older laws on every table it was tried on.

Domains saturate alike, not equally: gamma_i is a common gamma moved by d_i on the scale of log odds, and d_i has a
narrow prior. Free gammas follow the noise of small tables, a common one misses what differs; this was as good as the
better of the two on RegMix's runs (17 domains, 64 to 512 runs) and on Data Mixing Laws' (7 domains, 28 mixtures).
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

_SUM = "S = (sum_i k_i (w_i + eps)^gamma_i)^-b, gamma_i = 1 / (1 + (1/gamma - 1) exp(-d_i))"
# Standard deviation of a domain's saturation around the common one, in log odds.
_SPREAD = 0.3


def exposure_parameters() -> list[Parameter]:
    """Return k, gamma, d, eps and b.

    The priors keep k within a factor of about 50 and gamma away from its ends: unbounded fits blew up. eps is what
    every domain is worth unseen, in weight; with 3-digit weights a few 1e-4.
    """
    return [
        Parameter("k", 0.0, -7.0, 7.0, width=2.0, per_domain=True, form="log"),
        Parameter("gamma", -0.5, -3.5, 6.0, width=1.0, form="logit"),
        Parameter("d", 0.0, -6.0, 6.0, width=_SPREAD, per_domain=True, jitter=_SPREAD),
        Parameter("eps", float(np.log(2e-4)), float(np.log(1e-6)), float(np.log(1e-2)), width=1.0, form="log"),
        exponent("b"),
    ]


def exposure(p: Natural, x: Inputs) -> tuple[Array, dict[str, Array], Array]:
    """Return S (n,), its derivatives by k, gamma, d, eps and b, and by each weight (n, m)."""
    gamma = 1 / (1 + (1 / p["gamma"] - 1) * np.exp(-p["d"]))
    shifted = x.weights + p["eps"]
    logs = np.log(shifted)
    powers = np.exp(gamma * logs)
    parts = p["k"] * powers
    total = parts.sum(1)
    value = total ** -p["b"]
    outer = (-p["b"] * value / total)[:, None]
    by_weight = outer * parts * gamma / shifted
    by_log_odds = outer * parts * logs * gamma * (1 - gamma)
    by = {
        "k": outer * powers,
        "gamma": by_log_odds.sum(1) / (p["gamma"] * (1 - p["gamma"])),
        "d": by_log_odds,
        "eps": by_weight.sum(1),
        "b": -value * np.log(total),
    }
    return value, by, by_weight


class _ExposureLaw(Formula):
    """What the laws of effective exposure have in common."""

    def fewest_rows(self, setting: Setting) -> int:
        """Return two runs more than domains: the priors stand in for the rest in small tables."""
        return len(setting.domains) + 2


class Exposure(_ExposureLaw):
    """``E + S(w) (C + A / N^alpha + B_D / D^beta) + A_2 / N^alpha_2 + B_2 / D^beta_2``.

    Scale shrinks what the mixture leaves over, and lowers the loss of all mixtures alike, each at its own rate. Terms
    of what does not vary in the table are left out: at one scale it is ``E + C S(w)``.
    """

    name: ClassVar[str] = "exposure"
    formula: ClassVar[str] = f"E + S (C [+ A/N^alpha + B_D/D^beta]) [+ A_2/N^alpha_2 + B_2/D^beta_2], {_SUM}"

    def parameters(self, setting: Setting, y: Array) -> list[Parameter]:
        """Return E, C, the exposure's parameters, and both of the scale's."""
        common = scale_parameters(setting, y, share=0.5, suffix="_2")
        return [level(y), amplitude("C", y), *exposure_parameters(), *scale_parameters(setting, y), *common]

    def evaluate(self, p: Natural, x: Inputs, setting: Setting) -> tuple[Array, dict[str, Array]]:
        """Return losses and derivatives."""
        s, by_s, _ = exposure(p, x)
        scale, by_scale = scale_terms(p, x)
        common, by_common = scale_terms(p, x, suffix="_2")
        size = p["C"] + scale
        by = {name: (size if d.ndim == 1 else size[:, None]) * d for name, d in by_s.items()}
        by |= {name: s * d for name, d in by_scale.items()}
        return p["E"] + s * size + common, {"E": np.ones(len(x)), "C": s, **by, **by_common}

    def slope(self, p: Natural, x: Inputs, setting: Setting) -> Array:
        """Return the derivative by each weight."""
        return (p["C"] + scale_terms(p, x)[0])[:, None] * exposure(p, x)[2]


class ExposureBudget(_ExposureLaw):
    """``E + A / N^alpha + B / (D sum_i k_i w_i^gamma_i)^b``: exposure counted in tokens."""

    name: ClassVar[str] = "exposure-budget"
    formula: ClassVar[str] = f"E + A/N^alpha + B S / D^b, {_SUM}"
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

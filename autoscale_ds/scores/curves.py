"""The two curves of a task (OLMo ladder, arXiv 2412.04403): bits per byte from scale, and the score from bits per byte.

Both are fitted by ``laws.estimation``, with its outlier weights and its ensemble. The priors are wide: they hold what a
few small runs cannot tell, such as the score of a perfect model, near what is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds.laws.base import Inputs, Natural, Parameter, Setting, level, scale_parameters, scale_terms
from autoscale_ds.laws.estimation import Estimate, estimate, natural
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.scores.table import ScoreTable

# Starts of a fit: a few dozen points, and curves with several ways to bend.
STARTS = 6
# Standard deviations of the priors of a score's ends: guessing (known, or the worst checkpoint's), and all right.
GUESSING, UNKNOWN_GUESSING, ALL_RIGHT = 0.03, 0.1, 0.15
# Scales within five per cent count as one.
SAME = 1.05


@dataclass(frozen=True)
class BitsCurve:
    """``bits = E + A / N^alpha + B_D / D^beta``, over the runs' ends; the noise is that of log bits.

    Attributes
    ----------
    parameters, tokens : float
        What N and D are multiples of; 0 where the runs have one size, or one length, and the term is left out.
    layout : list of Parameter
        In the order of the fitted numbers.
    found : Estimate
        The numbers, their ensemble and the noise.
    """

    parameters: float
    tokens: float
    layout: list[Parameter]
    found: Estimate

    @classmethod
    def fit(cls, table: ScoreTable, *, seed: int, draws: int) -> BitsCurve:
        """Fit the ends of the runs of one task's table."""
        ends = table.take(table.is_end)
        y = ends.bits[:, 0]
        scales = reference(ends.parameters), reference(ends.tokens)
        layout = bits_layout(*scales, y)
        x = _inputs(*scales, ends.parameters, ends.tokens)
        found = estimate(lambda p: _log_bits(p, x), layout, np.log(y), seed=seed, starts=STARTS, draws=draws)
        return cls(*scales, layout, found)

    def predict(self, parameters: Array, tokens: Array) -> Array:
        """Return bits per byte, shape (n,)."""
        return self._at(self.found.theta, parameters, tokens)

    def drawn(self, parameters: Array, tokens: Array) -> Array:
        """Return bits per byte by each draw, shape (d, n)."""
        return np.array([self._at(theta, parameters, tokens) for theta in self.found.draws])

    def _at(self, theta: Array, parameters: Array, tokens: Array) -> Array:
        x = _inputs(self.parameters, self.tokens, parameters, tokens)
        return np.asarray(np.exp(_log_bits(natural(self.layout, theta), x)[0]))


@dataclass(frozen=True)
class ScoreCurve:
    """``score = low + (high - low) / (1 + exp(k (bits - middle)))``, over the runs' checkpoints.

    Attributes
    ----------
    layout, found
        As in ``BitsCurve``; the noise is that of a score.
    """

    layout: list[Parameter]
    found: Estimate

    @classmethod
    def fit(cls, table: ScoreTable, chance: float | None, *, seed: int, draws: int) -> ScoreCurve:
        """Fit the rows of one task's table.

        Parameters
        ----------
        chance : float or None
            Score of guessing; None where it is not known.
        """
        x, y = table.bits[:, 0], table.scores[:, 0]
        layout = score_layout(x, y, chance)
        found = estimate(lambda p: _score(p, x), layout, y, run=table.run, seed=seed, starts=STARTS, draws=draws)
        return cls(layout, found)

    def predict(self, bits: Array) -> Array:
        """Return scores, shape (n,)."""
        return _score(natural(self.layout, self.found.theta), bits)[0]

    def drawn(self, bits: Array) -> Array:
        """Return scores by each draw from its own bits (d, n), shape (d, n)."""
        return np.array([_score(natural(self.layout, t), b)[0] for t, b in zip(self.found.draws, bits, strict=True)])


def reference(scale: Array) -> float:
    """Return the geometric middle of what varies, 0 for what does not."""
    varies = scale.max() > SAME * scale.min()
    return float(np.sqrt(scale.min() * scale.max())) if varies else 0.0


def bits_layout(parameters: float, tokens: float, y: Array) -> list[Parameter]:
    """Return the parameters of ``BitsCurve`` for bits y (n,)."""
    setting = Setting((), 0, tokens_vary=tokens > 0, parameters_vary=parameters > 0)
    return [level(y), *scale_parameters(setting, y)]


def score_layout(x: Array, y: Array, chance: float | None) -> list[Parameter]:
    """Return the parameters of ``ScoreCurve`` for bits x and scores y (n,)."""
    low = float(np.clip(y.min(), 0.0, 0.9)) if chance is None else chance
    width = UNKNOWN_GUESSING if chance is None else GUESSING
    return [
        Parameter("low", low, max(low - 0.1, 0.0), low + 0.1, width),
        Parameter("high", 1.0, low + 0.1, 1.3, ALL_RIGHT),
        Parameter("k", float(np.log(4.0)), -1.5, 4.0, 2.0, form="log", jitter=0.7),
        Parameter("middle", float(np.quantile(x, 0.2)), float(x.min()) - 3, float(x.max()) + 0.5, jitter=0.3),
    ]


def encode(layout: Sequence[Parameter], found: Estimate) -> dict[str, Any]:
    """Return the JSON form of a fitted curve, parameters by name and one line a draw."""
    values = natural(layout, found.theta)
    return {
        "noise": found.noise,
        "parameters": {name: float(value) for name, value in values.items()},
        "draws": [" ".join(f"{number:.7g}" for number in draw) for draw in found.draws],
    }


def _inputs(size_unit: float, token_unit: float, parameters: Array, tokens: Array) -> Inputs:
    zero = np.zeros(len(tokens))
    return Inputs(
        weights=np.zeros((len(tokens), 0)),
        log_tokens=np.log(tokens / token_unit) if token_unit else zero,
        log_parameters=np.log(parameters / size_unit) if size_unit else zero,
    )


def _log_bits(p: Natural, x: Inputs) -> tuple[Array, dict[str, Array]]:
    scaled, by = scale_terms(p, x)
    bits = np.maximum(p["E"] + scaled, 1e-9)
    return np.log(bits), {name: value / bits for name, value in {"E": np.ones(len(x)), **by}.items()}


def _score(p: Natural, bits: Array) -> tuple[Array, dict[str, Array]]:
    far = np.clip(p["k"] * (bits - p["middle"]), -50.0, 50.0)
    share = 1 / (1 + np.exp(far))
    slope = (p["high"] - p["low"]) * share * (1 - share)
    by = {"low": 1 - share, "high": share, "k": -slope * (bits - p["middle"]), "middle": slope * p["k"]}
    return p["low"] + (p["high"] - p["low"]) * share, by

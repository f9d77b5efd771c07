"""Run tables drawn from a law whose parameters are known."""

import numpy as np

from autoscale_ds.laws.base import Setting
from autoscale_ds.laws.registry import LAWS
from autoscale_ds.laws.scales import Scales
from autoscale_ds.mixture import RunTable

# Typical values of each parameter in natural units: centre and spread of its logarithm.
TYPICAL = {
    "E": (1.8, 0.1),
    "B": (0.8, 0.2),
    "C": (0.5, 0.2),
    "k": (1.0, 1.0),
    "eps": (3e-4, 0.3),
    "b": (0.4, 0.2),
    "A": (0.4, 0.2),
    "B_D": (0.5, 0.2),
    "alpha": (0.3, 0.1),
    "beta": (0.3, 0.1),
    "A_2": (0.2, 0.2),
    "B_2": (0.3, 0.2),
    "alpha_2": (0.3, 0.1),
    "beta_2": (0.3, 0.1),
    "alpha_w": (0.15, 0.2),
    "eta": (0.6, 0.2),
    "R": (5.0, 0.2),
}


def typical(law, layout, m, rng):
    """Natural parameters that a real table could have."""
    values = {}
    for q in layout:
        size = m if q.per_domain else None
        if q.name == "gamma" and q.form == "logit":
            values[q.name] = rng.uniform(0.25, 0.75, size)
        elif q.name == "d":
            values[q.name] = 0.3 * rng.normal(size=size)
        elif q.name == "gamma":
            values[q.name] = 0.3 * np.exp(0.2 * rng.normal())
        elif q.name == "t":
            values[q.name] = (4.0 if law.name == "data-mixing" else 0.5) * rng.normal(size=m)
        elif q.name == "c":
            values[q.name] = 0.3 / m * np.exp(0.7 * rng.normal(size=m)) if q.per_domain else 3.0
        elif q.name == "a":
            values[q.name] = 0.03 * np.exp(0.5 * rng.normal(size=m))
        elif q.name == "k" and not q.per_domain:
            values[q.name] = 0.6 if law.name == "data-mixing" else 3.0
        elif q.name == "eps" and law.name in ("chinchilla", "bimix", "d-cpt"):
            values[q.name] = 0.01
        else:
            centre, spread = TYPICAL[q.name]
            values[q.name] = centre * np.exp(spread * rng.normal(size=size))
    return {name: np.asarray(value, float) for name, value in values.items()}


def mixtures(n, m, rng, zeros=0.2):
    """Random mixtures around a skewed prior, a share of the weights exactly 0."""
    prior = rng.dirichlet(np.full(m, 3.0))
    points = rng.dirichlet(prior * m * 0.8 + 0.1, n)
    points[(rng.random(points.shape) < zeros) & (points < points.max(1, keepdims=True))] = 0.0
    return points / points.sum(1, keepdims=True)


class World:
    """A law with known parameters for each target."""

    def __init__(self, name, m=6, targets=3, seed=0, tokens=(1e9,), sizes=(1e8,)):
        rng = np.random.default_rng(seed)
        self.law, self.rng = LAWS[name], rng
        self.domains = tuple(f"domain{i}" for i in range(m))
        self.targets = tuple(self.domains[: min(targets, m)])
        self.tokens, self.sizes = np.array(tokens), np.array(sizes)
        blank = RunTable(("a", "b"), self.domains, self.targets, np.zeros((2, m)), self.tokens[[0, -1]].astype(float),
                         self.sizes[[0, -1]].astype(float), np.zeros((2, len(self.targets))))  # fmt: skip
        self.scales = Scales.of(blank)
        self.settings = [
            Setting(self.domains, i, self.scales.tokens, self.scales.parameters, self.scales.tokens_vary,
                    self.scales.parameters_vary)
            for i in range(len(self.targets))
        ]  # fmt: skip
        # A run of the most tokens that read one domain alone would read it 3 to 30 times over.
        passes = np.exp(np.random.default_rng([seed, 9]).uniform(np.log(3), np.log(30), m))
        self.unique = self.tokens.max() / passes if self.law.needs_unique else None
        layout = self.law.parameters(self.settings[0], np.array([2.0, 3.0]))
        self.parameters = [typical(self.law, layout, m, rng) for _ in self.targets]

    def losses(self, weights, tokens, sizes):
        """Losses without noise, (n, k)."""
        x = self.scales.inputs(weights, tokens, sizes, self.unique)
        return np.stack(
            [self.law.evaluate(p, x, s)[0] for p, s in zip(self.parameters, self.settings, strict=True)], axis=1
        )

    def table(self, n, noise=0.005, seed=1, missing=0.0, zeros=0.2, crossed=False, weights=None):
        """A table of n mixtures, each at one random scale, or at all of them when crossed."""
        rng = np.random.default_rng([seed, n])
        weights = mixtures(n, len(self.domains), rng, zeros) if weights is None else weights
        scales = [(t, s) for t in self.tokens for s in self.sizes]
        pick = rng.integers(0, len(scales), n)
        if crossed:
            weights, pick = np.repeat(weights, len(scales), axis=0), np.tile(np.arange(len(scales)), n)
        tokens, sizes = np.array(scales, float)[pick].T
        losses = self.losses(weights, tokens, sizes) + noise * rng.normal(size=(len(weights), len(self.targets)))
        gone = rng.random(losses.shape) < missing
        gone[gone.all(1)] = False
        losses[gone] = np.nan
        runs = tuple(f"r{i}" for i in range(len(weights)))
        unique = None if self.unique is None else np.tile(self.unique, (len(weights), 1))
        return RunTable(runs, self.domains, self.targets, weights, tokens, sizes, losses, unique=unique)


__all__ = ["World", "mixtures", "typical"]

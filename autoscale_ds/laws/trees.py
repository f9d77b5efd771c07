"""RegMix: gradient-boosted trees from weights to loss (Liu et al., arXiv 2407.01492). Needs the extra ``laws``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Inputs, Law, Setting
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.jsonfiles import Field

# The paper's rate and number of trees. Its leaves (31, of 20 runs) cannot split a table of 64; eight leaves of three
# runs score .967 there and .990 on 512, against .904 and .989, in half the time.
TREES, OPTIONS = 1000, {"learning_rate": 0.01, "num_leaves": 8, "min_data_in_leaf": 3, "objective": "regression"}
# Resampled forests only measure spread: a tenth of the trees at ten times the rate keeps law.json readable in size.
COARSE = 10
# Forests cost more than formulas: fewer draws.
MOST_DRAWS = 8
# Threads only pay for the many samples of the search for an optimum.
MANY = 10_000


@dataclass(frozen=True)
class TreeFit:
    """A forest fitted to one target, with ``draws`` refitted on resampled runs for the spread."""

    setting: Setting
    model: str
    noise: float
    draws: tuple[str, ...] = ()

    @property
    def law(self) -> Trees:
        """The law it is a fit of."""
        return Trees()

    def predict(self, x: Inputs) -> Array:
        """Return losses, shape (n,)."""
        booster = _lightgbm().Booster(model_str=self.model)
        return np.asarray(booster.predict(_features(x, self.setting), num_threads=1 if len(x) < MANY else 0), float)

    def members(self) -> list[TreeFit]:
        """Return one fit for each draw."""
        return [TreeFit(self.setting, model, self.noise) for model in self.draws]


class Trees(Law):
    """Boosted trees; steps, so its optimum is searched without derivatives."""

    name = "regmix"
    formula = "1,000 boosted trees on weights [, log tokens, log size]"
    smooth = False

    def fit(
        self,
        x: Inputs,
        y: Array,
        setting: Setting,
        *,
        seed: int = 0,
        starts: int = 1,
        draws: int = 0,
        widen: float = 1.0,
    ) -> TreeFit:
        """Return trees fitted to losses y (n,), and up to ``MOST_DRAWS`` more on bootstrap samples of the runs.

        ``widen`` does nothing: resampled runs have the noise they have.
        """
        features, rng = _features(x, setting), np.random.default_rng([seed, len(y)])
        model = _train(features, y, seed)
        samples = [rng.integers(0, len(y), len(y)) for _ in range(min(draws, MOST_DRAWS))]
        noise = _out_of_sample_noise(features, y, seed)
        return TreeFit(setting, model, noise, tuple(_train(features[rows], y[rows], seed, COARSE) for rows in samples))

    def encode(self, fitted: TreeFit) -> dict[str, Any]:
        """Return the trees in LightGBM's text form."""
        own = fitted.setting.domains[fitted.setting.own]
        return {"own": own, "noise": fitted.noise, "model": fitted.model, "draws": list(fitted.draws)}

    def decode(self, entry: Field, setting: Setting) -> TreeFit:
        """Return the trees that ``encode`` described."""
        draws = tuple(each.text() for each in entry["draws"].items(fewest=1))
        return TreeFit(setting, entry["model"].text(), entry["noise"].number(least=0), draws)

    def fewest_rows(self, setting: Setting) -> int:
        """Return the runs of the smallest split that leaves something to hold out."""
        return 8

    def says_it_needs(self, setting: Setting) -> tuple[str, str]:
        """Return that it needs runs, and another law."""
        return "needs at least", "choose another law (--law auto does)"

    def unavailable(self) -> str | None:
        """Return that LightGBM is missing, or None."""
        return None if available() else "LightGBM is not installed (extra 'laws')"


def _train(features: Array, y: Array, seed: int, coarse: int = 1) -> str:
    lightgbm = _lightgbm()
    rate = OPTIONS["learning_rate"] * coarse  # type: ignore[operator]
    options = {
        **OPTIONS,
        "learning_rate": rate,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    return str(lightgbm.train(options, lightgbm.Dataset(features, y), TREES // coarse).model_to_string())


def _out_of_sample_noise(features: Array, y: Array, seed: int) -> float:
    """Return the error on a held-out fifth; trees follow their own training runs too closely to say."""
    held = np.random.default_rng([seed, 1]).permutation(len(y))[: max(len(y) // 5, 2)]
    rest = np.setdiff1d(np.arange(len(y)), held)
    booster = _lightgbm().Booster(model_str=_train(features[rest], y[rest], seed))
    return float(np.sqrt(np.mean((booster.predict(features[held], num_threads=1) - y[held]) ** 2)))


def _features(x: Inputs, setting: Setting) -> Array:
    columns = [x.weights]
    columns += [x.log_tokens[:, None]] if setting.tokens_vary else []
    columns += [x.log_parameters[:, None]] if setting.parameters_vary else []
    return np.hstack(columns)


def available() -> bool:
    """Return whether LightGBM can be imported."""
    try:
        _lightgbm()
    except MixtureError:
        return False
    return True


def _lightgbm() -> Any:
    try:
        import lightgbm  # LightGBM is in the extra `laws`, so it may be missing
    except ImportError:
        raise MixtureError(
            "law regmix needs LightGBM, which is not installed: pip install 'autoscale_ds[laws]'"
        ) from None
    return lightgbm

"""Which runs are left out of a fit, and how much wider its intervals have to be to hold on them.

Mixtures are left out in folds, every run of a mixture together; and the largest token counts and sizes are left out
where enough smaller ones remain. The first measure interpolation, the others the distance extrapolated.

A law's ensemble knows the noise of its runs and how little they determine its parameters, not that the law may be
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoscale_ds.laws.calibration import UNKNOWN, Calibration
from autoscale_ds.laws.model import GAUSSIAN_90, LossModel
from autoscale_ds.laws.scales import SAME
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

Rows = npt.NDArray[np.intp]
# A target's own factor counts as much as that of all targets together at this many left-out mixtures.
ENOUGH = 25
# An interval is never narrowed by more, nor widened by more, than these factors.
NARROWEST, WIDEST = 0.7, 6.0
MOST_ORIGINS, MOST_LEVELS = 3, 12
# Mixtures on which the ensemble is compared with fits that left runs out.
PROBES = 200
# Bounds on the work: larger tables keep five of their token counts, as checkpoints of one run tell little more.
MANY_ROWS, FEW_TOKENS = 500, 5


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to predict; ``kind`` is ``mixtures`` or ``larger``."""

    kind: str
    train: Rows
    test: Rows


def thinned(table: RunTable) -> RunTable:
    """Return a large table with five of its token counts, from the smallest to the largest; others as they are."""
    levels = np.unique(table.tokens)
    if len(table) <= MANY_ROWS or len(levels) <= FEW_TOKENS or len(levels) > len(table) / FEW_TOKENS:
        return table
    kept = levels[np.linspace(0, len(levels) - 1, FEW_TOKENS).round().astype(int)]
    return table.take(np.isin(table.tokens, kept))


def mixture_folds(table: RunTable, seed: int = 0) -> list[Split]:
    """Return the folds over mixtures: five, three for large tables, as many as there are mixtures for tiny ones."""
    keys = [tuple(row) for row in np.round(table.weights, 6)]
    mixtures = sorted(set(keys))
    rng = np.random.default_rng([seed, len(mixtures)])
    count = min(5 if len(table) <= 300 else 3, len(mixtures))
    fold_of = dict(zip(mixtures, rng.permutation(len(mixtures)) % count, strict=True))
    fold = np.array([fold_of[key] for key in keys])
    return [Split("mixtures", np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(count) if count > 1]


def origins(values: Array) -> Iterator[tuple[Rows, Rows]]:
    """Yield (rows up to a scale, rows beyond it) for up to three scales that leave two or more below.

    ``values`` (n,) are the runs' token counts or sizes. Where there are many, levels are quantiles.
    """
    levels = np.unique(values)
    if len(levels) > MOST_LEVELS:
        levels = np.unique(np.quantile(values, np.linspace(0, 1, 9), method="lower"))
    middle = levels[1:-1]
    picks = np.unique(np.linspace(0, len(middle) - 1, min(MOST_ORIGINS, len(middle))).round().astype(int))
    for level in middle[picks]:
        below, beyond = values <= level, values > level
        if values[below].max() > SAME * values[below].min() > 0 and values.max() > SAME * level:
            yield np.flatnonzero(below), np.flatnonzero(beyond)


def calibrate(
    table: RunTable, refit: Callable[[RunTable], LossModel], seed: int = 0
) -> tuple[dict[str, float], Calibration]:
    """Return what makes the intervals of a law hold on runs left out of its fit.

    Parameters
    ----------
    table : RunTable
        The runs.
    refit : callable
        Fits the law to some of them; a few draws and one start do.

    Returns
    -------
    dict
        Target to the factor on the noise its ensemble has to be drawn with (see ``table_fits.fit_law``).
    Calibration
        What the intervals of such a fit are widened by.
    """
    table = thinned(table)
    mixtures = len(np.unique(np.round(table.weights, 6), axis=0))
    trust = mixtures / (mixtures + ENOUGH)
    parts = mixture_folds(table, seed)
    folds = [refit(table.take(part.train)) for part in parts]
    widen = _ensemble(refit(table), table, folds, trust, seed)
    factors = np.array([widen.get(name, 1.0) for name in table.targets])
    tested = [(fold, part.test) for fold, part in zip(folds, parts, strict=True) if fold.targets]
    inside = _inside(table, tested, factors, trust)
    shares, counts = {}, {}
    for kind in ("tokens", "parameters"):
        cuts = origins(np.nan_to_num(getattr(table, kind)))
        fits = [(fitted, beyond) for below, beyond in cuts if (fitted := refit(table.take(below))).targets]
        shares[kind], counts[kind] = _beyond(table, fits, kind, factors, inside)
    by_name = dict(zip(table.targets, map(float, inside), strict=True))
    return widen, Calibration(by_name, shares["tokens"], shares["parameters"], counts)


def num_refits(table: RunTable, seed: int = 0) -> int:
    """Return how many fits ``calibrate`` asks for."""
    table = thinned(table)
    larger = sum(len(list(origins(np.nan_to_num(values)))) for values in (table.tokens, table.parameters))
    return len(mixture_folds(table, seed)) + 1 + larger


def _ensemble(
    model: LossModel, table: RunTable, folds: Sequence[LossModel], trust: float, seed: int
) -> dict[str, float]:
    """Return by target how much further predictions move when mixtures are left out than the ensemble says.

    The jackknife over folds of mixtures, on mixtures between the table's, knows what the ensemble does not: that the
    law misfits some mixtures, at all of their checkpoints and sizes alike.
    """
    if len(folds) < 2 or not model.smooth:
        return {}
    rng = np.random.default_rng([seed, 5])
    corners = table.weights[rng.integers(0, len(table), (PROBES, 3))]
    weights = np.einsum("nc,ncm->nm", rng.dirichlet(np.ones(3), PROBES), corners)
    largest = np.lexsort([table.tokens, np.nan_to_num(table.parameters)])[-1]
    unique = None if table.unique is None else table.unique[largest]
    scale = table.tokens[largest], table.parameters[largest], unique
    x = model.inputs(weights, *scale)
    squares = {name: np.zeros(PROBES) for name in model.targets}
    known = dict.fromkeys(model.targets, 0)
    for fold in folds:
        for name, fitted in fold.targets.items():
            moved = fitted.predict(fold.inputs(weights, *scale))
            moved = moved - model.targets[name].predict(x)
            squares[name] += (moved - moved.mean()) ** 2
            known[name] += 1
    ratios = {}
    for name, fitted in model.targets.items():
        drawn = np.array([member.predict(x) for member in fitted.members()]) - fitted.predict(x)
        spread = float(((drawn - drawn.mean(1, keepdims=True)) ** 2).mean())
        if known[name] > 1 and len(drawn) > 1 and spread > 0:
            jackknife = (known[name] - 1) / known[name] * float(squares[name].mean())
            ratios[name] = np.sqrt(jackknife / spread)
    if not ratios:
        return {}
    together = float(np.median(list(ratios.values())))
    shared = {name: _shrunk(ratio, together, trust) for name, ratio in ratios.items()}
    return {name: float(np.clip(ratio, 1.0, WIDEST)) for name, ratio in shared.items()}


def _shrunk(own: float, together: float, trust: float) -> float:
    return float(np.exp(trust * np.log(max(own, 1e-9)) + (1 - trust) * np.log(max(together, 1e-9))))


def _inside(table: RunTable, fits: Sequence[tuple[LossModel, Rows]], widen: Array, trust: float) -> Array:
    """Return the factor of each target (k,): nine of ten left-out runs lie within it."""
    ratio = np.full(table.losses.shape, np.nan)
    for fitted, rows in fits:
        centre, deviation, _ = _predicted(fitted, table.take(rows), widen)
        ratio[rows] = np.abs(table.losses[rows] - centre) / deviation
    known = np.isfinite(ratio)
    if not known.any():
        return np.ones(len(table.targets))
    together = float(np.quantile(ratio[known], 0.9))
    own = [float(np.quantile(r[k], 0.9)) if k.any() else together for r, k in zip(ratio.T, known.T, strict=True)]
    return np.clip([_shrunk(each, together, trust) / GAUSSIAN_90 for each in own], NARROWEST, WIDEST)


def _beyond(
    table: RunTable, fits: Sequence[tuple[LossModel, Rows]], kind: str, widen: Array, inside: Array
) -> tuple[float, int]:
    """Return the error beyond the largest scale as a share of the predicted change, and from how many origins."""
    shares, weights = [], []
    for fitted, beyond in fits:
        test = table.take(beyond)
        centre, deviation, change = _predicted(fitted, test, widen)
        error = np.abs(test.losses - centre) / GAUSSIAN_90
        share = np.sqrt(np.maximum(error**2 - (inside * deviation) ** 2, 0)) / np.maximum(change[kind], 1e-12)
        # Where the predicted change drowns in the noise, the ratio says nothing.
        told = np.isfinite(share) & (change[kind] > 0.5 * inside * deviation)
        if told.any():
            shares.append(share[told])
            weights.append(np.full(told.sum(), 1 / told.sum()))
    if not shares:
        return UNKNOWN, 0
    # All mixtures share the error of an origin, so origins count, not runs; what is usual counts as half of one.
    measured, count = _quantile(np.concatenate(shares), np.concatenate(weights), 0.9), len(shares)
    return float(np.sqrt((count * measured**2 + 0.5 * UNKNOWN**2) / (count + 0.5))), count


def _predicted(fitted: LossModel, test: RunTable, widen: Array) -> tuple[Array, Array, dict[str, Array]]:
    """Return predictions (n, k), the deviation of a run, and the change beyond the scales fitted.

    NaN for a target that was not fitted.
    """
    x = fitted.inputs_of(test)
    columns = [test.targets.index(name) for name in fitted.targets]

    def spread_out(values: Array) -> Array:
        wide = np.full(test.losses.shape, np.nan)
        wide[:, columns] = values
        return wide

    change = {kind: spread_out(values) for kind, values in fitted.change_beyond(x).items()}
    return spread_out(fitted.predict(x)), spread_out(np.hypot(widen[columns] * fitted.spread(x), fitted.noise)), change


def _quantile(values: Array, weights: Array, share: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])

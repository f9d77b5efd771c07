"""Choose a law by its predictions for runs left out of the fit.

Mixtures are left out in folds (every run of a mixture together), and where the table has three token counts or sizes
the largest is left out too. Training error never counts. Beside the laws stand three baselines they have to beat.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import registry
from autoscale_ds.laws.base import Inputs, Law
from autoscale_ds.laws.baselines import BASELINES
from autoscale_ds.laws.model import DRAWS, FEWEST, Average, LossModel, fit_law, fit_target, unsupported, usable_rows
from autoscale_ds.laws.scales import SAME, Scales
from autoscale_ds.laws.score import measures
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

Rows = npt.NDArray[np.intp]
# Bounds on the work of the comparison, not of the final fit: more rows or targets change no ranking of laws.
MAX_ROWS, MAX_TARGETS = 800, 8
# An average is kept only where it lowers the held-out error by a twentieth: smaller gains were noise as often as not.
NEAR_BEST, WORTH_AVERAGING = 1.25, 0.95
# Replaces a prediction that is not a number: a loss so large that the law ranks last.
BROKEN = 1e6


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to predict; ``kind`` is ``mixtures`` or ``larger``."""

    kind: str
    train: Rows
    test: Rows


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions of one candidate, by kind of split: (n, k) with NaN where nothing was predicted."""

    name: str
    predicted: dict[str, Array]


def choose(table: RunTable, *, seed: int = 0, average: bool = True, draws: int = DRAWS) -> LossModel:
    """Fit every law the table supports, keep the best on held-out runs, average the near-best where that helps.

    Raises
    ------
    MixtureError
        When there are no more runs than domains: nothing could be held out.
    """
    m = len(table.domains)
    rows = usable_rows(table)
    if rows < m + 2:
        raise MixtureError(
            f"the targets have {rows} usable rows for {m} domains; choosing a law needs at least {m + 2}: add runs"
        )
    small = _economical(table, seed)
    held_out, skipped = compare(small, seed=seed)
    report = summarise(small, held_out)
    scored = [row for row in report if row["law"] in registry.NAMES]
    if not scored:
        raise MixtureError("no law can be fitted with runs left out; add runs: " + next(iter(skipped.values()), ""))
    shares = _shares(small, held_out, report) if average else {scored[0]["law"]: 1.0}
    return _final(table, shares, report, skipped, seed, draws)


def compare(table: RunTable, *, seed: int = 0) -> tuple[list[HeldOut], dict[str, str]]:
    """Return the held-out predictions of every law and baseline, and why others were left out."""
    parts = splits(table, seed)
    skipped: dict[str, str] = {}
    held_out = []
    for name, law in registry.LAWS.items():
        reason = law.unavailable() or unsupported(table, name) or _unlearnable(table, parts, law)
        if reason:
            skipped[name] = reason
        else:
            held_out.append(HeldOut(name, _predictions(table, parts, name, seed)))
    held_out += [HeldOut(name, _predictions(table, parts, name, seed)) for name in BASELINES]
    return held_out, skipped


def _unlearnable(table: RunTable, parts: Sequence[Split], law: Law) -> str | None:
    """Return why a law cannot be compared: some fold is left with one scale."""
    for part in parts:
        train = table.take(part.train)
        if law.lacks(Scales.of(train).setting(train, train.targets[0])):
            return f"law {law.name} needs several scales, and a fold has one"
    return None


def splits(table: RunTable, seed: int = 0) -> list[Split]:
    """Return the folds: mixtures left out, then the largest token count and size where three or more are known."""
    keys = [tuple(row) for row in np.round(table.weights, 6)]
    mixtures = sorted(set(keys))
    rng = np.random.default_rng([seed, len(mixtures)])
    count = min(5 if len(table) <= 300 else 3, len(mixtures))
    fold_of = dict(zip(mixtures, rng.permutation(len(mixtures)) % count, strict=True)) if count > 1 else {}
    fold = np.array([fold_of.get(key, 0) for key in keys])
    parts = [Split("mixtures", np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(count) if count > 1]
    for values in (table.tokens, np.nan_to_num(table.parameters)):
        largest = _largest(values)
        if largest.any():
            parts.append(Split("larger", np.flatnonzero(~largest), np.flatnonzero(largest)))
    return parts


def _largest(values: Array) -> npt.NDArray[np.bool_]:
    """Return the runs at the largest scale, or the top eighth where hardly any share one; none where one is left."""
    steps = np.unique(values)
    largest = values == steps[-1]
    if largest.sum() < max(8, len(values) / 20):
        largest = values >= max(float(np.quantile(values, 0.875)), steps[min(2, len(steps) - 1)])
    rest = values[~largest]
    enough = len(rest) > 0 and rest.max() > SAME * rest.min() > 0
    return largest if enough else np.zeros(len(values), bool)


def summarise(table: RunTable, held_out: Sequence[HeldOut]) -> list[dict[str, Any]]:
    """Return one row a candidate, best first: error (relative, both kinds), mae and spearman by kind."""
    rows = []
    for candidate in held_out:
        row: dict[str, Any] = {"law": candidate.name, "error": error(table, candidate.predicted)}
        for kind, predicted in candidate.predicted.items():
            groups = [index for _, index in table.groups()]
            by_target = [measures(predicted[:, j], table.losses[:, j], groups) for j in range(len(table.targets))]
            for metric in ("mae", "spearman_within"):
                known = [f[metric] for f in by_target if f[metric] is not None]
                row[f"{kind}_{metric}"] = float(np.mean(known)) if known else None  # type: ignore[arg-type]
        rows.append(row)
    return sorted(rows, key=lambda row: row["error"])


def error(table: RunTable, predicted: dict[str, Array]) -> float:
    """Return the held-out error over the spread of the losses, averaged over targets, then over kinds of split."""
    losses = table.losses
    spread = np.nanmean(np.abs(losses - np.nanmean(losses, axis=0)), axis=0)
    spread = np.where(spread > 1e-9, spread, np.nan)  # a constant target can be predicted by all and tells nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a target may be missing in a whole split
        kinds = [np.nanmean(np.nanmean(np.abs(p - losses), axis=0) / spread) for p in predicted.values()]
    known = [kind for kind in kinds if np.isfinite(kind)]
    return float(np.mean(known)) if known else float("inf")


def _predictions(table: RunTable, parts: Sequence[Split], name: str, seed: int) -> dict[str, Array]:
    predictions = {part.kind: np.full(table.losses.shape, np.nan) for part in parts}
    for part in parts:
        train, test = table.take(part.train), table.take(part.test)
        scales = Scales.of(train)
        x = scales.of_table(test)
        for j, target in enumerate(table.targets):
            if train.measured(target).sum() >= FEWEST:
                predicted = _predict(train, scales, name, target, x, seed)
                # Left out, such predictions would not count against the law.
                predictions[part.kind][part.test, j] = np.where(np.isfinite(predicted), predicted, BROKEN)
    return predictions


def _predict(train: RunTable, scales: Scales, name: str, target: str, x: Inputs, seed: int) -> Array:
    if name not in BASELINES:
        return fit_target(train, scales, name, target, seed, starts=1).predict(x)
    rows = np.flatnonzero(train.measured(target))
    y = train.losses[rows, train.targets.index(target)]
    return BASELINES[name](scales.of_table(train).take(rows), y).predict(x)


def _is_smooth(name: str) -> bool:
    return name in registry.LAWS and registry.LAWS[name].smooth


def _shares(table: RunTable, held_out: Sequence[HeldOut], report: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of each law: one law, or the non-negative least squares blend of the near-best."""
    ranked = [row for row in report if row["law"] in registry.NAMES]
    best = ranked[0]
    near = [r["law"] for r in ranked[:4] if r["error"] <= NEAR_BEST * best["error"] and _is_smooth(r["law"])]
    if len(near) < 2 or not np.isfinite(best["error"]):
        return {best["law"]: 1.0}
    by_name = {candidate.name: candidate.predicted for candidate in held_out}
    weights = _blend(table, [by_name[name] for name in near])
    mixed = {k: sum(w * by_name[name][k] for w, name in zip(weights, near, strict=True)) for k in by_name[near[0]]}
    if error(table, mixed) > WORTH_AVERAGING * best["error"]:
        return {best["law"]: 1.0}
    return {name: float(w) for name, w in zip(near, weights, strict=True) if w > 0}


def _blend(table: RunTable, predictions: Sequence[dict[str, Array]]) -> Array:
    """Return shares summing to 1 that fit the held-out losses, every target in units of its spread."""
    spread = np.maximum(np.nanstd(table.losses, axis=0), 1e-12)
    columns = [np.concatenate([((p - table.losses) / spread).ravel() for p in each.values()]) for each in predictions]
    errors = np.stack(columns, axis=1)
    errors = errors[np.isfinite(errors).all(1)]
    # sum of shares = 1 by a heavy extra row: minimise |errors @ w| subject to w >= 0.
    heavy = 1e3 * max(float(np.abs(errors).max(initial=0.0)), 1.0) * np.sqrt(len(errors) + 1)
    shares, _ = nnls(np.vstack([errors, np.full(errors.shape[1], heavy)]), np.append(np.zeros(len(errors)), heavy))
    shares = np.where(shares < 0.05, 0.0, shares)
    return np.asarray(shares / shares.sum())


def _final(
    table: RunTable, shares: dict[str, float], report: Sequence[Any], skipped: dict[str, str], seed: int, draws: int
) -> LossModel:
    fits = [fit_law(table, name, seed=seed, draws=draws) for name in shares]
    finite: list[dict[str, Any]] = [
        {k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in row.items()} for row in report
    ]
    rows: list[dict[str, Any]] = [*finite, *({"law": name, "skipped": reason} for name, reason in skipped.items())]
    if len(fits) == 1:
        return replace(fits[0], selection=rows)
    targets = {
        name: Average(tuple(fitted.targets[name] for fitted in fits), tuple(shares.values())) for name in table.targets
    }
    return LossModel("average of " + ", ".join(shares), table.domains, fits[0].scales, targets, rows)


def _economical(table: RunTable, seed: int) -> RunTable:
    """Return a sample of large tables: whole mixtures, and targets spread over the list."""
    targets = table.targets
    if len(targets) > MAX_TARGETS:
        picks = np.linspace(0, len(targets) - 1, MAX_TARGETS).round().astype(int)
        table = table.with_targets([targets[i] for i in picks])
        table = table.take(np.isfinite(table.losses).any(1))
    if len(table) <= MAX_ROWS:
        return table
    keys = [tuple(row) for row in np.round(table.weights, 6)]
    order = np.random.default_rng([seed, 7]).permutation(len(set(keys)))
    rank = dict(zip(sorted(set(keys)), order, strict=True))
    ranks = np.array([rank[key] for key in keys])
    return table.take(ranks <= np.sort(ranks)[MAX_ROWS - 1])

"""Choose a law by its predictions for runs left out of the fit.

Mixtures are left out in folds (every run of a mixture together), and where the table has three token counts or sizes
the largest is left out too. Training error never counts. Beside the laws stand three baselines they have to beat.

What counts depends on the use. The best mixture follows from differences between mixtures at one scale, whatever the
level there; a forecast is a level. A law can be best at one and poor at the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import registry
from autoscale_ds.laws.base import Inputs, Law
from autoscale_ds.laws.baselines import BASELINES
from autoscale_ds.laws.holdout import Split, calibrate, mixture_folds, num_refits, thinned
from autoscale_ds.laws.model import AVERAGE, Average, LossModel
from autoscale_ds.laws.scales import SAME, Scales, most_passes
from autoscale_ds.laws.score import measures, within_scale
from autoscale_ds.laws.table_fits import DRAWS, FEWEST, fit_law, fit_part, fit_target, unsupported, usable_rows
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

Purpose = Literal["optimum", "forecast"]
# Draws of the fits that leave runs out.
FEW_DRAWS = 6
# Bounds on the work of the comparison, not of the final fit: more rows or targets change no ranking of laws.
MAX_ROWS, MAX_TARGETS = 800, 8
# By a twentieth an average has to lower the held-out error of its best law, and a law that of the mean loss: smaller
# gains were noise as often as not.
NEAR_BEST, WORTH_IT = 1.25, 0.95
NO_BETTER = (
    "on held-out runs no law predicts clearly better than the mean of all losses: this table does not tell what "
    "mixtures do; add runs, or more different ones"
)
# Replaces a prediction that is not a number: a loss so large that the law ranks last.
BROKEN = 1e6


Advance = Callable[[int], object]


def _silent(steps: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions of one candidate, by kind of split: (n, k) with NaN where nothing was predicted."""

    name: str
    predicted: dict[str, Array]


def num_steps(table: RunTable, law: str = "auto", seed: int = 0) -> int:
    """Return how often ``fit`` calls ``advance``: laws times folds, fits that leave runs out, and the fit."""
    compared = len(registry.LAWS) * len(splits(_economical(table, seed), seed)) if law == "auto" else 0
    return compared + num_refits(table, seed) + 1


def fit(
    table: RunTable,
    law: str = "auto",
    *,
    purpose: Purpose = "optimum",
    seed: int = 0,
    draws: int = DRAWS,
    advance: Advance = _silent,
) -> LossModel:
    """Fit a law by its name, or the best on held-out runs, with intervals that hold on runs left out.

    Parameters
    ----------
    law : str
        ``auto`` or a law's name.
    purpose : {"optimum", "forecast"}
        What ``auto`` chooses by, see ``choose``.
    advance : callable
        Called with the number of steps done, of ``num_steps(table, law)`` in all.

    Raises
    ------
    MixtureError
        For a table that supports no law, or not the one named.
    """
    selection: Sequence[Mapping[str, Any]] = ()
    if law == "auto":
        shares, selection = choose(table, purpose=purpose, seed=seed, advance=advance)
    else:
        shares = {registry.check_name(law): 1.0}
        if refusal := unsupported(table, law):
            raise MixtureError(refusal)

    def refit(part: RunTable) -> LossModel:
        fitted = _averaged([fit_part(part, name, seed=seed, draws=FEW_DRAWS) for name in shares], shares)
        advance(1)
        return fitted

    widen, calibration = calibrate(table, refit, seed)
    fits = [fit_law(table, name, seed=seed, draws=draws, widen=widen) for name in shares]
    advance(1)
    fitted = replace(_averaged(fits, shares), selection=selection, calibration=calibration)
    largest = dict(zip(table.domains, map(float, table.weights.max(0)), strict=True))
    fitted = fitted.with_source(runs=len(table), largest_weights=largest)
    if table.bundle is not None:
        fitted = fitted.with_source(bundle=table.bundle.to_json())
    if fitted.needs_unique:
        fitted = fitted.with_source(most_passes=most_passes(table))
    return fitted.with_source(warnings=[NO_BETTER]) if _no_better_than_mean(selection) else fitted


def _no_better_than_mean(selection: Sequence[Mapping[str, Any]]) -> bool:
    errors = {row["law"]: row.get("error") for row in selection}
    laws = [error for name, error in errors.items() if name in registry.NAMES and error is not None]
    return bool(errors) and errors["mean"] is not None and not any(error < WORTH_IT * errors["mean"] for error in laws)


def choose(
    table: RunTable,
    *,
    purpose: Purpose = "optimum",
    seed: int = 0,
    average: bool = True,
    advance: Advance = _silent,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Compare every law the table supports on held-out runs: the best, or an average of near-best where that helps.

    Parameters
    ----------
    purpose : {"optimum", "forecast"}
        Whether differences within a scale are compared, or losses.
    average : bool
        Whether an average of near-best laws may be taken.

    Returns
    -------
    dict
        Law to its share, one law or several that sum to 1.
    list of dict
        The comparison, one row a law, best first; then what was not compared, with the reason as ``skipped``.

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
    held_out, skipped = compare(small, seed=seed, advance=advance)
    report = summarise(small, held_out, purpose)
    eligible = [candidate for candidate in held_out if _extrapolates(small, candidate.name)]
    scored = [row for row in report if row["law"] in {candidate.name for candidate in eligible}]
    if not scored:
        raise MixtureError("no law can be fitted with runs left out; add runs: " + next(iter(skipped.values()), ""))
    shares = _shares(small, eligible, scored, purpose) if average else {scored[0]["law"]: 1.0}
    finite: list[dict[str, Any]] = [
        {k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in row.items()} for row in report
    ]
    return shares, [*finite, *({"law": name, "skipped": reason} for name, reason in skipped.items())]


def _extrapolates(table: RunTable, name: str) -> bool:
    """Return whether a candidate is a law that can be asked for scales beyond the table's; trees are constant there."""
    scales = Scales.of(table)
    return name in registry.NAMES and (_is_smooth(name) or not (scales.tokens_vary or scales.parameters_vary))


def compare(table: RunTable, *, seed: int = 0, advance: Advance = _silent) -> tuple[list[HeldOut], dict[str, str]]:
    """Return the held-out predictions of every law and baseline, and why others were left out."""
    parts = splits(table, seed)
    skipped: dict[str, str] = {}
    held_out = []
    for name, law in registry.LAWS.items():
        reason = law.unavailable() or unsupported(table, name) or _unlearnable(table, parts, law)
        if reason:
            skipped[name] = reason
            advance(len(parts))
        else:
            held_out.append(HeldOut(name, _predictions(table, parts, name, seed, advance)))
    held_out += [HeldOut(name, _predictions(table, parts, name, seed, _silent)) for name in BASELINES]
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
    parts = mixture_folds(table, seed)
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


def summarise(table: RunTable, held_out: Sequence[HeldOut], purpose: Purpose) -> list[dict[str, Any]]:
    """Return one row a candidate, best first: error (relative, both kinds), mae and spearman by kind."""
    rows = []
    for candidate in held_out:
        row: dict[str, Any] = {"law": candidate.name, "error": error(table, candidate.predicted, purpose)}
        for kind, predicted in candidate.predicted.items():
            groups = [index for _, index in table.groups()]
            by_target = [measures(predicted[:, j], table.losses[:, j], groups) for j in range(len(table.targets))]
            for metric in ("mae", "mae_within", "spearman_within"):
                known = [f[metric] for f in by_target if f[metric] is not None]
                row[f"{kind}_{metric}"] = float(np.mean(known)) if known else None  # type: ignore[arg-type]
        rows.append(row)
    return sorted(rows, key=lambda row: row["error"])


def error(table: RunTable, predicted: dict[str, Array], purpose: Purpose) -> float:
    """Return the held-out error over the spread of what is predicted, averaged over targets, then kinds of split.

    For an optimum both are of differences within a scale.
    """
    kinds = []
    for each in predicted.values():
        rows = np.flatnonzero(np.isfinite(each).any(1))
        wrong, losses = each[rows] - table.losses[rows], np.where(np.isfinite(each), table.losses, np.nan)[rows]
        if purpose == "optimum":
            part = table.take(rows)
            wrong, losses = within_scale(wrong, part), within_scale(losses, part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a target may be missing in a whole split
            spread = np.nanmean(np.abs(losses - np.nanmean(losses, axis=0)), axis=0)
            spread = np.where(spread > 1e-9, spread, np.nan)  # a constant target can be predicted by all
            kinds.append(np.nanmean(np.nanmean(np.abs(wrong), axis=0) / spread))
    known = [kind for kind in kinds if np.isfinite(kind)]
    return float(np.mean(known)) if known else float("inf")


def _predictions(table: RunTable, parts: Sequence[Split], name: str, seed: int, advance: Advance) -> dict[str, Array]:
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
        advance(1)
    return predictions


def _predict(train: RunTable, scales: Scales, name: str, target: str, x: Inputs, seed: int) -> Array:
    if name not in BASELINES:
        return fit_target(train, scales, name, target, seed, starts=1).predict(x)
    rows = np.flatnonzero(train.measured(target))
    y = train.losses[rows, train.targets.index(target)]
    return BASELINES[name](scales.of_table(train).take(rows), y).predict(x)


def _is_smooth(name: str) -> bool:
    return name in registry.LAWS and registry.LAWS[name].smooth


def _shares(
    table: RunTable, held_out: Sequence[HeldOut], ranked: Sequence[dict[str, Any]], purpose: Purpose
) -> dict[str, float]:
    """Return the share of each law: one law, or the non-negative least squares blend of the near-best."""
    best = ranked[0]
    near = [r["law"] for r in ranked[:4] if r["error"] <= NEAR_BEST * best["error"] and _is_smooth(r["law"])]
    if len(near) < 2 or not np.isfinite(best["error"]):
        return {best["law"]: 1.0}
    by_name = {candidate.name: candidate.predicted for candidate in held_out}
    weights = _blend(table, [by_name[name] for name in near], purpose)
    mixed = {k: sum(w * by_name[name][k] for w, name in zip(weights, near, strict=True)) for k in by_name[near[0]]}
    if error(table, mixed, purpose) > WORTH_IT * best["error"]:
        return {best["law"]: 1.0}
    return {name: float(w) for name, w in zip(near, weights, strict=True) if w > 0}


def _blend(table: RunTable, predictions: Sequence[dict[str, Array]], purpose: Purpose) -> Array:
    """Return shares summing to 1 that fit the held-out losses, every target in units of its spread."""
    spread = np.maximum(np.nanstd(table.losses, axis=0), 1e-12)

    def wrong(predicted: Array) -> Array:
        rows = np.flatnonzero(np.isfinite(predicted).any(1))
        difference = (predicted - table.losses)[rows] / spread
        return (within_scale(difference, table.take(rows)) if purpose == "optimum" else difference).ravel()

    columns = [np.concatenate([wrong(p) for p in each.values()]) for each in predictions]
    errors = np.stack(columns, axis=1)
    errors = errors[np.isfinite(errors).all(1)]
    # sum of shares = 1 by a heavy extra row: minimise |errors @ w| subject to w >= 0.
    heavy = 1e3 * max(float(np.abs(errors).max(initial=0.0)), 1.0) * np.sqrt(len(errors) + 1)
    shares, _ = nnls(np.vstack([errors, np.full(errors.shape[1], heavy)]), np.append(np.zeros(len(errors)), heavy))
    shares = np.where(shares < 0.05, 0.0, shares)
    return np.asarray(shares / shares.sum())


def _averaged(fits: Sequence[LossModel], shares: Mapping[str, float]) -> LossModel:
    """Return one model of the fits, averaged target by target."""
    if len(fits) == 1:
        return fits[0]
    targets = {
        name: Average(tuple(fitted.targets[name] for fitted in fits), tuple(shares.values()))
        for name in fits[0].targets
    }
    return LossModel(AVERAGE + ", ".join(shares), fits[0].domains, fits[0].scales, targets)


def _economical(table: RunTable, seed: int) -> RunTable:
    """Return a sample of large tables: fewer checkpoints, whole mixtures, and targets spread over the list."""
    table = thinned(table)
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

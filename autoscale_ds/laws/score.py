"""How well predictions hold on runs: rank correlation and error, by target and on the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.model import LossModel
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.table import RunTable

# ``coverage`` is the share of runs inside their 90 % interval, ``width`` its mean width in nats.
INTERVALS = ("coverage", "width")
METRICS = ("spearman", "spearman_within", "mae", "mae_within", "mre")


def score(model: LossModel, table: RunTable) -> dict[str, Any]:
    """Return ``{"targets": {name: {metric: value}}, "mean": {metric: value}}``.

    Metrics are ``METRICS`` and ``INTERVALS``. ``spearman`` is over all runs that measured the target,
    ``spearman_within`` the mean over groups of equal size and tokens (groups of two runs or more), ``mae`` in nats,
    ``mae_within`` after the mean over such a group is taken off, ``mre`` relative to the loss. A correlation that does
    not exist, of constants or of one run, is None and left out of means.

    Raises
    ------
    MixtureError
        When the table's domains are not the law's, or no target is shared.
    """
    shared = [name for name in model.targets if name in table.targets]
    if not shared:
        raise MixtureError(
            f"the table has none of the law's targets; expected loss columns for: {', '.join(model.targets)}"
        )
    table = table.with_domains(model.domains).with_targets(shared)
    x = model.inputs_of(table)
    groups = [rows for _, rows in table.groups()]
    by_target: dict[str, dict[str, float | None]] = {
        name: measures(model.targets[name].predict(x), table.losses[:, i], groups) for i, name in enumerate(shared)
    }
    low, high = model.intervals(x, of_a_run=True)
    for i, name in enumerate(shared):
        known, column = np.isfinite(table.losses[:, i]), list(model.targets).index(name)
        losses, ends = table.losses[known, i], (low[known, column], high[known, column])
        inside = (ends[0] <= losses) & (losses <= ends[1])
        by_target[name] |= {
            "coverage": float(inside.mean()) if known.any() else None,
            "width": float((ends[1] - ends[0]).mean()) if known.any() else None,
        }
    mean = {metric: _mean([measured[metric] for measured in by_target.values()]) for metric in (*METRICS, *INTERVALS)}
    return {"targets": by_target, "mean": mean}


def measures(predicted: Array, measured: Array, groups: Sequence[npt.NDArray[np.intp]]) -> dict[str, float | None]:
    """Return the metrics of one target; rows without a measurement are left out."""
    known = np.isfinite(measured) & np.isfinite(predicted)
    if not known.any():
        return dict.fromkeys(METRICS)
    error, losses = np.abs(predicted - measured)[known], measured[known]
    shared = [rows[known[rows]] for rows in groups]
    within = [spearman(predicted[rows], measured[rows]) for rows in shared]
    centred = [np.abs(d - d.mean()) for rows in shared if len(rows) > 1 for d in [(predicted - measured)[rows]]]
    return {
        "spearman": spearman(predicted[known], measured[known]),
        "spearman_within": _mean(within),
        "mae": float(error.mean()),
        "mae_within": float(np.concatenate(centred).mean()) if centred else None,
        "mre": float((error[losses > 0] / losses[losses > 0]).mean()) if losses.any() else None,
    }


def within_scale(values: Array, table: RunTable) -> Array:
    """Return values (n, k) less their mean over the runs of one size and token count.

    Where hardly two runs share a scale, they are taken less a plane in log tokens and log size.
    """
    groups = [rows for _, rows in table.groups()]
    if len(groups) <= len(table) / 2:
        result = np.full(values.shape, np.nan)
        for rows in groups:
            known = np.isfinite(values[rows])
            count = known.sum(0)
            mean = np.where(known, values[rows], 0).sum(0) / np.maximum(count, 1)
            result[rows] = np.where(count > 1, values[rows] - mean, np.nan)
        return result
    logs = [np.log(table.tokens), np.log(np.where(table.parameters > 0, table.parameters, 1.0))]
    plane = np.column_stack([np.ones(len(table)), *logs])
    result = np.full(values.shape, np.nan)
    for j in range(values.shape[1]):
        rows = np.flatnonzero(np.isfinite(values[:, j]))
        result[rows, j] = values[rows, j] - plane[rows] @ np.linalg.lstsq(plane[rows], values[rows, j], rcond=None)[0]
    return result


def spearman(a: Array, b: Array) -> float | None:
    """Return the rank correlation, average ranks for ties; None when either is constant or has one value."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy.stats import rankdata  # takes 0.7 s to import: not in a job that only reads a law

    ranks = np.stack([rankdata(a), rankdata(b)])
    return float(np.corrcoef(ranks)[0, 1])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

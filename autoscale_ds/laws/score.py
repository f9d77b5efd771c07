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

METRICS = ("spearman", "spearman_within", "mae", "mre")


def score(model: LossModel, table: RunTable) -> dict[str, Any]:
    """Return ``{"targets": {name: {metric: value}}, "mean": {metric: value}}``.

    ``spearman`` is over all runs that measured the target, ``spearman_within`` the mean over groups of equal size and
    tokens (groups of two runs or more), ``mae`` in nats, ``mre`` relative to the loss. A correlation that does not
    exist, of constants or of one run, is None and left out of means.

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
    x = model.inputs(table.weights, table.tokens, table.parameters)
    groups = [rows for _, rows in table.groups()]
    by_target: dict[str, dict[str, float | None]] = {
        name: measures(model.targets[name].predict(x), table.losses[:, i], groups) for i, name in enumerate(shared)
    }
    mean = {metric: _mean([measured[metric] for measured in by_target.values()]) for metric in METRICS}
    return {"targets": by_target, "mean": mean}


def measures(predicted: Array, measured: Array, groups: Sequence[npt.NDArray[np.intp]]) -> dict[str, float | None]:
    """Return the four metrics of one target; rows without a measurement are left out."""
    known = np.isfinite(measured) & np.isfinite(predicted)
    if not known.any():
        return dict.fromkeys(METRICS)
    error = np.abs(predicted - measured)[known]
    within = [spearman(predicted[rows[known[rows]]], measured[rows[known[rows]]]) for rows in groups]
    return {
        "spearman": spearman(predicted[known], measured[known]),
        "spearman_within": _mean(within),
        "mae": float(error.mean()),
        "mre": float((error / np.abs(measured[known])).mean()),
    }


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

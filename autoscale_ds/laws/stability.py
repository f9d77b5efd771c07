"""Rank correlation of mixtures between scales: where it is low, extrapolation over scales is not justified."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.score import spearman
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable

# Below four shared mixtures a rank correlation is one of very few values; it is not evidence.
FEWEST = 4
STABLE = 0.9


def stability(table: RunTable, objective: Objective | None = None) -> dict[str, Any]:
    """Return how the ranking of mixtures at each scale agrees with that at the next and at the largest.

    Parameters
    ----------
    objective : Objective, optional
        Ranks mixtures by this one number of their losses, instead of target by target.

    Returns
    -------
    dict
        ``pairs``: for each pair of scales, the second with no fewer tokens and parameters, that share 4 mixtures:
        ``from`` and ``to`` ({parameters, tokens}), ``mixtures`` shared, ``spearman`` by target and their ``mean``,
        ``same_best`` (share of targets whose best mixture is the same), ``regret`` (mean loss of the smaller scale's
        best mixture over the larger scale's own best, nats). ``mean``, ``stable`` and ``advice`` sum it up.

    Raises
    ------
    MixtureError
        For a table with one scale, or without mixtures trained at two of them.
    """
    if objective is not None:
        table = replace(table, targets=(objective.name,), losses=objective.of_table(table)[:, None])
    groups = {scale: _by_mixture(table.take(rows)) for scale, rows in table.groups()}
    if len(groups) < 2:
        raise MixtureError(
            "the table has one scale only; train the same mixtures at another size or token count to compare"
        )
    scales = list(groups)
    both = [(a, b) for i, a in enumerate(scales) for b in scales[i + 1 :]]
    larger = [(a, b) for a, b in both if a[0] <= b[0] and a[1] <= b[1]] or both
    pairs = [pair for a, b in larger if (pair := _pair(table, a, b, groups)) is not None]
    if not pairs:
        raise MixtureError(f"no two scales share {FEWEST} mixtures; train the same mixtures at two scales to compare")
    known = [pair for pair in pairs if pair["mean"] is not None]
    if not known:
        raise MixtureError(
            f"the mixtures of a scale have equal losses, or fewer than {FEWEST} of a target, so there is no order to "
            "compare; check the loss columns"
        )
    mean = float(np.mean([pair["mean"] for pair in known]))
    return {"pairs": known, "mean": mean, "stable": mean >= STABLE, "advice": _advice(mean, known)}


def _by_mixture(table: RunTable) -> dict[tuple[float, ...], np.ndarray]:
    """Return the losses (k,) of each mixture, averaged over repeats."""
    losses_of: dict[tuple[float, ...], list[np.ndarray]] = {}
    for weights, losses in zip(np.round(table.weights, 5), table.losses, strict=True):
        losses_of.setdefault(tuple(weights.tolist()), []).append(losses)
    return {key: np.mean(rows, axis=0) for key, rows in losses_of.items()}


def _pair(table: RunTable, a: tuple, b: tuple, groups: dict) -> dict[str, Any] | None:
    shared = [key for key in groups[a] if key in groups[b]]
    if len(shared) < FEWEST:
        return None
    small, large = (np.stack([groups[scale][key] for key in shared]) for scale in (a, b))
    by_target, same, regret = {}, [], []
    for j, target in enumerate(table.targets):
        known = np.isfinite(small[:, j]) & np.isfinite(large[:, j])
        rho = spearman(small[known, j], large[known, j])
        if known.sum() < FEWEST or rho is None:
            continue
        by_target[target] = rho
        chosen = int(np.argmin(small[known, j]))
        same.append(chosen == int(np.argmin(large[known, j])))
        regret.append(large[known, j][chosen] - large[known, j].min())
    scale_of = [{"parameters": scale[0] or None, "tokens": scale[1]} for scale in (a, b)]
    return {
        "from": scale_of[0],
        "to": scale_of[1],
        "mixtures": len(shared),
        "spearman": by_target,
        "mean": float(np.mean(list(by_target.values()))) if by_target else None,
        "same_best": float(np.mean(same)) if same else None,
        "regret": float(np.mean(regret)) if regret else None,
    }


def _advice(mean: float, pairs: list[dict[str, Any]]) -> str:
    regret = max(pair["regret"] for pair in pairs)
    if all(pair["same_best"] == 1 for pair in pairs):
        return (
            "the best mixture is the same at every scale, so keeping it loses nothing; over all mixtures the mean rank "
            f"correlation is {mean:.3f}"
        )
    if mean >= STABLE:
        return (
            f"the order of mixtures holds (mean rank correlation {mean:.3f}); keeping the best mixture of a small "
            f"scale costs at most {regret:.4f} nats here, so an extrapolated shift should be small to be believed"
        )
    return (
        f"the order of mixtures changes with scale (mean rank correlation {mean:.3f}, up to {regret:.4f} nats lost by "
        "keeping the small scale's best): fit a law with scale, and check it on the largest runs"
    )

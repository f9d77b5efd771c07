"""Runs repeated with several seeds: their average, the noise between them, and which effects are larger than it.

Runs of one design differ in their seed only. Runs of one seed share initial weights and the order of every domain, so a
difference between two designs is taken seed by seed (paired), which cancels most of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.table import RunTable

# An effect of two standard errors differs from zero with 95 % confidence.
CLEAR = 2.0


def averaged(table: RunTable) -> RunTable:
    """Return one row a design, scale and size: the mean of its seeds' losses, named after the design."""
    groups = _groups(table)
    means = table.take([rows[0] for rows in groups.values()])
    losses = np.array([_mean(table.losses[rows]) for rows in groups.values()])
    return replace(means, runs=means.designs, seeds=("",) * len(means), losses=losses)


def paired(table: RunTable, base: str, designs: Sequence[str]) -> RunTable:
    """Return ``averaged(table)`` with these designs at the base's mean plus their difference from it, seed by seed.

    The base often has more seeds than its perturbations. Means over different seeds differ by the noise that seeds
    share, which is larger than what is left of it in a paired difference.
    """
    means = averaged(table)
    centre = means.losses[means.runs.index(base)]
    rows = {key: i for i, key in enumerate(zip(table.designs, table.seeds, strict=True))}
    losses = means.losses.copy()
    for i, design in enumerate(means.runs):
        if design in designs:
            seeds = [seed for name, seed in rows if name == design and (base, seed) in rows]
            pairs = [(rows[design, seed], rows[base, seed]) for seed in seeds]
            losses[i] = centre + _mean(np.array([table.losses[a] - table.losses[b] for a, b in pairs]))
    return replace(means, losses=losses)


def noise(table: RunTable) -> tuple[Array, int]:
    """Return the standard deviation between seeds of each target (k,), pooled over designs, and its degrees of freedom.

    NaN and 0 where no design was repeated.
    """
    squares, freedom = np.zeros(len(table.targets)), 0
    for rows in _groups(table).values():
        if len(rows) > 1:
            squares += ((table.losses[rows] - table.losses[rows].mean(0)) ** 2).sum(0)
            freedom += len(rows) - 1
    return (np.sqrt(squares / freedom) if freedom else np.full(len(table.targets), np.nan)), freedom


@dataclass(frozen=True)
class Effect:
    """What a design changes against the base: the objective's difference, averaged over the seeds both have.

    Attributes
    ----------
    design : str
        Name of the design.
    difference : float
        Objective of the design minus that of the base.
    standard_error : float
        From the pooled spread of paired differences; NaN when no design has two seeds in common with the base.
    seeds : int
        Number of seeds that both the design and the base were trained with.
    """

    design: str
    difference: float
    standard_error: float
    seeds: int

    @property
    def ratio(self) -> float:
        """Signal to noise: the difference in standard errors."""
        return abs(self.difference) / self.standard_error


def effects(table: RunTable, base: str, objective: Objective, designs: Sequence[str] | None = None) -> list[Effect]:
    """Return the effect of each design (default: all others of the table) against the base.

    Raises
    ------
    MixtureError
        When the base is not in the table, or shares no seed with a design.
    """
    by_design: dict[str, dict[str, float]] = {}
    for design, seed, value in zip(table.designs, table.seeds, objective.of_table(table), strict=True):
        by_design.setdefault(design, {})[seed] = float(value)
    if base not in by_design:
        raise MixtureError(f"base {base!r} is not in the table; its designs: {', '.join(list(by_design)[:8])}")
    wanted = [name for name in (designs or by_design) if name != base]
    differences = {name: _paired(name, by_design[name], by_design[base]) for name in wanted}
    spread = _pooled_spread(list(differences.values()))
    return [
        Effect(name, float(each.mean()), spread / np.sqrt(len(each)), len(each)) for name, each in differences.items()
    ]


def is_clear(effects: Sequence[Effect]) -> bool | None:
    """Return whether the median effect is at least two standard errors; None when the noise is not known."""
    if not effects or not np.isfinite(effects[0].standard_error):
        return None
    return bool(np.median([effect.ratio for effect in effects]) >= CLEAR)


def _groups(table: RunTable) -> dict[tuple, list[int]]:
    """Return the rows of each (design, tokens, parameters), in the order of first appearance."""
    groups: dict[tuple, list[int]] = {}
    for i, design in enumerate(table.designs):
        key = (design, float(table.tokens[i]), float(np.nan_to_num(table.parameters[i])))
        groups.setdefault(key, []).append(i)
    return groups


def _mean(losses: Array) -> Array:
    """Return the mean over rows of what was measured, NaN where nothing was."""
    known = np.isfinite(losses)
    return np.where(known.any(0), np.where(known, losses, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _paired(name: str, design: dict[str, float], base: dict[str, float]) -> Array:
    seeds = [seed for seed in design if seed in base]
    if not seeds:
        raise MixtureError(f"design {name!r} and the base have no seed in common; train both with the same seeds")
    return np.array([design[seed] - base[seed] for seed in seeds])


def _pooled_spread(differences: Sequence[Array]) -> float:
    """Return the standard deviation of a single paired difference; NaN when nothing was repeated."""
    freedom = sum(len(each) - 1 for each in differences)
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in differences)
    return float(np.sqrt(squares / freedom)) if freedom else float("nan")

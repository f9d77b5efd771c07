"""Fit one law to every target of a run table, and say which tables a law cannot be fitted to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import registry
from autoscale_ds.laws.base import TargetModel
from autoscale_ds.laws.model import LossModel
from autoscale_ds.laws.scales import Scales
from autoscale_ds.mixture.table import RunTable

# 48 draws, scaled as a whole, give the spread of one prediction within about ten per cent.
DRAWS = 48
# Losses that differ by no more than this are rounding of one number.
CONSTANT = 1e-9
# Fewer runs than this are refused.
FEWEST = 4


def fit_law(
    table: RunTable,
    name: str,
    *,
    seed: int = 0,
    starts: int = 2,
    draws: int = DRAWS,
    widen: Mapping[str, float] | None = None,
) -> LossModel:
    """Fit one law to every target of a table.

    Parameters
    ----------
    starts, draws : int
        See ``fitting.fit``.
    widen : mapping of str to float
        Target to the factor on the noise its ensemble is drawn with; 1 where it is missing.

    Raises
    ------
    MixtureError
        For a law the table cannot support: several token counts or sizes missing, or too few rows.
    """
    name, scales = registry.check_name(name), Scales.of(table)
    refusal = unsupported(table, name)
    if refusal:
        raise MixtureError(refusal)
    fitted = {
        target: fit_target(table, scales, name, target, seed, starts, draws, (widen or {}).get(target, 1.0))
        for target in table.targets
    }
    return LossModel(name, table.domains, scales, fitted)


def fit_part(table: RunTable, name: str, *, seed: int = 0, draws: int = 0) -> LossModel:
    """Fit a law quickly to part of a table, unchecked; targets that hardly any of its runs measured are left out."""
    scales = Scales.of(table)
    known = [target for target in table.targets if table.measured(target).sum() >= FEWEST]
    fitted = {target: fit_target(table, scales, name, target, seed, starts=1, draws=draws) for target in known}
    return LossModel(name, table.domains, scales, fitted)


def fit_target(
    table: RunTable,
    scales: Scales,
    name: str,
    target: str,
    seed: int = 0,
    starts: int = 2,
    draws: int = 0,
    widen: float = 1.0,
) -> TargetModel:
    """Fit one law to one target, on the runs that measured it."""
    rows = np.flatnonzero(table.measured(target))
    y = table.losses[rows, table.targets.index(target)]
    x, setting = scales.of_table(table).take(rows), scales.setting(table, target)
    fitted: TargetModel = registry.LAWS[name].fit(x, y, setting, seed=seed, starts=starts, draws=draws, widen=widen)
    return fitted


def usable_rows(table: RunTable) -> int:
    """Return how many runs measured the usual target.

    Raises MixtureError for a target that hardly any run measured or that never changes, and for a table of one mixture.
    Where a few targets were measured less often, their fits lean on the priors and say so by wide intervals.
    """
    if len(table) > 1 and (np.ptp(table.weights, axis=0) < 1e-6).all():
        raise MixtureError(
            f"all {len(table)} runs have the same mixture, so nothing tells what weights do; add runs with others"
        )
    counts = {target: int(table.measured(target).sum()) for target in table.targets}
    rare = min(counts, key=lambda target: counts[target])
    if counts[rare] < FEWEST:
        raise MixtureError(
            f"target {rare!r} was measured in {counts[rare]} usable rows, expected at least {FEWEST}; leave it out "
            "with --targets, or add runs"
        )
    for target, losses in zip(table.targets, table.losses.T, strict=True):
        known = losses[np.isfinite(losses)]
        if np.ptp(known) <= CONSTANT:
            raise MixtureError(
                f"target {target!r} is {known[0]:g} in all {len(known)} rows, so nothing tells what weights do to it; "
                "check its column, or leave it out with --targets"
            )
    return int(np.median(list(counts.values())))


def unsupported(table: RunTable, name: str) -> str | None:
    """Return why a table cannot support a law, or None when it can."""
    name = registry.check_name(name)
    rows = usable_rows(table)
    law, setting = registry.LAWS[name], Scales.of(table).setting(table, table.targets[0])
    if law.needs_unique and not setting.repeats:
        why = "has no columns unique/<domain>" if table.unique is None else "has no run that read a text more than once"
        return f"law {name} describes what repeated text is worth, and the table {why}; choose a law without repetition"
    if missing := law.lacks(setting):
        return (
            f"law {name} describes how losses change with scale, and the table has one; add runs {missing}, or choose "
            "a law without scale (--law exposure)"
        )
    needed = law.fewest_rows(setting)
    if rows < needed:
        needs, instead = law.says_it_needs(setting)
        return f"law {name} {needs} {needed} runs, the targets have {rows}; add runs, or {instead}"
    return None

"""Reads a sweep folder or a run table: its designs with all their seeds, the target, fits that lie beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import ConfigError, ReportError
from autoscale_ds.laws import LossModel, lawfile
from autoscale_ds.mixture import RunTable, WeightsFile
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.repeats import averaged
from autoscale_ds.mixture.table import joined_unique
from autoscale_ds.report.style import compact
from autoscale_ds.search.ddo import perturbations
from autoscale_ds.search.design import FLOPS_PER_PARAMETER
from autoscale_ds.search.predictor import is_path, read_predictor
from autoscale_ds.sweep.plan import SweepPlan, Target
from autoscale_ds.sweep.results import TABLE_FILE

# Fits that a user may write into a sweep folder, to be drawn beside those of the page.
LAW, AUTOSCALE = "law.json", "autoscale.json"
TABLES = (".csv", ".parquet", ".pq")


@dataclass(frozen=True, order=True)
class Scale:
    """A size of experiment: tokens of its base run, and parameters (0 where unknown)."""

    tokens: float
    parameters: float = 0.0

    def name(self, *, with_parameters: bool = False) -> str:
        """Return the scale in words."""
        size = f", {compact(self.parameters)} parameters" if with_parameters and self.parameters else ""
        return f"{compact(self.tokens)} tokens{size}"


@dataclass(frozen=True)
class Design:
    """One mixture at one scale, trained with one seed or more.

    Attributes
    ----------
    name : str
        The run's name without its seed.
    scale : Scale
        Scale of its base run.
    rows : RunTable
        Its runs, one a seed.
    flops : float
        Of all seeds together; NaN where unknown.
    """

    name: str
    scale: Scale
    rows: RunTable
    flops: float

    @property
    def weights(self) -> Array:
        """Return its weights (m,)."""
        return self.rows.weights[0]

    @property
    def tokens(self) -> float:
        """Return its own budget; a perturbed design's differs from its scale's."""
        return float(self.rows.tokens[0])

    @property
    def values(self) -> Array:
        """Return the mean loss over targets of each seed (seeds,), nats per token."""
        return np.asarray(self.rows.losses.mean(1))

    @property
    def is_base(self) -> bool:
        """Whether other designs of the scale are changes of this one."""
        return self.name.rpartition("/")[2] in ("base", "prior")


@dataclass(frozen=True)
class Sweep:
    """Everything a report of a sweep starts from.

    Attributes
    ----------
    path : Path
        Sweep folder, or file of the run table.
    domains, targets : tuple of str
        Names of the columns of weights and of losses.
    designs : tuple of Design
        By scale, in the order of the table within it.
    planned : int or None
        Runs planned, where there is a plan.
    target : Scale or None
        The run the search is for; its parameters are 0 where unknown.
    law : LossModel or None
        ``law.json`` of the folder.
    autoscale : WeightsFile or None
        Weights of the folder's ``autoscale.json`` at the target's budget.
    notes : tuple of str
        What was left out, one line each.
    match_repetition : float or None
        Tokens of the run whose repetition the runs have, see ``SweepPlan``.
    """

    path: Path
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    designs: tuple[Design, ...]
    planned: int | None
    target: Scale | None
    law: LossModel | None
    autoscale: WeightsFile | None
    notes: tuple[str, ...]
    match_repetition: float | None = None

    @property
    def scales(self) -> list[Scale]:
        """The scales, smallest first by compute."""
        return sorted({d.scale for d in self.designs}, key=lambda s: ((s.parameters or 1.0) * s.tokens, s))

    def at(self, scale: Scale) -> list[Design]:
        """Return the designs of a scale."""
        return [design for design in self.designs if design.scale == scale]

    def unique_tokens(self, scale: Scale) -> dict[str, float] | None:
        """Return the tokens of text that a run of a scale could draw from each domain; None where it is not known."""
        known = scale if scale in self.scales else self.scales[-1]
        table = self.runs(known)
        if table.unique is None:
            return None
        larger = scale.tokens / known.tokens if self.match_repetition is not None else 1.0
        return dict(zip(self.domains, (larger * table.unique[0]).tolist(), strict=True))

    def runs(self, scale: Scale | None = None) -> RunTable:
        """Return every run, of one scale if given, one row a seed."""
        parts = [design.rows for design in self.designs if scale in (None, design.scale)]
        return replace(
            parts[0],
            runs=tuple(run for part in parts for run in part.runs),
            weights=np.concatenate([part.weights for part in parts]),
            tokens=np.concatenate([part.tokens for part in parts]),
            parameters=np.concatenate([part.parameters for part in parts]),
            losses=np.concatenate([part.losses for part in parts]),
            designs=tuple(design for part in parts for design in part.designs),
            seeds=tuple(seed for part in parts for seed in part.seeds),
            unique=joined_unique(parts),
        )


def is_sweep(path: str | Path) -> bool:
    """Return whether a path is a sweep folder or a run table."""
    path = Path(path)
    return (path.suffix in TABLES and path.is_file()) or _plan(path) is not None


def read_sweep(path: str | Path) -> Sweep:
    """Read a sweep folder, or a run table as CSV or Parquet.

    Raises
    ------
    AutoScaleError
        For a sweep that is not collected yet, or a table or fit that cannot be used.
    """
    path = Path(path)
    plan = _plan(path)
    file = path / TABLE_FILE if path.is_dir() else path
    if not file.exists():
        raise ReportError(
            f"{path} has no {TABLE_FILE} yet; collect what is finished with: launch/sweep.py collect {path}"
        )
    table = RunTable.read(file, drop_bad=True)
    extra, notes = _extra(file, table)
    table, left_out = _complete(table)
    law, autoscale = path / LAW, path / AUTOSCALE
    return Sweep(
        path=path,
        domains=table.domains,
        targets=table.targets,
        designs=tuple(_designs(table, extra)),
        planned=len(plan.runs) if plan else None,
        target=_target(plan.target) if plan else None,
        law=lawfile.load(law) if path.is_dir() and law.exists() else None,
        autoscale=_autoscale(autoscale, plan.target) if plan and autoscale.exists() else None,
        notes=(*table.dropped, *notes, *left_out),
        match_repetition=plan.match_repetition if plan else None,
    )


def _plan(path: Path) -> SweepPlan | None:
    """Return the plan of a sweep folder; None for any other folder."""
    try:
        return SweepPlan.read(path)
    except (ConfigError, OSError):
        return None


def _autoscale(path: Path, target: Target) -> WeightsFile | None:
    """Return the weights that ``fit_mixture.py autoscale`` left in a sweep folder.

    ``--save-path`` writes the optima of the path, from which the weights at the target's budget follow; None where the
    plan has no target. ``--out`` writes weights.
    """
    if not is_path(path):
        return WeightsFile.read(path)
    if target.tokens is None:
        return None
    predictor = read_predictor(path, budget_tokens=target.tokens)
    return WeightsFile(predictor.predict(target.tokens), target.tokens, path.name)


def _target(target: Target) -> Scale | None:
    return Scale(float(target.tokens), float(target.parameters or 0.0)) if target.tokens else None


def _extra(file: Path, table: RunTable) -> tuple[list[dict[str, Any]], list[str]]:
    """Return scale and FLOPs of each row where a sweep recorded them, and what of the file is not used."""
    if file.suffix == ".csv":
        return [{} for _ in table.runs], []
    import pyarrow.parquet

    content = pyarrow.parquet.read_table(file)
    names = [name for name in ("run", "tokens", "scale", "flops") if name in content.column_names]
    by_key = {(str(row.get("run")), row.get("tokens")): row for row in content.select(names).to_pylist()}
    rest = content.num_rows - len(table) - len(table.dropped)
    said = f"{rest:,} points before the end of a learning-rate schedule are not used here."
    keys = zip(table.runs, map(float, table.tokens), strict=True)
    return [by_key.get(key, {}) for key in keys], [said] if rest > 0 else []


def _complete(table: RunTable) -> tuple[RunTable, list[str]]:
    """Keep the targets that every run measured, so that means over targets are of the same targets."""
    kept = [name for name in table.targets if table.measured(name).all()]
    if not kept:
        raise ReportError("no target was measured in every run, so mixtures cannot be compared; measure one in all")
    gone = [name for name in table.targets if name not in kept]
    said = f"Targets not measured in every run are left out: {', '.join(gone)}."
    return (table.with_targets(kept), [said]) if gone else (table, [])


def _designs(table: RunTable, extra: Sequence[Mapping[str, Any]]) -> list[Design]:
    """Return designs from rows: rows of one design and token count are its seeds."""
    scales = _scales(table, extra)
    rows: dict[tuple[str, Scale, float], list[int]] = {}
    for i, design in enumerate(table.designs):
        rows.setdefault((design, scales[i], float(table.tokens[i])), []).append(i)
    order = sorted(rows, key=lambda key: key[1])
    return [_design(table, extra, key[0], key[1], rows[key]) for key in order]


def _design(
    table: RunTable, extra: Sequence[Mapping[str, Any]], name: str, scale: Scale, rows: Sequence[int]
) -> Design:
    flops = [extra[i].get("flops") or FLOPS_PER_PARAMETER * table.parameters[i] * table.tokens[i] for i in rows]
    return Design(name, scale, table.take(list(rows)), math.fsum(flops))


def _scales(table: RunTable, extra: Sequence[Mapping[str, Any]]) -> list[Scale]:
    """Return the scale of each row: as recorded, else its tokens, those of the base for a perturbation of one."""
    sizes = np.nan_to_num(table.parameters)
    scales = [
        Scale(float(row.get("scale") or tokens), float(size))
        for row, tokens, size in zip(extra, table.tokens, sizes, strict=True)
    ]
    if any(row.get("scale") for row in extra):
        return scales
    means = averaged(table)
    for base in [run for run in means.runs if run.rpartition("/")[2] == "base"]:
        if means.runs.count(base) == 1:
            changed = {means.runs[row] for row, _, _ in perturbations(means, base)}
            own = scales[table.designs.index(base)]
            scales = [own if name in changed else scale for name, scale in zip(table.designs, scales, strict=True)]
    return scales

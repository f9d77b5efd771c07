"""Learning curves out of run folders: validation loss by domain, task scores and bits per byte of targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoscale_ds.errors import CurveError
from autoscale_ds.report.reading import Run, read_run
from autoscale_ds.speed.curve import Curve
from autoscale_ds.speed.curvefile import Key, Points, finish, read_curves

# By kind of record in metrics.jsonl: the mapping from series to figure that is read, and what the metric is called.
FIGURES = {"validation": ("domain_loss", "loss"), "scores": ("score", "score"), "targets": ("bits_per_byte", "bits")}


def read(paths: Sequence[str]) -> tuple[list[Curve], list[str]]:
    """Return the curves of run folders and of tables, and notes on what was put right.

    Raises
    ------
    CurveError
        When two run folders have the same name, or a run was never evaluated; see ``read_curves`` for tables.
    """
    folders = [path for path in paths if Path(path).is_dir()]
    curves, notes = read_curves([path for path in paths if path not in folders])
    points: dict[Key, Points] = {}
    names: dict[str, str] = {}
    for folder in folders:
        run = read_run(folder)
        if run.name in names:
            raise CurveError(f"{folder} and {names[run.name]} have the same name; rename one of them")
        names[run.name] = folder
        if not _add(run, points):
            raise CurveError(
                f"{folder} has no evaluation on record; train with validation, targets or evaluation.tasks"
            )
    own, more = finish(points)
    return curves + own, notes + more


def _add(run: Run, points: dict[Key, Points]) -> int:
    """Add a run's figures; return how many. ``samples`` are windows of the run's sequence length."""
    count = 0
    length = run.config.data.sequence_length
    for kind, (figure, metric) in FIGURES.items():
        for record in run.records.get(kind, []):
            at = {"tokens": record["tokens"], "step": record["step"], "samples": record["tokens"] / length}
            for series, value in (record.get(figure) or {}).items():
                if value is not None:
                    where = f"{run.name}, step {record['step']}"
                    points.setdefault((run.name, series, metric), Points()).add(at, value, None, where)
                    count += 1
    return count

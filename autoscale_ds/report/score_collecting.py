"""The table that scores are predicted from, out of run folders."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from autoscale_ds.errors import ScoreError
from autoscale_ds.files import write_atomic
from autoscale_ds.report.reading import Run, read_run
from autoscale_ds.scores.table import BITS, SCORE


def collect(folders: Sequence[str], out: str) -> tuple[int, list[str]]:
    """Write the table of some runs; return the number of rows and the tasks.

    A row is a step at which a run recorded both ``scores`` and ``targets``. A task is in the table when it has a score
    and a target of the same name has its bits per byte.

    Raises
    ------
    ScoreError
        When no run has such a step, or two folders have the same name.
    """
    rows: list[dict[str, object]] = []
    names: dict[str, str] = {}
    for folder in folders:
        run = read_run(folder)
        if run.name in names:
            raise ScoreError(f"{folder} and {names[run.name]} have the same name; rename one of them")
        names[run.name] = folder
        rows += _rows(run)
    columns = [name for name in dict.fromkeys(key for row in rows for key in row) if "/" in name]
    if not columns:
        raise ScoreError(
            "no run has both a score and bits per byte of a task at one step; train with evaluation.tasks, and a "
            "task target of the same name in the corpus (preprocess_domains.py --task-target NAME=FILE)"
        )
    text = io.StringIO()
    table = csv.DictWriter(text, ["run", "parameters", "tokens", *sorted(columns)], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    try:
        write_atomic(Path(out), text.getvalue())
    except OSError as error:
        raise ScoreError(f"cannot write {out}: {error.strerror or error}") from None
    return len(rows), sorted(name.removeprefix(SCORE) for name in columns if name.startswith(SCORE))


def _rows(run: Run) -> list[dict[str, object]]:
    if run.parameters is None:
        raise ScoreError(f"the size of {run.path} is not known, as its corpus cannot be read ({run.no_epochs})")
    bits = {record["step"]: record["bits_per_byte"] for record in run.records.get("targets", [])}
    rows = []
    for record in run.records.get("scores", []):
        known = bits.get(record["step"], {})
        shared = [task for task in record["score"] if known.get(task) is not None and record["tokens"]]
        if shared:
            row: dict[str, object] = {"run": run.name, "parameters": run.parameters, "tokens": record["tokens"]}
            row |= {BITS + task: known[task] for task in shared}
            rows.append(row | {SCORE + task: record["score"][task] for task in shared})
    return rows

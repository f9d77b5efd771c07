"""The table that scores are predicted from: bits per byte and score of each task, one row a checkpoint.

Columns: ``run``, ``parameters``, ``tokens``, and for every task ``bits/<task>`` and ``score/<task>``; other columns
are ignored. CSV, JSON lines or Parquet, see ``mixture.tablefile``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import MixtureError, ScoreError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.tablefile import number, read_cells

log = logging.getLogger(__name__)  # without a handler Python writes warnings to stderr
BITS, SCORE = "bits/", "score/"
# Bits per byte of a model that knows nothing are 8; a completion that a model finds absurd may cost a few times that.
SMALLEST_BITS, LARGEST_BITS = 1e-6, 100.0
Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class ScoreTable:
    """Checkpoints of runs that were evaluated on tasks; rows of a run are in the order of their tokens.

    Attributes
    ----------
    runs : tuple of str
        Name of the run of each of the n rows.
    parameters, tokens : array (n,)
        Model size, and training tokens up to the checkpoint.
    tasks : tuple of str
        Names of the k tasks.
    bits : array (n, k)
        Bits per byte of the gold completions; NaN where it was not measured.
    scores : array (n, k)
        Shares of right answers, 0 to 1; NaN where it was not measured.
    """

    runs: tuple[str, ...]
    parameters: Array
    tokens: Array
    tasks: tuple[str, ...]
    bits: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def run(self) -> npt.NDArray[np.intp]:
        """Number of each row's run, from 0."""
        return np.unique(np.array(self.runs), return_inverse=True)[1].ravel()

    @property
    def lengths(self) -> Array:
        """Tokens of the last row of each row's run."""
        longest = np.zeros(self.run.max(initial=-1) + 1)
        np.maximum.at(longest, self.run, self.tokens)
        return np.asarray(longest[self.run])

    @property
    def is_end(self) -> npt.NDArray[np.bool_]:
        """Whether a row is the last of its run."""
        return np.asarray(self.tokens == self.lengths)

    def take(self, rows: Rows) -> ScoreTable:
        """Return some of the rows: a mask, or numbers."""
        numbers = np.arange(len(self))[rows]
        return ScoreTable(
            tuple(self.runs[i] for i in numbers),
            self.parameters[numbers],
            self.tokens[numbers],
            self.tasks,
            self.bits[numbers],
            self.scores[numbers],
        )

    def of_task(self, task: str) -> ScoreTable:
        """Return the rows where one task was measured."""
        column = [self.tasks.index(task)]
        measured = ~np.isnan(self.bits[:, column] + self.scores[:, column]).ravel()
        some = self.take(measured)
        return ScoreTable(
            some.runs, some.parameters, some.tokens, (task,), some.bits[:, column], some.scores[:, column]
        )

    def with_tasks(self, tasks: Sequence[str]) -> ScoreTable:
        """Return the table with these tasks only; raises ScoreError for one it does not have."""
        for task in tasks:
            if task not in self.tasks:
                raise ScoreError(f"task {task!r} is not in the table; it has {', '.join(self.tasks)}")
        columns = [self.tasks.index(task) for task in tasks]
        return ScoreTable(
            self.runs, self.parameters, self.tokens, tuple(tasks), self.bits[:, columns], self.scores[:, columns]
        )

    @classmethod
    def read(cls, paths: Sequence[str | Path], columns: Sequence[str] = ()) -> ScoreTable:
        """Read tables and join them.

        Parameters
        ----------
        columns : sequence of str
            How columns are renamed, see ``read_cells``.

        Raises
        ------
        ScoreError
            For a file that is no such table, or values that cannot be.
        """
        try:
            return _joined([_read(Path(path), columns) for path in paths])
        except MixtureError as error:
            raise ScoreError(str(error)) from None


def _read(path: Path, columns: Sequence[str]) -> ScoreTable:
    header, rows = read_cells(path, "final", columns)
    tasks = _tasks(path, header)
    if not rows:
        raise ScoreError(f"{path} has a header and no rows")
    position = {name: i for i, name in enumerate(header)}
    runs = [str(row[position["run"]]).strip() for row in rows]

    def read(name: str, low: float, high: float, needed: bool) -> Array:
        return np.array([_cell(path, name, i, row[position[name]], low, high, needed) for i, row in enumerate(rows, 1)])

    def stacked(kind: str, low: float, high: float) -> Array:
        return np.stack([read(kind + task, low, high, needed=False) for task in tasks], axis=1)

    tokens, parameters = (read(name, 1.0, math.inf, needed=True) for name in ("tokens", "parameters"))
    bits, scores = stacked(BITS, SMALLEST_BITS, LARGEST_BITS), stacked(SCORE, 0.0, 1.0)
    table = ScoreTable(tuple(runs), parameters, tokens, tasks, bits, scores)
    _check_runs(path, table)
    return table.take(np.lexsort((table.tokens, table.run)))


def _tasks(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks that have both columns; a task with one of the two is said and left out."""
    for name in ("run", "parameters", "tokens"):
        if name not in header:
            raise ScoreError(f"{path}: column {name!r} is missing; --columns OLD={name} renames another one")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise ScoreError(f"{path}: column {repeated[0]!r} occurs twice")
    bits, scores = (
        {name.removeprefix(kind): None for name in header if name.startswith(kind) and name != kind}
        for kind in (BITS, SCORE)
    )
    both = tuple(task for task in bits if task in scores)
    if not both:
        raise ScoreError(f"{path}: no task has both {BITS}<task> and {SCORE}<task>; its columns: {', '.join(header)}")
    if alone := [task for task in {**bits, **scores} if task not in both]:
        log.warning("%s: left out, as only one of %s and %s is there: %s", path, BITS, SCORE, ", ".join(alone))
    return both


def _cell(path: Path, name: str, row: int, cell: Any, low: float, high: float, needed: bool) -> float:
    expected = f"a number from {low:g} to {high:g}" if high < math.inf else f"a number of at least {low:g}"
    try:
        value = number(cell, blank=math.nan, nan=math.inf)
    except (TypeError, ValueError):
        value = math.inf
    if math.isnan(value) and needed:
        raise ScoreError(f"{path}, row {row}: {name} is empty, expected {expected}")
    if math.isinf(value) or value < low or value > high:
        percent = "; divide per cents by 100" if name.startswith(SCORE) and 1 < value <= 100 else ""
        blank = "" if needed or percent else "; leave the cell empty if it was not measured"
        raise ScoreError(f"{path}, row {row}: {name} is {str(cell).strip()!r}, expected {expected}{percent}{blank}")
    return value


def _check_runs(path: Path, table: ScoreTable) -> None:
    sizes: dict[str, float] = {}
    seen = set()
    for run, size, tokens in zip(table.runs, table.parameters, table.tokens, strict=True):
        if not run:
            raise ScoreError(f"{path}: a row has no name in column run; name the run it is a checkpoint of")
        if sizes.setdefault(run, size) != size:
            raise ScoreError(
                f"{path}: run {run!r} has {sizes[run]:g} and {size:g} parameters; give runs of two sizes two names"
            )
        if (run, tokens) in seen:
            raise ScoreError(f"{path}: run {run!r} occurs twice at {tokens:g} tokens; keep one row of each checkpoint")
        seen.add((run, tokens))


def _joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    if len(tables) == 1:
        return tables[0]
    tasks = tuple(dict.fromkeys(task for table in tables for task in table.tasks))
    seen: set[str] = set()
    for table in tables:
        if both := seen & set(table.runs):
            raise ScoreError(f"run {min(both)!r} is in two of the tables; keep its rows in one, or rename it")
        seen |= set(table.runs)

    def wide(table: ScoreTable, values: Array) -> Array:
        full = np.full((len(table), len(tasks)), math.nan)
        full[:, [tasks.index(task) for task in table.tasks]] = values
        return full

    return ScoreTable(
        tuple(run for table in tables for run in table.runs),
        np.concatenate([table.parameters for table in tables]),
        np.concatenate([table.tokens for table in tables]),
        tasks,
        np.concatenate([wide(table, table.bits) for table in tables]),
        np.concatenate([wide(table, table.scores) for table in tables]),
    )

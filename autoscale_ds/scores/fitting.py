"""Fit every task of a table, and check it on runs that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from autoscale_ds.errors import ScoreError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.scores.curves import SAME, BitsCurve, ScoreCurve
from autoscale_ds.scores.model import Check, ScoreModel, TaskModel, predict
from autoscale_ds.scores.table import ScoreTable

# The first fifth of a run is left out: there the score is not yet a matter of bits per byte alone.
WARMING_UP = 0.2
# Checkpoints of a run that count; more of them follow each other too closely to tell anything new.
CHECKPOINTS = 12
# Sizes left out one after the other, each with all larger ones, from the largest down.
SIZES_LEFT_OUT = 2
# Fewest finished runs. Two exponents and a level are then held by their priors, and the intervals say so.
FEWEST_RUNS = 4
# Draws of a fit, and of one whose intervals are only checked.
DRAWS, FEWER_DRAWS = 100, 60
Mask = npt.NDArray[np.bool_]


def fit(
    table: ScoreTable,
    chance: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda tasks: None,
) -> ScoreModel:
    """Return the curves of every task.

    Parameters
    ----------
    chance : mapping of str to float
        Score of guessing by task; where it is not given it is found between 0.1 below and above the smallest score.
    advance : callable
        Called after each task, for a progress bar.

    Raises
    ------
    ScoreError
        For a task with fewer than ``FEWEST_RUNS`` runs.
    """
    given = dict(chance or {})
    tasks, distances = {}, [np.zeros(0)]
    for task in table.tasks:
        rows = table.of_task(task)
        _refuse_few(rows, task)
        check, its = _checked(rows, given.get(task), seed)
        tasks[task] = TaskModel(*_curves(rows, given.get(task), seed, DRAWS), check)
        distances.append(its)
        advance(1)
    ends = table.take(table.is_end)
    return ScoreModel(
        tasks,
        {task: value for task, value in given.items() if task in tasks},
        _widening(np.concatenate(distances)),
        (float(ends.parameters.min()), float(ends.parameters.max())),
        (float(ends.tokens.min()), float(ends.tokens.max())),
        float((ends.parameters * ends.tokens).max()),
    )


def left_out(table: ScoreTable) -> Iterator[tuple[Mask, Mask]]:
    """Yield the rows of the runs fitted and of the runs left out: larger sizes, then the longest run of each size.

    A size is left out where two others stay, the longest runs where two lengths of each size stay.
    """
    sizes = np.unique(table.parameters)
    for size in sizes[2:][-SIZES_LEFT_OUT:]:
        yield table.parameters < size, table.parameters == size
    lengths = table.lengths
    counts, longest = [], np.zeros(len(table), bool)
    for size in sizes:
        own = table.parameters == size
        counts.append(len(np.unique(lengths[own])))
        longest |= own & (lengths == lengths[own].max())
    if min(counts) >= 3:
        yield ~longest, longest


def _refuse_few(rows: ScoreTable, task: str) -> None:
    ends = rows.take(rows.is_end)
    if len(ends) < FEWEST_RUNS:
        raise ScoreError(
            f"task {task!r} was measured in {len(ends)} runs, a fit needs at least {FEWEST_RUNS}; add runs, or leave "
            "it out with --tasks"
        )
    if ends.parameters.max() <= SAME * ends.parameters.min() and ends.tokens.max() <= SAME * ends.tokens.min():
        raise ScoreError(
            f"all runs of task {task!r} have one size and one length; nothing says how its score moves with scale"
        )


def _curves(rows: ScoreTable, chance: float | None, seed: int, draws: int) -> tuple[BitsCurve, ScoreCurve]:
    bits = BitsCurve.fit(rows, seed=seed, draws=draws)
    return bits, ScoreCurve.fit(rows.take(_counted(rows)), chance, seed=seed, draws=draws)


def _counted(rows: ScoreTable) -> npt.NDArray[np.intp]:
    """Return the checkpoints a score curve is fitted to: spread over each run, after its beginning."""
    run, late = rows.run, np.flatnonzero(rows.tokens > WARMING_UP * rows.lengths)
    kept = []
    for own in (late[run[late] == number] for number in np.unique(run)):
        kept.append(own[np.unique(np.linspace(0, len(own) - 1, CHECKPOINTS).round().astype(int))])
    return np.concatenate(kept)


def _checked(rows: ScoreTable, chance: float | None, seed: int) -> tuple[Check, Array]:
    """Return how runs left out were predicted, and the misses over half the width of their 90 % intervals."""
    ends = rows.take(rows.is_end)
    errors: list[float] = []
    last_errors: list[float] = []
    distances = [np.zeros(0)]
    for fitted, held in left_out(rows):
        known, new = rows.take(fitted), rows.take(held & rows.is_end)
        if int(known.is_end.sum()) < FEWEST_RUNS:
            continue
        predicted = predict(*_curves(known, chance, seed, FEWER_DRAWS), new.parameters, new.tokens)
        miss = new.scores[:, 0] - predicted.scores
        # Intervals are not symmetric: a miss counts over the side it lies on.
        side = np.where(miss > 0, predicted.high - predicted.scores, predicted.scores - predicted.low)
        errors.extend(np.abs(miss))
        last_errors.extend(np.abs(new.scores[:, 0] - _last(known.take(known.is_end), new)))
        distances.append(np.abs(miss) / np.maximum(side, 1e-9))
    correlation = _rank_correlation(ends.bits[:, 0], ends.scores[:, 0])
    mean = (float(np.mean(errors)), float(np.mean(last_errors))) if errors else (0.0, 0.0)
    return Check(len(errors), *mean, correlation), np.concatenate(distances)


def _rank_correlation(x: Array, y: Array) -> float:
    """Return Spearman's correlation, 0 where one of the two is constant."""
    return float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else 0.0


def _last(known: ScoreTable, new: ScoreTable) -> Array:
    """Return, for each new run, the score of the known run with the most compute among those of at most its size."""
    compute = np.where(known.parameters <= new.parameters[:, None], known.parameters * known.tokens, 0.0)
    return known.scores[compute.argmax(1), 0]


def _widening(distances: Array) -> float:
    """Return the factor by which nine in ten of the misses would have lain inside their intervals; at least 1."""
    return max(1.0, float(np.quantile(distances, 0.9))) if len(distances) else 1.0

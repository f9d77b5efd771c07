"""The figures of predict_scores.py. They need the extra ``plots``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from autoscale_ds.errors import ScoreError
from autoscale_ds.report import style
from autoscale_ds.scores import ScoreModel, ScoreTable
from autoscale_ds.scores.model import Prediction

COLUMNS = 4


def plot_fit(path: str, model: ScoreModel, table: ScoreTable) -> None:
    """Draw each task's score over its bits per byte: checkpoints, one colour a size, and the fitted curve."""
    figure, panels = _grid(list(model.tasks))
    sizes = np.unique(table.parameters)
    looks = style.looks([style.compact(float(size)) for size in sizes], sort=False)
    points = {}
    for name, axes in panels:
        rows = table.of_task(name)
        for size, (label, look) in zip(sizes, looks.items(), strict=True):
            own = rows.take(rows.parameters == size)
            (points[label],) = axes.plot(
                own.bits[:, 0], 100 * own.scores[:, 0], look.marker, color=look.colour, markersize=2
            )
        x = np.linspace(rows.bits.min() * 0.9, rows.bits.max(), 200)
        axes.plot(x, 100 * model.tasks[name].score.predict(x), color="black", linewidth=1.2)
        axes.invert_xaxis()
    figure.supxlabel("bits per byte of the gold completion (better to the right)")
    figure.supylabel("score (points)")
    style.legend(figure, points, title="parameters")
    _save(figure, path)


def plot_score(path: str, measured: ScoreTable, predicted: Mapping[str, Prediction]) -> None:
    """Draw each task's predicted score with its 90 % interval over the measured one."""
    figure, panels = _grid([name for name in predicted if not np.isnan(measured.with_tasks([name]).scores).all()])
    for name, axes in panels:
        its, score = predicted[name], measured.scores[:, measured.tasks.index(name)]
        ends = 100 * np.stack([its.scores - its.low, its.high - its.scores])
        axes.errorbar(100 * score, 100 * its.scores, yerr=ends, fmt="o", color=style.COLOURS[0], markersize=3)
        both = 100 * np.concatenate([score, its.scores])
        diagonal = [np.nanmin(both), np.nanmax(both)]
        axes.plot(diagonal, diagonal, color="0.5", linewidth=0.8)
    figure.supxlabel("measured score (points)")
    figure.supylabel("predicted score (points), 90 % interval")
    _save(figure, path)


def plot_predictions(path: str, predicted: Mapping[str, Prediction], tokens: np.ndarray) -> None:
    """Draw each task's predicted score with its 90 % interval over the tokens asked for."""
    figure, panels = _grid(list(predicted))
    order = np.argsort(tokens)
    for name, axes in panels:
        its = predicted[name]
        ends = 100 * np.stack([its.scores - its.low, its.high - its.scores])[:, order]
        axes.errorbar(tokens[order], 100 * its.scores[order], yerr=ends, fmt="o-", markersize=3)
        style.token_axis(axes, "", log=True)
    figure.supxlabel("training tokens")
    figure.supylabel("predicted score (points), 90 % interval")
    _save(figure, path)


def _grid(names: list[str]) -> tuple[Any, Iterator[tuple[str, Any]]]:
    """Return a figure and a panel for each task."""
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = style.canvas(rows, columns, height=1.0 + 2.2 * rows, width=2.0 + 2.6 * columns)
    flat = list(np.ravel(np.array(axes, dtype=object)))
    for spare in flat[len(names) :]:
        spare.set_axis_off()
    for name, one in zip(names, flat, strict=False):
        one.set_title(style.label(name, 32), fontsize=9)
    return figure, zip(names, flat, strict=False)


def _save(figure: Any, path: str) -> None:
    try:
        figure.savefig(path, dpi=style.DPI)
    except (OSError, ValueError) as error:
        raise ScoreError(f"cannot write the figure {path}: {error}") from None

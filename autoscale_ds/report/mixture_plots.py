"""One figure for each command of fit_mixture.py. Needs the extra ``plots``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.report import style


def bars(
    path: str | Path,
    series: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    ylabel: str,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Draw named bars, one colour a series, with optional error bars on the last series."""
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    figure, axes = _figure(title, max(6.0, 0.6 * len(names)))
    width = 0.8 / len(series)
    for i, (label, values) in enumerate(series.items()):
        heights = np.array([values.get(name, 0.0) for name in names])
        errors = None
        if ranges and i == len(series) - 1:
            ends = np.array([ranges.get(name, (h, h)) for name, h in zip(names, heights, strict=True)])
            errors = np.maximum(np.abs(ends.T - heights), 0)
        axes.bar(np.arange(len(names)) + (i - (len(series) - 1) / 2) * width, heights, width, label=label, yerr=errors)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_ylabel(ylabel)
    if len(series) > 1:
        axes.legend()
    _save(figure, path)


def lines(
    path: str | Path,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    marks: Sequence[float] = (),
) -> None:
    """Draw one line a series over a logarithmic x, with vertical marks."""
    figure, axes = _figure(title, 7.0)
    for label, y in series.items():
        axes.plot(x, y, label=label)
    for mark in marks:
        axes.axvline(mark, color="0.7", linewidth=0.8)
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize="small")
    _save(figure, path)


def scatter(path: str | Path, series: Mapping[str, tuple[Any, Any]], *, title: str, xlabel: str, ylabel: str) -> None:
    """Draw points (x, y) of each series and the diagonal."""
    figure, axes = _figure(title, 6.0)
    for label, (x, y) in series.items():
        axes.plot(x, y, ".", markersize=3, label=label)
    values = np.concatenate([np.ravel(v) for pair in series.values() for v in pair])
    ends = [np.nanmin(values), np.nanmax(values)]
    axes.plot(ends, ends, color="0.5", linewidth=0.8)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize="x-small", ncols=2)
    _save(figure, path)


def _figure(title: str, width: float) -> tuple[Any, Any]:
    style.require("--plot")
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _save(figure: Any, path: str | Path) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise MixtureError(f"cannot write the figure {path}: {error}") from None

"""The figure of each command of fit_mixture.py, from what it computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_ds.laws.model import LossModel
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.report import mixture_plots as plots
from autoscale_ds.search.autoscale import AutoScale
from autoscale_ds.search.ddo import DDO
from autoscale_ds.search.design import ProbeRun


def plot_fit(path: str, fitted: LossModel, table: RunTable) -> None:
    """Draw the held-out error of each law, or predictions where only one was fitted."""
    compared = {row["law"]: row["error"] for row in fitted.selection if row.get("error") is not None}
    if not compared:
        return plot_predictions(path, fitted, table)
    return plots.bars(path, {"error": compared}, title="Held-out error by law", ylabel="mean error / spread of losses")


def plot_predictions(path: str, fitted: LossModel, table: RunTable) -> None:
    """Draw predicted against measured losses."""
    shared = [name for name in fitted.targets if name in table.targets]
    table = table.with_domains(fitted.domains).with_targets(shared)
    x = fitted.inputs_of(table)
    points = {name: (table.losses[:, i], fitted.targets[name].predict(x)) for i, name in enumerate(shared)}
    plots.scatter(path, points, title=fitted.law, xlabel="measured loss (nats)", ylabel="predicted loss (nats)")


def plot_weights(
    path: str, mixtures: Mapping[str, DomainWeights], intervals: Mapping[str, tuple[float, float]]
) -> None:
    """Draw mixtures side by side, intervals on the last."""
    plots.bars(path, mixtures, title="Domain weights", ylabel="weight (share of tokens)", ranges=intervals)


def plot_curves(path: str, fitted: DDO) -> None:
    """Draw each domain's fitted curve."""
    x = np.geomspace(0.1, 5, 100)
    curves = {name: [float(y) for y in curve(x)] for name, curve in fitted.curves.items()}
    label = "multiple of the base tokens"
    plots.lines(path, list(x), curves, title="DDO curves", xlabel=label, ylabel="objective / base", marks=(1.0,))


def plot_path(path: str, scale: AutoScale, optima: Sequence[tuple[float, DomainWeights]], tokens: float) -> None:
    """Draw weights against tokens from the first scale to the budget asked for."""
    given = [total for total, _ in optima]
    x = np.geomspace(min([*given, tokens]), max([*given, tokens]), 60)
    predicted = [scale.predict(float(total)) for total in x]
    series = {name: [weights[name] for weights in predicted] for name in scale.domains}
    plots.lines(
        path,
        list(x),
        series,
        title="AutoScale",
        xlabel="tokens",
        ylabel="weight (share of tokens)",
        marks=[*given, tokens],
    )


def plot_plan(path: str, runs: Sequence[ProbeRun]) -> None:
    """Draw the range of weights that the planned runs cover."""
    names = list(runs[0].weights)
    spread = {name: [run.weights[name] for run in runs] for name in names}
    mean = {name: float(np.mean(values)) for name, values in spread.items()}
    ranges = {name: (min(values), max(values)) for name, values in spread.items()}
    plots.bars(path, {"mean": mean}, title=f"{len(runs)} planned mixtures", ylabel="weight: mean, range", ranges=ranges)


def plot_stability(path: str, result: Mapping[str, Any]) -> None:
    """Draw the rank correlation of each pair of scales, by target."""
    series = {
        f"{p['from']['tokens']:.3g} -> {p['to']['tokens']:.3g} #{i + 1}": p["spearman"]
        for i, p in enumerate(result["pairs"])
    }
    plots.bars(path, series, title="Does the ranking of mixtures hold?", ylabel="spearman between scales")

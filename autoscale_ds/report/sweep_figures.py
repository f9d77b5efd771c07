"""The figures of a sweep: effects against noise, DDO curves, optima against scale, ranks between scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.report import style
from autoscale_ds.report.reading import shown
from autoscale_ds.report.style import Image
from autoscale_ds.report.sweep_analysis import PathFit, ScaleFit
from autoscale_ds.report.sweep_law import LawFit
from autoscale_ds.report.sweep_reading import Scale, Sweep
from autoscale_ds.search.uncertainty import Intervals

# Panels of one figure; more domains than this are left to the tables.
MOST_PANELS, MOST_ROWS, MOST_SCALES = 12, 24, 4


def effects(fits: Sequence[ScaleFit]) -> Image:
    """Draw every perturbation's effect with its interval, a panel a scale, the noise as a grey band."""
    fits, more = _largest(fits)
    rows = max(len({effect.domain for effect in fit.effects}) for fit in fits)
    canvas, axes = style.canvas(1, len(fits), height=1.8 + 0.36 * min(rows, MOST_ROWS))
    for one, fit in zip(np.ravel(axes), fits, strict=True):
        handles = _effects_panel(one, fit)
    style.legend(canvas, handles)
    canvas.supxlabel("change of the mean loss (nats per token)", fontsize=10)
    return style.image(
        canvas,
        "effects",
        "Change of the mean validation loss in nats per token when one domain's tokens alone change, at each scale: "
        "mean over seeds with its 90 % interval. Grey: one standard deviation of base runs. Left of zero is better."
        + more,
    )


def _largest(fits: Sequence[ScaleFit]) -> tuple[list[ScaleFit], str]:
    """Return the largest scales with perturbations, and what to say where there are more."""
    known = [fit for fit in fits if fit.effects]
    more = f" The {MOST_SCALES} largest of {len(known)} scales; the tables have all."
    return known[-MOST_SCALES:], more if len(known) > MOST_SCALES else ""


def _effects_panel(axes: Any, fit: ScaleFit) -> dict[str, Any]:
    """Draw one scale; return the handles of the legend."""
    size: dict[str, float] = {}
    for effect in fit.effects:
        size[effect.domain] = max(size.get(effect.domain, 0.0), abs(effect.change))
    domains, _ = shown(list(size), size, MOST_ROWS)
    handles: dict[str, Any] = {}
    if fit.noise:
        handles["noise of a base run"] = axes.axvspan(-fit.noise, fit.noise, color="0.88", zorder=0)
    axes.axvline(0, color="0.5", linewidth=0.9)
    for name, sign, look in (("fewer tokens", -1, ("#D55E00", "v")), ("more tokens", 1, ("#0072B2", "^"))):
        chosen = [e for e in fit.effects if (e.factor > 1) == (sign > 0) and e.domain in domains]
        places = [domains.index(e.domain) - 0.14 * sign for e in chosen]
        handles[name] = axes.errorbar(
            [e.change for e in chosen], places, xerr=[e.half or 0.0 for e in chosen], fmt=look[1], color=look[0],
            markersize=5, capsize=2.5, linewidth=1.2,
        )  # fmt: skip
    axes.set_yticks(range(len(domains)), [style.label(name, 24) for name in domains], fontsize=9)
    axes.set_ylim(len(domains) - 0.4, -0.6)
    axes.xaxis.set_major_locator(_few_ticks(4))
    axes.set_title(fit.scale.name(), fontsize=10)
    return handles


def curves(fits: Sequence[ScaleFit]) -> Image:
    """Draw the points and the fitted curve of each domain, a panel a domain and a colour a scale."""
    fits, fewer = _largest(fits)
    size = {e.domain: max(abs(o.change) for f in fits for o in f.effects if o.domain == e.domain)
            for fit in fits for e in fit.effects}  # fmt: skip
    domains, rest = shown(list(size), size, MOST_PANELS)
    columns = min(3, len(domains))
    rows = math.ceil(len(domains) / columns)
    canvas, axes = style.canvas(rows, columns, height=1.0 + 2.3 * rows)
    looks = style.looks([fit.scale.name(with_parameters=True) for fit in fits], sort=False)
    panels = np.ravel(axes)
    handles: dict[str, Any] = {}
    for one, domain in zip(panels, domains, strict=False):
        for fit, (name, look) in zip(fits, looks.items(), strict=True):
            handles[name] = _curve_panel(one, fit, domain, look) or handles.get(name)
        one.set_title(style.label(domain, 30), fontsize=10)
    for one in panels[len(domains) :]:
        one.set_visible(False)
    style.legend(canvas, {name: handle for name, handle in handles.items() if handle is not None})
    canvas.supxlabel("multiple of the base run's tokens of the domain", fontsize=10)
    canvas.supylabel("change of the mean loss (nats per token)", fontsize=10)
    more = f" The {len(domains)} domains with the largest effects." if rest else ""
    return style.image(
        canvas,
        "ddo_curves",
        "Mean validation loss, in nats per token above that of the base run, against the tokens of one domain in "
        "multiples of the base run's, the others' unchanged: means over seeds with their 90 % interval (points), the "
        f"fitted curve (x + a)^-b + c (line), and its 90 % range over noise drawn anew (band).{more}{fewer}",
    )


def _curve_panel(axes: Any, fit: ScaleFit, domain: str, look: style.Look) -> Any:
    """Draw one domain at one scale and return the handle of its points, None without any."""
    points = [effect for effect in fit.effects if effect.domain == domain]
    if not points:
        return None
    x = np.geomspace(min(0.25, *(e.factor for e in points if e.factor > 0)), max(3.5, *(e.factor for e in points)), 60)
    unit = float(fit.base.values.mean())
    if domain in fit.curves:
        axes.plot(x, (fit.curves[domain](x) - 1) * unit, color=look.colour, linestyle=look.dash, linewidth=1.5)
    if len(fit.bands.get(domain, ())) > 1:
        ends = np.quantile([(curve(x) - 1) * unit for curve in fit.bands[domain]], [0.05, 0.95], axis=0)
        axes.fill_between(x, *ends, color=look.colour, alpha=0.18, linewidth=0)
    places = np.array([1.0, *(e.factor for e in points)])
    handle = axes.errorbar(
        places, [0.0, *(e.change for e in points)], yerr=[0.0, *(e.half or 0.0 for e in points)], fmt=look.marker,
        color=look.colour, markersize=4.5, capsize=2.5, linewidth=1.1,
    )  # fmt: skip
    axes.set_xscale("log")
    style.plain_ticks(axes.xaxis, log=True)
    axes.yaxis.set_major_locator(_few_ticks(5))
    return handle


def optima(sweep: Sweep, fits: Sequence[ScaleFit], path: PathFit, law: LawFit) -> Image:
    """Draw optimal weights against the tokens of a scale, up to the target."""
    size = {name: max([0.0, *_weights_of(name, fits, law)]) for name in sweep.domains}
    domains, rest = shown(sweep.domains, size, style.MOST_LINES)
    canvas, axes = style.canvas(height=4.8)
    tokens = [scale.tokens for scale in [*sweep.scales, *([sweep.target] if sweep.target else [])]]
    predicted = {
        float(t): prediction
        for t in np.geomspace(min(tokens), max(tokens), 40)
        if (prediction := path.predict(float(t)))
    }
    handles: dict[str, Any] = {}
    for name, look in style.looks(domains).items():
        handles[name] = axes.plot([], [], look.marker, color=look.colour, linestyle="none")[0]
        _optima_of(axes, name, look, fits, law)
        _path_of(axes, name, look, predicted)
    if sweep.target:
        axes.axvline(sweep.target.tokens, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate("target", (sweep.target.tokens, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                      textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    if len(set(tokens)) == 1:
        axes.set_xlim(tokens[0] / 2, tokens[0] * 2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("optimal weight (share of tokens)")
    style.token_axis(axes, "training tokens (log scale)", log=True)
    style.legend(canvas, {**handles, **_kinds(axes, fits, path, law)})
    return style.image(canvas, "optimal_weights", _optima_caption(fits, path, law, rest))


def _weights_of(name: str, fits: Sequence[ScaleFit], law: LawFit) -> list[float]:
    shares = [fit.optimum[name] for fit in fits if fit.optimum is not None]
    return shares + [optimum.weights[name] for optimum in law.optima.values()]


def _optima_of(axes: Any, name: str, look: style.Look, fits: Sequence[ScaleFit], law: LawFit) -> None:
    """Draw the optima of one domain: of DDO filled, of the law hollow and slightly to the right."""
    for fit in fits:
        if fit.optimum is not None:
            weight = fit.optimum[name]
            low, high = fit.intervals.get(name, (weight, weight))
            axes.errorbar(fit.scale.tokens, weight, yerr=[[weight - low], [high - weight]], fmt=look.marker,
                          color=look.colour, markersize=6, capsize=3, linewidth=1.2)  # fmt: skip
    for scale, optimum in law.optima.items():
        weight, (low, high) = optimum.weights[name], optimum.intervals[name]
        axes.errorbar(scale.tokens * 1.05, weight, yerr=[[weight - low], [high - weight]], fmt=look.marker,
                      color=look.colour, markerfacecolor="white", markersize=6, capsize=2, linewidth=0.9)  # fmt: skip


def _path_of(
    axes: Any, name: str, look: style.Look, predicted: Mapping[float, tuple[DomainWeights, Intervals]]
) -> None:
    """Draw the AutoScale path of one domain, its interval as a band."""
    axes.plot(list(predicted), [weights[name] for weights, _ in predicted.values()], **look.line(linewidth=1.4))
    ends = [ranges[name] for _, ranges in predicted.values() if ranges]
    if ends:
        axes.fill_between(list(predicted), *np.transpose(ends), color=look.colour, alpha=0.15, linewidth=0)


def _kinds(axes: Any, fits: Sequence[ScaleFit], path: PathFit, law: LawFit) -> dict[str, Any]:
    """Return the part of the legend that tells filled, hollow and line."""
    handles: dict[str, Any] = {}
    if any(fit.optimum is not None for fit in fits):
        handles["DDO (filled)"] = axes.plot([], [], "o", color="0.4")[0]
    if path.path is not None:
        handles["AutoScale (line)"] = axes.plot([], [], "-", color="0.4")[0]
    if law.optima:
        handles["law (hollow)"] = axes.plot([], [], "o", color="0.4", markerfacecolor="white")[0]
    return handles


def _optima_caption(fits: Sequence[ScaleFit], path: PathFit, law: LawFit, rest: Sequence[str]) -> str:
    said = [
        "Weight (share of training tokens) of each domain that minimises the mean loss over targets, against tokens."
    ]
    if any(fit.optimum is not None for fit in fits):
        said.append("Filled: the DDO optimum of a scale, with its 90 % interval over noise.")
    if path.path is not None:
        band = ", with the 90 % interval it inherits from theirs (bands)" if path.draws else ""
        said.append(f"Lines: the AutoScale path through these optima{band}.")
    if law.optima:
        said.append("Hollow: the optimum of the law, with its 90 % interval, moved to the right to be seen.")
    if rest:
        said.append(f"The {style.MOST_LINES - 1} domains with the largest weights; the table has all.")
    return " ".join(said)


def laws(errors: Mapping[str, float]) -> Image:
    """Draw the held-out error of every law and baseline."""
    names = sorted(errors, key=lambda name: errors[name])
    canvas, axes = style.canvas(height=1.2 + 0.32 * len(names))
    values = [errors[name] for name in names]
    axes.plot(values, range(len(names)), "o", color=style.COLOURS[0], markersize=6)
    if min(values) > 0:
        axes.set_xscale("log")  # a law that breaks down somewhere is orders of magnitude off
        style.plain_ticks(axes.xaxis, log=True)
    axes.set_yticks(range(len(names)), [style.label(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("held-out error / spread of the losses (log scale)")
    caption = "Mean error of each law on runs it was not shown, over the spread of the losses: lower is better."
    return style.image(canvas, "laws", caption)


def ranks(sweep: Sweep) -> Image | None:
    """Draw mean losses of mixtures trained at two neighbouring scales against each other; None where too few are."""
    scales = sweep.scales
    pairs = [(a, b, _shared(sweep, a, b)) for a, b in pairwise(scales)]
    pairs = [pair for pair in pairs if len(pair[2]) > 1][-MOST_SCALES:]
    if not pairs:
        return None
    canvas, axes = style.canvas(1, len(pairs), height=4.2)
    for one, (a, b, points) in zip(np.ravel(axes), pairs, strict=True):
        x, y = np.array(points).T
        one.plot(x, y, "o", color=style.COLOURS[0], markersize=5, alpha=0.8)
        one.set_xlabel(f"mean loss at {a.name(with_parameters=True)}\n(nats per token)")
        one.set_ylabel(f"mean loss at {b.name(with_parameters=True)}\n(nats per token)")
        one.xaxis.set_major_locator(_few_ticks(5))
    caption = (
        "Mean validation loss of each mixture at one scale against the same mixture's at the next, in nats per token: "
        "on a rising line the order of mixtures holds."
    )
    return style.image(canvas, "rank_stability", caption)


def _shared(sweep: Sweep, a: Scale, b: Scale) -> list[tuple[float, float]]:
    first = {tuple(np.round(design.weights, 5)): float(design.values.mean()) for design in sweep.at(a)}
    second = {tuple(np.round(design.weights, 5)): float(design.values.mean()) for design in sweep.at(b)}
    return [(value, second[key]) for key, value in first.items() if key in second]


def _few_ticks(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)

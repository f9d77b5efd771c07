"""The figures of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_ds.report import style
from autoscale_ds.report.common import Measure
from autoscale_ds.report.compare import geometric
from autoscale_ds.report.groups import Group, Race
from autoscale_ds.report.style import Image, Look


def curves(
    groups: Sequence[Group], looks: Mapping[str, Look], figure: str, measure: Measure, target: float | None = None
) -> Image:
    """Draw a mean validation figure over tokens: a line a group, a band from the least to the largest seed."""
    what = {"loss": "loss", "mean_perplexity": "perplexity"}[figure]
    canvas, axes = style.canvas()
    handles: dict[str, Any] = {}
    for group in groups:
        x, mean, low, high = group.curve(figure)
        if len(x):
            look = looks[group.label]
            axes.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)
            marks = {"marker": look.marker, "markersize": 4, "markevery": max(len(x) // 12, 1)}
            (handles[group.label],) = axes.plot(x, mean, **look.line(linewidth=1.5, **marks))
    if target is not None:
        handles[f"target {target:.4g}"] = axes.axhline(target, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylabel("mean validation " + (f"loss ({measure.unit})" if what == "loss" else "perplexity (log scale)"))
    if what == "perplexity":
        axes.set_yscale("log")
        style.plain_ticks(axes.yaxis, log=True)
    style.token_axis(axes)
    style.legend(canvas, handles)
    caption = f"Validation {what}, mean over domains, over training tokens: mean over seeds (line), all seeds (band)."
    line = " The dashed line is the target." if target is not None else ""
    return style.image(canvas, f"compare_{what}", caption + line)


def finals(
    groups: Sequence[Group], looks: Mapping[str, Look], domains: Sequence[str], left: int, measure: Measure
) -> Image:
    """Draw the final validation loss of each domain by group, with its interval over seeds."""
    canvas, axes = style.canvas(height=max(style.HEIGHT, 0.42 * len(domains) + 1.2))
    handles: dict[str, Any] = {}
    for i, group in enumerate(groups):
        look = looks[group.label]
        offset = (i - (len(groups) - 1) / 2) * 0.7 / len(groups)
        ends = [(place, group.final("domain_loss", name)) for place, name in enumerate(domains)]
        points = [(place + offset, value) for place, value in ends if value is not None]
        half = [0.0 if value.high is None else value.high - value.mean for _, value in points]
        handles[group.label] = axes.errorbar(
            [value.mean for _, value in points], [place for place, _ in points], xerr=half, fmt=look.marker,
            color=look.colour, markersize=6, capsize=3, linewidth=1.3,
        )  # fmt: skip
    axes.set_yticks(range(len(domains)), [style.label(name, 28) for name in domains])
    axes.invert_yaxis()
    axes.set_xlabel(f"final validation loss ({measure.unit})")
    style.legend(canvas, handles)
    more = f" The {len(domains)} domains with the highest loss; {left} more are in the table." if left else ""
    caption = f"Final validation loss of each domain: mean over seeds with its 90 % interval (bar).{more}"
    return style.image(canvas, "compare_domains", caption)


def reach(race: Race, looks: Mapping[str, Look], measure: Measure) -> Image:
    """Draw the tokens each seed needed to reach the target, and their geometric mean."""
    names = list(race.reached)
    canvas, axes = style.canvas(height=max(2.4, 0.55 * len(names) + 1.2))
    for place, (name, reached) in enumerate(race.reached.items()):
        known = [tokens for tokens in reached.values() if tokens is not None]
        look = looks[name]
        spread = np.linspace(-0.12, 0.12, len(known)) if len(known) > 1 else np.zeros(len(known))
        axes.plot(known, place + spread, look.marker, color=look.colour, markersize=5, alpha=0.7, clip_on=False)
        positive = [tokens for tokens in known if tokens > 0]
        if positive and len(positive) == len(reached):
            mean = geometric(positive).mean
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=look.colour, linewidth=2.5)
    axes.set_yticks(range(len(names)), [style.label(name, 40) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    style.token_axis(axes, f"training tokens to a {measure.words} of {race.target:.4g}")
    caption = (
        f"Training tokens until the {measure.words} was first at or below {race.target:.4g}: every seed "
        "that reached it (points) and the geometric mean where all did (bar)."
    )
    return style.image(canvas, "compare_tokens_to_target", caption)

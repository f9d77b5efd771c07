"""The tables of learning_speed.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoscale_ds.report.style import compact
from autoscale_ds.speed.crossing import BEFORE, NEVER
from autoscale_ds.speed.curve import AXES
from autoscale_ds.speed.measure import GroupSpeed, Settings, Speed

SIGN = {NEVER: ">", BEFORE: "<"}


def rows(speeds: Sequence[Speed]) -> list[dict[str, Any]]:
    """Return one row a curve, for CSV and JSON; None where a figure is not known."""
    return [_row(speed) for speed in speeds]


def _row(speed: Speed) -> dict[str, Any]:
    curve, its, rise = speed.curve, speed.crossing, speed.transition
    times: dict[str, Any] = {}
    for axis in AXES:
        times[axis] = its.at.get(axis)
        times[f"{axis}_low"] = (its.low or {}).get(axis)
        times[f"{axis}_high"] = (its.high or {}).get(axis)
    return {
        "run": curve.run, "series": curve.series, "metric": curve.metric, "threshold": speed.level, "state": its.state,
        **times, "lost": its.lost, "decades": rise.decades if rise else None, "area": speed.area,
        "best": speed.best, "final": speed.final,
    }  # fmt: skip


def group_rows(groups: Sequence[GroupSpeed]) -> list[dict[str, Any]]:
    """Return one row a group and series; an infinite time is one that is not reached."""
    return [
        {
            "group": its.group, "series": its.series, "runs": its.runs, "crossed": its.crossed,
            "median": its.estimate.median, "low": its.estimate.interval[0], "high": its.estimate.interval[1],
            "chi2": its.against_first and its.against_first.chi2, "p": its.against_first and its.against_first.p,
        }
        for its in groups
    ]  # fmt: skip


def text(speeds: Sequence[Speed], groups: Sequence[GroupSpeed], notes: Sequence[str], settings: Settings) -> str:
    """Return the tables for people."""
    axes = [axis for axis in AXES if any(axis in speed.curve.axes for speed in speeds)]
    cells = [["run", "series", "threshold", *axes, "between", "decades", "area", "final"]]
    for speed in speeds:
        its, rise = speed.crossing, speed.transition
        main = speed.curve.axis
        ends = f"{compact(its.low[main])}–{compact(its.high[main])}" if its.low and its.high else ""
        cells.append([
            speed.curve.run, speed.curve.series, f"{speed.level:.3g}",
            *(SIGN.get(its.state, "") + compact(its.at[x]) if x in its.at else "" for x in axes),
            ends + (" lost" if its.lost else ""), f"{rise.decades:.2f}" if rise else "no rise",
            "" if speed.area is None else f"{speed.area:.3g}", f"{speed.final:.3g}",
        ])  # fmt: skip
    lines = [f"threshold {settings.threshold}, for {settings.window} evaluations; rise from 10 to 90 % in decades"]
    lines += _aligned(cells)
    if groups:
        cells = [["group", "series", "crossed", "median", "90 % interval", "p against the first"]]
        for group in groups:
            low, high = group.estimate.interval
            test = group.against_first
            cells.append([
                group.group, group.series, f"{group.crossed}/{group.runs}", compact(group.estimate.median),
                f"{compact(low)}–{compact(high)}", f"{test.p:.3f}" if test else "",
            ])  # fmt: skip
        lines += ["", *_aligned(cells)]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[j]) for row in cells) for j in range(len(cells[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]

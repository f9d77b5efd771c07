"""Tables of benchmarks/mixtures.py: what each mixture reached, paired by seed, beside what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from autoscale_ds.report import style
from autoscale_ds.report.compare import mean_curve, speed_up, tokens_to_reach
from autoscale_ds.study.outcome import Curve, objective_curve
from autoscale_ds.sweep.plan import SweepPlan, run_folder
from autoscale_ds.sweep.results import read_result

Curves = dict[int, Curve]  # by seed
BASE = "uniform"
FIXED = ("uniform", "proportional", "llama")


def read_curves(sweep: Path, objective: Path) -> dict[str, Curves]:
    """Return the curves of the mixtures of a sweep whose runs have all finished, by the name they were planned with."""
    curves: dict[str, Curves] = {}
    runs = SweepPlan.read(sweep).runs
    unfinished = {run.design for run in runs if read_result(sweep, run) is None}
    for run in runs:
        if run.design in unfinished:
            continue
        curve = objective_curve(run_folder(sweep, run), str(objective))
        curves.setdefault(run.design.split("/")[1], {})[run.seed] = curve
    return curves


def compared(
    sweep: Path, objective: Path, of_method: Mapping[str, str], predicted: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of every method for one objective.

    Parameters
    ----------
    sweep, objective : Path
        The target's sweep, and the file of the objective.
    of_method : mapping of str to str
        The design each method's mixture was trained as. Equal mixtures share one.
    predicted : mapping
        ``gain_over``: expected gain of ``decided`` over mixtures by hand, (mean, low, high).
    """
    all_curves = read_curves(sweep, objective)
    curves = {method: all_curves[design] for method, design in of_method.items() if design in all_curves}
    ends = {method: {seed: points[-1][1] for seed, points in by_seed.items()} for method, by_seed in curves.items()}
    half = Pairs(ends).half
    rows: dict[str, dict[str, Any]] = {}
    for method, by_seed in ends.items():
        speed = speed_up(reached(curves[BASE], ends[BASE]), reached(curves[method], ends[BASE]))
        rows[method] = {
            "design": of_method[method],
            "value": float(np.mean(list(by_seed.values()))),
            "gain": difference(ends[BASE], by_seed),
            "speed_up": [speed.ratio, speed.low, speed.high],
        }
    held = {}
    for other, (mean, low, high) in predicted["gain_over"].items():
        if of_method[other] != of_method["decided"]:
            gain = difference(ends[other], ends["decided"])
            inside = low - half <= gain <= high + half
            held[other] = {"predicted": [mean, low, high], "measured": gain, "held": bool(inside)}
    fixed = [name for name in rows if name in (*FIXED, "nearest", "half-nearest")]
    best = min(fixed, key=lambda name: rows[name]["value"])
    return {
        "mixtures": rows,
        "half_width_90": half,
        "predictions": held,
        "verdict": predicted["decision"]["verdict"],
        "best_by_hand": best,
        "gain_over_best_by_hand": difference(ends[best], ends["decided"]),
    }


class Pairs:
    """Half of the 90 % interval of a difference between two mixtures, from the noise that all pairs share."""

    def __init__(self, ends: Mapping[str, Mapping[int, float]]) -> None:
        distinct = {tuple(by_seed.values()): by_seed for by_seed in ends.values()}
        others = [list(by_seed.values()) for by_seed in distinct.values()]
        base = list(ends[BASE].values())
        differences = [np.subtract(base, each) for each in others if each != base]
        seeds = len(base)
        pooled = float(np.sqrt(np.mean([np.var(each, ddof=1) for each in differences])))
        self.half = float(stats.t.ppf(0.95, len(differences) * (seeds - 1)) * pooled / np.sqrt(seeds))


def difference(base: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return by how much a mixture is lower than a base, on average over their seeds."""
    return float(np.mean([base[seed] - other[seed] for seed in base]))


def reached(curves: Curves, goals: Mapping[int, float]) -> dict[int, float | None]:
    """Return the tokens at which each seed reached its goal."""
    found = {}
    for seed, points in curves.items():
        tokens, values = zip(*points, strict=True)
        found[seed] = tokens_to_reach(tokens, values, goals[seed])
    return found


def draw(
    path: Path, title: Mapping[str, str], found: Mapping[str, Any], curves: Mapping[str, Mapping[str, Curves]]
) -> None:
    """Draw the objective against training tokens, one panel an objective: means over seeds, and their range.

    Parameters
    ----------
    title : mapping of str to str
        The objectives to draw, and what is written over each.
    found : mapping
        ``compared`` by objective.
    curves : mapping
        ``read_curves`` by objective.
    """
    figure, panels = style.canvas(1, len(title), height=4.0, width=10.5)
    for axes, (objective, text) in zip(panels, title.items(), strict=True):
        rows = found[objective]["mixtures"]
        shown = {BASE: BASE, found[objective]["best_by_hand"]: "best by hand", "regmix": "regmix", "decided": "decided"}
        looks = style.looks(list(shown.values()), sort=False)
        for method, name in shown.items():
            of_method = curves[objective][rows[method]["design"]].values()
            tokens, mean, low, high = mean_curve([tuple(np.array(points[1:]).T) for points in of_method])
            label = f"{name} ({method})" if name == "best by hand" else name
            axes.plot(tokens, mean, label=label, marker=looks[name].marker, markersize=4, **looks[name].line())
            axes.fill_between(tokens, low, high, color=looks[name].colour, alpha=0.15, linewidth=0)
        speed = rows["decided"]["speed_up"]
        axes.axhline(rows[BASE]["value"], color="0.5", linewidth=0.8)
        axes.set_title(
            f"{text}\ndecided needs {speed[0]:.1f}x fewer tokens ({speed[1]:.1f} to {speed[2]:.1f})", fontsize=10
        )
        axes.set_ylabel("loss (nats a token)")
        style.token_axis(axes)
        axes.legend(frameon=False, fontsize=9)
    path.write_bytes(style.image(figure, path.stem, "").png)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the table of an objective, and how its predictions held, for benchmarks/README.md."""
    half = found["half_width_90"]
    lines = ["| mixture | objective | gain over uniform | fewer tokens to uniform's value |", "|---|---:|---:|---:|"]
    for method, row in found["mixtures"].items():
        ratio, low, high = row["speed_up"]
        speed = "not reached by every seed" if ratio is None else f"{ratio:.2f}x ({low:.2f} to {high:.2f})"
        gain = "" if method == BASE else f"{row['gain']:+.4f} ± {half:.4f}"
        lines.append(f"| {method} | {row['value']:.4f} | {gain} | {'' if method == BASE else speed} |")
    held = [
        f"{other} {each['measured']:+.4f} ({each['predicted'][1]:+.4f} to {each['predicted'][2]:+.4f}, "
        f"{'held' if each['held'] else 'did not hold'})"
        for other, each in found["predictions"].items()
    ]
    best, over = found["best_by_hand"], found["gain_over_best_by_hand"]
    lines += [
        "",
        f"Verdict before the runs: {found['verdict']}. Over the best by hand ({best}): {over:+.4f} ± {half:.4f}.",
        f"Gain of decided over others, measured and predicted: {'; '.join(held)}.",
    ]
    return "\n".join(lines)

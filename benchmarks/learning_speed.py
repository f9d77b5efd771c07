#!/usr/bin/env python3
"""Measure in which order tasks are learned, how fast, and whether order and data effects hold at larger models.

Pythia (EleutherAI/pythia, Apache-2.0; 8 sizes, plain and deduplicated, 8 tasks, 27 checkpoints): tokens until accuracy
stays 3 standard errors above that of the untrained model, for two evaluations or for good, and the area under the
curve. OLMo ladder
(allenai/OLMo-ladder, Apache-2.0; runs at 10 times Chinchilla): tokens until bits per byte of a task come to the level
at which the 190M run ends, at 370M to 3B.

Example:
  python benchmarks/learning_speed.py pythia_zero_shot.csv.gz olmo_ladder.csv.gz    # benchmarks/results/learning_speed
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autoscale_ds import cli
from autoscale_ds.files import finite, make_folder, write_atomic, write_json
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.report import style
from autoscale_ds.speed.curve import Curve, select
from autoscale_ds.speed.curvefile import read_curves
from autoscale_ds.speed.measure import Settings, Speed, measure, rank_position
from autoscale_ds.speed.order import Agreement, agreement, first_break
from autoscale_ds.speed.threshold import Threshold
from benchmarks._machine import RESULTS

PYTHIA = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
OLMO = ("370M", "760M", "1B", "3B")
DRAWS = 100
GOOD = "for good"
RULES = {
    "two evaluations": Settings(Threshold("errors", 3.0)),
    GOOD: Settings(Threshold("errors", 3.0), for_good=True),
}


def main() -> None:
    """Measure, draw, write."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("pythia", help="pythia_zero_shot.csv.gz")
    parser.add_argument("olmo", help="olmo_ladder.csv.gz")
    a = parser.parse_args()
    folder = RESULTS / "learning_speed"
    make_folder(folder)
    pythia = select(read_curves([a.pythia])[0], metric="acc")
    result = {"pythia": of_pythia(pythia), "olmo": of_olmo(read_curves([a.olmo])[0])}
    write_json(folder / "learning_speed.json", finite(result))
    write_atomic(folder / "learning_speed.md", markdown(result))
    draw(result, str(folder / "learning_speed.png"))
    print(markdown(result))


def of_pythia(curves: list[Curve]) -> dict[str, Any]:
    """Return times by size and task, and how far order and data effects agree with those of the smallest model."""
    tasks = sorted({curve.series for curve in curves})
    rng = np.random.default_rng(0)
    drawn = [[noisy(curve, curve.error or 0.0, rng) for curve in curves] for _ in range(DRAWS)]
    found: dict[str, Any] = {"tasks": tasks, "order": {}, "times": {}}
    for rule, settings in RULES.items():
        times = positions(measure(curves, settings), tasks)
        draws = [positions(measure(one, settings), tasks) for one in drawn]
        for suffix, side in {"": "plain", "-deduped": "deduplicated"}.items():
            by_size = {size: times[f"pythia-{size}{suffix}"] for size in PYTHIA}
            noise = {size: np.array([one[f"pythia-{size}{suffix}"] for one in draws]) for size in PYTHIA}
            found["times"][f"{side}, {rule}"] = {size: its.tolist() for size, its in by_size.items()}
            found["order"][f"{side}, {rule}"] = compared(tasks, by_size, noise)

    true, many = effects(curves, tasks), [effects(one, tasks) for one in drawn]
    noise = {size: np.array([one[size] for one in many]) for size in PYTHIA}
    found["effect"] = compared(tasks, true, noise)
    found["effects"] = {size: its.tolist() for size, its in true.items()}
    found["effects_in_errors"] = {size: (its / noise[size].std(0)).tolist() for size, its in true.items()}
    return found


def effects(curves: list[Curve], tasks: list[str]) -> dict[str, Array]:
    """Return by size what deduplication adds to the area under each task's curve (k,), in accuracy."""
    areas = {(s.curve.run, s.curve.series): s.area for s in measure(curves, RULES[GOOD])}

    def of(run: str) -> Array:
        return np.array([areas[run, task] for task in tasks], float)

    return {size: of(f"pythia-{size}-deduped") - of(f"pythia-{size}") for size in PYTHIA}


def of_olmo(curves: list[Curve]) -> dict[str, Any]:
    """Return tokens to the final level of the smallest run, and how far their order agrees with that at 370M.

    The table has no standard errors; the noise is taken from second differences of each curve.
    """
    kept = [replace(c, run=c.run.removesuffix("-10")) for c in curves if c.run.endswith("-10")]
    kept = select(kept, series=["downstream_bpb/*"])
    settings = Settings(Threshold("final", 1.0), reference="190M")
    tasks = sorted({curve.series for curve in kept})
    rng = np.random.default_rng(0)
    # a median, as the steep beginning is no noise; 1.4826: of a normal distribution; 6 = 1 + 4 + 1
    noise = [1.4826 * float(np.median(np.abs(np.diff(c.values, 2)))) / np.sqrt(6) for c in kept]
    times = positions(measure(kept, settings), tasks)
    many = []
    for _ in range(DRAWS):
        one = [noisy(curve, its, rng) for curve, its in zip(kept, noise, strict=True)]
        many.append(positions(measure(one, settings), tasks))
    by_size = {size: times[size] for size in OLMO}
    draws = {size: np.array([one[size] for one in many]) for size in OLMO}
    names = [task.removeprefix("downstream_bpb/").replace("_rc_5shot_bpb", "") for task in tasks]
    result = {"tasks": names, "times": {size: its.tolist() for size, its in by_size.items()}}
    return result | {"order": compared(names, by_size, draws)}


def positions(speeds: list[Speed], tasks: list[str]) -> dict[str, Array]:
    """Return by run the time (k,) of each task; inf where never."""
    known = {(s.curve.run, s.curve.series): rank_position(s) for s in speeds}
    return {run: np.array([known[run, task] for task in tasks]) for run in dict.fromkeys(s.curve.run for s in speeds)}


def noisy(curve: Curve, error: float, rng: np.random.Generator) -> Curve:
    """Return a curve with normal noise of that standard error added."""
    return replace(curve, values=curve.values + error * rng.normal(size=len(curve)))


def compared(names: list[str], by_size: dict[str, Array], draws: dict[str, Array] | None = None) -> dict[str, Any]:
    """Return the agreement of every larger size with the smallest, and the first at which it breaks."""
    first, *larger = by_size
    found: dict[str, Agreement] = {}
    for size in larger:
        pair = None if draws is None else (draws[first], draws[size])
        found[size] = agreement(names, by_size[first], by_size[size], pair)
    return {"against": first, "sizes": {s: asdict(its) for s, its in found.items()}, "breaks_at": first_break(found)}


def markdown(result: dict[str, Any]) -> str:
    """Return the tables."""
    blocks = []
    pythia, olmo = result["pythia"], result["olmo"]
    tables = [("Pythia: tokens to 3 errors above guessing", pythia["tasks"], pythia["times"][f"plain, {GOOD}"]),
              ("OLMo ladder: tokens to the final bits per byte of 190M", olmo["tasks"], olmo["times"])]  # fmt: skip
    for title, tasks, times in tables:
        lines = [f"### {title}", "| task | " + " | ".join(times) + " |", "|---|" + "---:|" * len(times)]
        middle = np.median(np.nan_to_num(np.array(list(times.values())), posinf=1e15), axis=0)
        for j in np.argsort(middle, kind="stable"):
            cells = (style.compact(its[j]) if np.isfinite(its[j]) else "never" for its in times.values())
            lines.append(f"| {tasks[j]} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    lines = [
        "### Does it hold at larger models?",
        "| what | size | rank correlation | 90 % | attainable | verdict |",
        "|---|---|---:|---|---:|---|",
    ]
    for what, its in comparisons(result).items():
        for size, one in its["sizes"].items():
            low, high = one["low"], one["high"]
            ends = "" if low is None else f"{low:.2f}–{high:.2f}"
            most = "" if one["attainable"] is None else f"{one['attainable']:.2f}"
            rho = "" if one["spearman"] is None else f"{one['spearman']:.2f}"
            lines.append(f"| {what}, against {its['against']} | {size} | {rho} | {ends} | {most} | {one['verdict']} |")
    lines += [
        "",
        *(f"{what}: first breaks at {its['breaks_at'] or 'no size'}." for what, its in comparisons(result).items()),
    ]
    return "\n\n".join([*blocks, "\n".join(lines)]) + "\n"


def comparisons(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the four comparisons by name."""
    pythia = result["pythia"]
    orders = {f"order of tasks, Pythia {side}": its for side, its in pythia["order"].items()}
    orders["effect of deduplication, Pythia"] = pythia["effect"]
    return orders | {"order of tasks, OLMo": result["olmo"]["order"]}


def draw(result: dict[str, Any], path: str) -> None:
    """Draw when each task is learned by size, and the rank correlations with the smallest size."""
    style.require("this figure")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), dpi=style.DPI, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    pythia = result["pythia"]
    times = np.array(list(pythia["times"][f"plain, {GOOD}"].values()))
    order = np.argsort(np.mean(np.nan_to_num(np.log10(times), posinf=13.0), axis=0), kind="stable")[::-1]
    end = 3e11
    for i, size in enumerate(PYTHIA):
        x, y = times[i][order], np.arange(len(order)) + 0.08 * (i - 3.5)
        learned, shade = np.isfinite(x), colormaps["viridis"](i / 7.5)
        left.plot(x[learned], y[learned], "o", color=shade, markersize=6, label=size)
        left.plot(np.full((~learned).sum(), end * 1.5), y[~learned], ">", color=shade, markersize=5)
    left.set_xscale("log")
    left.axvline(end, color="0.6", linewidth=0.8)
    left.set_yticks(range(len(order)), [pythia["tasks"][j] for j in order])
    left.set_xlabel("training tokens until clearly above guessing (right of the line: never)")
    left.set_title("Pythia: when each task is learned", loc="left")
    left.legend(
        title="parameters", loc="upper center", bbox_to_anchor=(0.45, -0.14), fontsize=7, ncols=8, columnspacing=0.8
    )
    for colour, marker, (what, its) in zip(style.COLOURS, style.MARKERS, comparisons(result).items(), strict=False):
        ratios = [_parameters(size) / _parameters(its["against"]) for size in its["sizes"]]
        rho = [np.nan if one["spearman"] is None else one["spearman"] for one in its["sizes"].values()]
        right.plot(ratios, rho, "-", color=colour, linewidth=1)
        decided = np.array([one["verdict"] != "undecided" for one in its["sizes"].values()])
        for ratio, its_rho, known in zip(ratios, rho, decided, strict=True):
            right.plot(ratio, its_rho, marker, color=colour, markerfacecolor=colour if known else "white", markersize=7)
        right.plot([], [], marker + "-", color=colour, label=what)
    right.axhline(0.9, color="0.6", linewidth=0.8, linestyle="--")
    right.set_xscale("log")
    right.set_ylim(-1.05, 1.05)
    right.set_xlabel("model size, times the smallest (hollow: undecided)")
    right.set_ylabel("rank correlation with the smallest")
    right.set_title("Does it hold at larger models?", loc="left")
    right.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=2)
    figure.savefig(path)


def _parameters(size: str) -> float:
    return float(size[:-1]) * {"m": 1e6, "b": 1e9}[size[-1].lower()]


if __name__ == "__main__":
    cli.run(main)

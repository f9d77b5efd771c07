"""Output of predict_scores.py: the JSON of each command, and the same as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from autoscale_ds.mixture.arrays import Array
from autoscale_ds.report.mixture_text import Report, text_table
from autoscale_ds.report.style import compact, counted
from autoscale_ds.scores import ScoreModel, ScoreTable
from autoscale_ds.scores.model import Check, Prediction

UNCHECKED = "predictable -: too few sizes and lengths to leave one out and see"


def of_fit(model: ScoreModel, table: ScoreTable, out: str) -> Report:
    """Report a fit: how well each task was predicted on runs left out, and which cannot be."""
    tasks: dict[str, dict[str, Any]] = {
        name: {
            "noise": task.score.found.noise,
            "left_out": task.check.runs,
            "error": task.check.error if task.check.runs else None,
            "last_score_error": task.check.last_error if task.check.runs else None,
            "rank_correlation": task.check.rank_correlation,
            "predictable": predictable(task.check),
            "doubt": task.check.doubt,
        }
        for name, task in model.tasks.items()
    }
    runs = int(table.is_end.sum())
    result = {"out": str(out), "runs": runs, "rows": len(table), "widen": model.widen, "tasks": tasks}
    rows = [
        [name, *(_points(entry[key]) for key in ("noise", "error", "last_score_error")), yes_or_no(model, name)]
        for name, entry in tasks.items()
    ]
    text = [
        "Runs left out of the fit: mean error of the prediction, and of the score of the largest run fitted instead",
        text_table(["task", "noise", "error", "last score", "predictable"], rows),
        f"{counted(runs, 'run')} of {_range(model.parameters)} parameters and {_range(model.tokens)} tokens; errors in "
        f"points; 90 % intervals are widened {model.widen:.2f} times, as runs left out asked for",
        *reasons(model, tasks),
        f"wrote {out}",
    ]
    return result, "\n".join(text)


def of_predictions(model: ScoreModel, sizes: Array, tokens: Array, predicted: Mapping[str, Prediction]) -> Report:
    """Report what was predicted at sizes and tokens (n,)."""
    warnings = model.warnings(sizes, tokens)
    result: dict[str, Any] = {"warnings": warnings, "runs": []}
    text = []
    for i, (size, length) in enumerate(zip(sizes, tokens, strict=True)):
        tasks: dict[str, dict[str, Any]] = {
            name: {
                "bits": float(its.bits[i]),
                "score": float(its.scores[i]),
                "low": float(its.low[i]),
                "high": float(its.high[i]),
                "predictable": predictable(model.tasks[name].check),
                "doubt": model.tasks[name].check.doubt,
            }
            for name, its in predicted.items()
        }
        result["runs"].append({"parameters": float(size), "tokens": float(length), "tasks": tasks})
        rows = [
            [name, f"{t['bits']:.3f}", *(_points(t[key]) for key in ("score", "low", "high")), yes_or_no(model, name)]
            for name, t in tasks.items()
        ]
        text += [
            f"{compact(float(size))} parameters, {compact(float(length))} tokens (scores in points)",
            text_table(["task", "bits/byte", "score", "90% low", "high", "predictable"], rows),
        ]
    return result, "\n".join([*text, *reasons(model, predicted), *(f"warning: {line}" for line in warnings)])


def of_score(model: ScoreModel, measured: ScoreTable, predicted: Mapping[str, Prediction]) -> Report:
    """Report how runs that were not fitted were predicted; ``measured`` has their ends."""
    tasks: dict[str, Any] = {}
    for name, its in predicted.items():
        score = measured.scores[:, measured.tasks.index(name)]
        known = ~np.isnan(score)
        if known.any():
            error = (its.scores - score)[known]
            inside = (its.low <= score) & (score <= its.high)
            tasks[name] = {
                "runs": int(known.sum()),
                "mean_absolute_error": float(np.abs(error).mean()),
                "bias": float(error.mean()),
                "coverage": float(inside[known].mean()),
                "width": float((its.high - its.low)[known].mean()),
                "predictable": predictable(model.tasks[name].check),
            }
    keys = ("mean_absolute_error", "bias", "coverage", "width")
    mean = {key: float(np.mean([entry[key] for entry in tasks.values()])) for key in keys}
    rows = [_score_row(name, entry, yes_or_no(model, name)) for name, entry in tasks.items()]
    rows.append(_score_row("mean", {"runs": "", **mean}, ""))
    header = ["task", "runs", "error", "bias", "in 90%", "width", "predictable"]
    text = [f"{counted(len(measured), 'run')} predicted; errors and widths in points", text_table(header, rows)]
    return {"tasks": tasks, "mean": mean}, "\n".join([*text, *reasons(model, tasks)])


def predictable(check: Check) -> bool | None:
    """Return whether a task can be predicted; None where nothing was left out to see."""
    return False if check.doubt else True if check.runs else None


def yes_or_no(model: ScoreModel, name: str) -> str:
    """Return the same in a word."""
    return {None: "-", False: "no", True: "yes"}[predictable(model.tasks[name].check)]


def reasons(model: ScoreModel, names: Iterable[str]) -> list[str]:
    """Return why tasks cannot be predicted, one line each."""
    checks = {name: model.tasks[name].check for name in names}
    lines = [
        f"{name}: cannot be predicted from these runs: {check.doubt}" for name, check in checks.items() if check.doubt
    ]
    unchecked = any(predictable(check) is None for check in checks.values())
    return lines + [UNCHECKED] * unchecked


def _score_row(name: str, entry: Mapping[str, Any], words: str) -> list[str]:
    points = [_points(entry[key]) for key in ("mean_absolute_error", "bias")]
    return [name, str(entry["runs"]), *points, f"{entry['coverage']:.0%}", _points(entry["width"]), words]


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _range(ends: tuple[float, float]) -> str:
    low, high = map(compact, ends)
    return low if low == high else f"{low} to {high}"

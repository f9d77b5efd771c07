"""Output of fit_mixture.py: the JSON of each command, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoscale_ds.laws.model import LossModel
from autoscale_ds.laws.score import INTERVALS, METRICS, score
from autoscale_ds.mixture import repeats
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.mixturesfile import Mixtures
from autoscale_ds.mixture.repeats import Effect
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile
from autoscale_ds.search.autoscale import AutoScale
from autoscale_ds.search.ddo import DDO
from autoscale_ds.search.decision import Decision
from autoscale_ds.search.moving import Move
from autoscale_ds.search.solver import Goal, Loss, Optimum

Report = tuple[dict[str, Any], str]
# Whose interval it is: that of the expectation says where the mean of many runs would lie.
LOSS_COLUMNS = ("predicted loss", "expectation 90% low", "high", "one run 90% low", "high")
# Lines of a stability table.
MOST_PAIRS = 20
SELECTION = {
    "error": "error",
    "mixtures_spearman_within": "mixtures: spearman",
    "mixtures_mae": "mae",
    "mixtures_mae_within": "mae of differences",
    "larger_spearman_within": "larger scale: spearman",
    "larger_mae": "mae ",
    "larger_mae_within": "mae of differences ",
}


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return aligned columns: the first to the left, numbers to the right with four significant digits."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def of_fit(fitted: LossModel, table: RunTable, out: str) -> Report:
    """Report a fit: which law, its comparison with the others, and how it describes its own runs."""
    own = score(fitted, table)
    result: dict[str, Any] = {
        "law": fitted.law,
        "out": str(out),
        "runs": len(table),
        "dropped": list(table.dropped),
        "domains": list(fitted.domains),
        "targets": {
            name: {
                "runs": int(table.measured(name).sum()),
                "noise": float(model.noise),
                "training_spearman": own["targets"][name]["spearman"],
            }
            for name, model in fitted.targets.items()
        },
        "selection": list(fitted.selection),
        "warnings": list(fitted.notes),
    }
    parts = []
    compared = [row for row in fitted.selection if "error" in row]
    if compared:
        columns = [key for key in SELECTION if any(key in row for row in compared)]
        parts.append("Held-out runs (error: over the spread of the losses; baselines below laws by the same measure)")
        rows = [[row["law"], *(row.get(key) for key in columns)] for row in compared]
        parts.append(text_table(["law", *(SELECTION[key] for key in columns)], rows))
        left_out = [f"{row['law']} ({row['skipped'].split(';')[0]})" for row in fitted.selection if "skipped" in row]
        parts += ["not compared:\n  " + "\n  ".join(left_out)] if left_out else []
    rows = [[name, *entry.values()] for name, entry in result["targets"].items()]
    parts.append(text_table(["target", "runs", "noise (nats)", "spearman on these runs"], rows))
    parts.append(f"law: {fitted.law}, {len(table)} runs, {len(fitted.domains)} domains -> {out}")
    return result, _with_warnings(parts, fitted.notes)


def of_score(result: Mapping[str, Any]) -> str:
    """Return the table of a score."""
    names = (*METRICS, *INTERVALS)
    rows = [[name, *(measured[metric] for metric in names)] for name, measured in result["targets"].items()]
    rows.append(["mean", *(result["mean"][metric] for metric in names)])
    note = "coverage: share of runs inside their 90 % interval (.85 to .95 is right); width: of that interval"
    return _with_warnings([text_table(["target", *names], rows), note], result["warnings"])


def of_predictions(
    fitted: LossModel,
    mixtures: Mixtures,
    tokens: Array,
    sizes: Array,
    predicted: Sequence[Mapping[str, Loss]],
    warnings: Sequence[str],
) -> Report:
    """Report the predicted losses of mixtures."""
    scales = [
        (float(budget), None if np.isnan(size) else float(size)) for budget, size in zip(tokens, sizes, strict=True)
    ]
    result = {
        "law": fitted.law,
        "mixtures": {
            name: {"tokens": budget, "parameters": size, "losses": _losses(losses)}
            for name, (budget, size), losses in zip(mixtures.names, scales, predicted, strict=True)
        },
        "warnings": list(warnings),
    }
    rows = [
        [name, *scale, target, loss.value, *loss.expected, *loss.of_a_run]
        for name, scale, losses in zip(mixtures.names, scales, predicted, strict=True)
        for target, loss in losses.items()
    ]
    text = text_table(["mixture", "tokens", "parameters", "target", *LOSS_COLUMNS], rows)
    return result, _with_warnings([text], warnings)


def _with_warnings(parts: Sequence[str], warnings: Sequence[str]) -> str:
    return "\n\n".join([*parts, *(f"warning: {text}" for text in warnings)])


def _losses(losses: Mapping[str, Loss]) -> dict[str, Any]:
    return {
        name: {"loss": loss.value, "interval": list(loss.expected), "run_interval": list(loss.of_a_run)}
        for name, loss in losses.items()
    }


def of_optimum(
    best: Optimum, goal: Goal, file: WeightsFile, caps: Mapping[str, float], warnings: Sequence[str]
) -> Report:
    """Report the best weights, their intervals, what is within noise, and the mixtures they compete with."""
    plain = replace(goal, kl=0.0)  # what the objective is, without the price of leaving the prior
    rivals, value = _rivals(plain), float(plain.value(np.array([list(best.weights.values())]))[0])
    price = best.value - value
    result = {
        **file.as_dict(),
        "objective": {
            "name": goal.objective.name,
            "value": value,
            "noise": best.noise,
            **rivals,
            **({"price_of_leaving_prior": price} if goal.kl else {}),
        },
        "losses": _losses(best.losses),
        "within_noise": {name: list(pair) for name, pair in best.within_noise.items()},
        "flat": best.flat,
        "caps": {name: cap for name, cap in caps.items() if cap < 1},
        "warnings": list(warnings),
    }
    rows = [
        [
            name,
            *map(_weight, (w, *best.intervals[name], *best.within_noise[name])),
            caps.get(name) if caps.get(name, 1) < 1 else None,
        ]
        for name, w in best.weights.items()
    ]
    parts = [text_table(["domain", "weight", "90% low", "high", "within noise low", "high", "cap"], rows)]
    parts.append(f"Intervals hold if {goal.model.law} is the law; another one may have its optimum elsewhere.")
    losses = [[name, loss.value, *loss.expected, *loss.of_a_run] for name, loss in best.losses.items()]
    parts.append(text_table(["target", *LOSS_COLUMNS], losses))
    beside = ", ".join(f"{name} {value:.5g}" for name, value in rivals.items())
    left = f"; leaving the prior is priced at {price:.2g} more" if goal.kl else ""
    parts.append(f"{goal.objective.name}: best {value:.5g}; {beside}; run-to-run noise {best.noise:.2g}{left}")
    if best.flat:
        parts.append(
            "The optimum is flat: any mixture in the columns 'within noise' could be the best; prefer a prior."
        )
    return result, _with_warnings(parts, warnings)


def of_decision(found: Decision, objective: str, against: str, file: WeightsFile, warnings: Sequence[str]) -> Report:
    """Report a decision: the verdict first, then both mixtures."""
    value, low, high = found.gain
    saved = found.tokens_saved and dict(zip(("value", "low", "high"), found.tokens_saved, strict=True))
    result = {
        **file.as_dict(),
        "verdict": "change" if found.change else "keep",
        "sentence": found.sentence,
        "objective": objective,
        "against": {"name": against, "weights": found.against.as_dict()},
        "best": found.best.as_dict(),
        "expected_gain": {"value": value, "low": low, "high": high},
        "probability_of_gain": found.probability,
        "expected_regret": found.regret,
        "noise": found.noise,
        "tokens_saved": saved or None,
        "within_noise": {name: list(pair) for name, pair in found.within_noise.items()},
        "warnings": list(warnings),
    }
    rows = [
        [name, *map(_weight, (found.weights[name], found.against[name], weight, *found.within_noise[name]))]
        for name, weight in found.best.items()
    ]
    parts = [found.sentence, text_table(["domain", "decided", against, "best", "within noise low", "high"], rows)]
    facts = [f"{objective}; perfect knowledge of the laws' draws would gain {found.regret:.2g} more on average"]
    if found.tokens_saved:
        share, *ends = (tokens / (file.tokens or 1.0) for tokens in found.tokens_saved)
        facts.append(f"the best mixture needs {share:.0%} fewer tokens (90 % {ends[0]:.0%} to {ends[1]:.0%})")
    return result, _with_warnings([*parts, "; ".join(facts)], warnings)


def _weight(value: float) -> float:
    """Return a weight as it is printed: 0 where it is below a millionth."""
    return 0.0 if value < 1e-6 else value


def _rivals(goal: Goal) -> dict[str, float]:
    m = len(goal.model.domains)
    points = {"uniform": np.full(m, 1 / m)} | ({} if goal.prior is None else {"prior": goal.prior})
    return {name: float(goal.value(point[None])[0]) for name, point in points.items()}


def of_ddo(fitted: DDO, file: WeightsFile, effects: Sequence[Effect]) -> Report:
    """Report DDO curves, the optimum beside the base, and each perturbation's effect beside the noise."""
    curves = {n: {"a": c.a, "b": c.b, "c": c.c, "residual": c.residual} for n, c in fitted.curves.items()}
    rows = [
        [name, *map(_weight, (fitted.base[name], weight, *file.intervals.get(name, ()))), c.a, c.b, c.c]
        for (name, weight), c in zip(file.weights.items(), fitted.curves.values(), strict=True)
    ]
    ends = ["5 %", "95 %"] if file.intervals else []
    text = text_table(["domain", "base", "optimum", *ends, "a", "b", "c"], rows)
    note = "y(x) = (x + a)^-b + c in multiples of the base"
    if not ends:
        note += "; three points leave no error to estimate intervals from: repeat runs with other seeds for that"
    return {
        **file.as_dict(),
        "curves": curves,
        **effects_as_dict(effects),
    }, f"{text}\n\n{note}\n\n{effects_table(effects)}"


def effects_as_dict(effects: Sequence[Effect]) -> dict[str, Any]:
    """Return effects by design; a standard error that is not known is null."""
    known = repeats.is_clear(effects) is not None
    return {
        "effects": {
            e.design: {
                "difference": e.difference,
                "standard_error": e.standard_error if known else None,
                "ratio": e.ratio if known else None,
                "seeds": e.seeds,
            }
            for e in effects
        },
        "clear_of_noise": repeats.is_clear(effects),
    }


def effects_table(effects: Sequence[Effect]) -> str:
    """Return effects beside their noise, one line a perturbation."""
    if repeats.is_clear(effects) is None:
        return "noise unknown: no run was repeated with another seed, so nobody can say which effects are real"
    rows = [[e.design, e.difference, e.standard_error, e.ratio, e.seeds] for e in effects]
    return text_table(["perturbation", "effect", "std. error", "ratio", "seeds"], rows)


def of_autoscale(
    path: AutoScale,
    optima: Sequence[tuple[float, DomainWeights]],
    file: WeightsFile,
    published: DomainWeights,
    joint: DomainWeights | None,
    move: Move | None,
) -> Report:
    """Report the extrapolation beside "keep the last weights", the optimum of a law, and the decision if asked for."""
    ordered = sorted(optima, key=lambda pair: pair[0])
    last = ordered[-1][1]
    held = [name for name, fixed in zip(path.domains, path.held, strict=True) if fixed]
    moved = sum(abs(file.weights[name] - last[name]) for name in path.domains)
    unknown = [name for name, (low, high) in file.intervals.items() if low <= last[name] <= high]
    result = {
        **file.as_dict(),
        "keep_the_last": last.as_dict(),
        "published_path": published.as_dict(),
        "joint_law": None if joint is None else joint.as_dict(),
        "moved_l1": moved,
        "held_on_floor": held,
        "move_unknown": unknown,
        "residual": path.residual,
    }
    if move:
        result["decision"] = {
            "move": move.share,
            "towards": move.towards or None,
            "expected_gain": {"value": move.gain[0], "low": move.gain[1], "high": move.gain[2]},
            "probability_of_gain": move.probability,
            "reason": move.reason,
        }
    columns: dict[str, Sequence[Any]] = {f"{t:.3g}": [w[name] for name in path.domains] for t, w in ordered}
    columns["published path" if move else f"-> {file.tokens:.3g} tokens"] = [published[name] for name in path.domains]
    if joint is not None:
        columns["joint law"] = [joint[name] for name in path.domains]
    if move:
        columns["decided"] = [file.weights[name] for name in path.domains]
    if file.intervals:
        of = "decided " if move else ""
        columns[f"{of}5 %"] = [file.intervals[name][0] for name in path.domains]
        columns[f"{of}95 %"] = [file.intervals[name][1] for name in path.domains]
    columns = {name: list(map(_weight, values)) for name, values in columns.items()}
    columns["held"] = ["floor" if name in held else None for name in path.domains]
    text = text_table(["domain", *columns], list(zip(path.domains, *columns.values(), strict=True)))
    if move:
        return result, f"{text}\n\n{move.reason}"
    note = f"moved by {moved:.3f} (L1) from keeping the weights of the last scale, which is the baseline to beat"
    if unknown:
        note += (
            f"\nwarning: whether {', '.join(unknown)} should move at all is not known: the interval holds the weight "
            "of the last scale. Scales farther apart, or more seeds, would tell; that weight is as good a guess"
        )
    note += (
        "\nThis is AutoScale's path as published. Where real runs could be compared, keeping the last optimum was "
        "better in most cases: --decide moves only as far as a law shows a gain"
    )
    return result, f"{text}\n\n{note}"


def of_plan(content: dict[str, Any], out: str) -> Report:
    """Report planned runs and their cost."""
    names = list(content["runs"][0]["weights"])
    rows = [[r["run"], f"{r['tokens']:.4g}", *(r["weights"][name] for name in names)] for r in content["runs"]]
    costs = content["cost"]
    said = [f"{costs['runs']} runs, {costs['tokens']:.4g} tokens"]
    said += [f"{costs['flops']:.4g} FLOPs"] if costs.get("flops") else []
    for key in ("tokens", "flops"):
        if f"share_of_target_{key}" in costs:
            said.append(f"{costs[f'share_of_target_{key}']:.1%} of the target run's {key}")
    return content, f"{text_table(['run', 'tokens', *names], rows)}\n\n{', '.join(said)} -> {out}"


def of_stability(result: Mapping[str, Any]) -> str:
    """Return the table of a stability report: of many pairs of scales those that agree the least."""
    pairs = sorted(result["pairs"], key=lambda pair: pair["mean"])[:MOST_PAIRS]
    pairs = [pair for pair in result["pairs"] if pair in pairs]  # in order of scale again
    rows = [[_scale(p["from"]), _scale(p["to"]), p["mixtures"], p["mean"], p["same_best"], p["regret"]] for p in pairs]
    header = ["from", "to", "mixtures", "spearman", "same best", "regret (nats)"]
    note = (
        "spearman: mean over targets; same best: share of targets with the same best mixture at both scales; regret: "
        "loss at the larger scale of the smaller one's best, over its own best"
    )
    if len(pairs) < len(result["pairs"]):
        note += f"\nthe {len(pairs)} of {len(result['pairs'])} pairs that agree the least (--json has all)"
    return f"{text_table(header, rows)}\n\n{note}\n\n{result['advice']}"


def _scale(scale: Mapping[str, Any]) -> str:
    size = f"{scale['parameters']:.3g} x " if scale["parameters"] else ""
    return f"{size}{scale['tokens']:.3g} tokens"

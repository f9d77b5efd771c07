"""What the runs of a sweep reached: one ``result.json`` a finished run, ``runs.parquet`` of all of them."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoscale_ds.corpus import CorpusIdentity
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import read_json, write_json
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.evidence import TEXT, TOKENIZER
from autoscale_ds.mixture.tablefile import LOSS, UNIQUE, WEIGHT
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.search.design import FLOPS_PER_PARAMETER
from autoscale_ds.sweep.plan import PlannedRun, SweepPlan, run_folder
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.metrics import read_metrics

log = logging.getLogger(__name__)
RESULT_FILE, FAILED_FILE, TABLE_FILE = "result.json", "failed.json", "runs.parquet"


def write_result(sweep: Path, planned: PlannedRun, run: RunConfig, shape: Mapping[str, Any]) -> None:
    """Write what a finished run reached, from its metrics.

    Parameters
    ----------
    shape : mapping
        ``parameters`` and ``flops_per_token`` of the model, digest of the ``corpus``, and by domain the ``unique``
        tokens of text the run could draw from.
    """
    folder = run_folder(sweep, planned)
    metrics = RunPaths(folder).metrics
    final = run.total_steps * run.tokens_per_step
    points = []
    targets = {record["step"]: record["target_loss"] for record in read_metrics(metrics, "targets")}
    for record in read_metrics(metrics, "validation"):
        phase = phase_of(run, record["tokens"], final)
        if phase is not None:
            losses = {**record["domain_loss"], **targets.get(record["step"], {})}
            points.append({"tokens": record["tokens"], "phase": phase, "loss": losses})
    if not points or points[-1]["phase"] != "final":
        raise ConfigError(f"{folder} ended before its budget of {final:,} tokens; raise data.max_epochs or plan less")
    timed = read_metrics(metrics, "train")
    seconds = sum(record["step_seconds"] for record in timed) / max(len(timed), 1) * run.total_steps
    write_json(folder / RESULT_FILE, {"run": planned.run, **shape, "seconds": seconds, "points": points})


def phase_of(run: RunConfig, tokens: float, final: float) -> str | None:
    """Return ``final``, ``constant`` (before the cooldown of a constant schedule), or None: no point of a law.

    In the middle of a cosine a loss says as much about the learning rate as about the data.
    """
    if tokens >= final:
        return "final"
    schedule = run.schedule
    constant = schedule.kind == "constant_with_cooldown" and tokens >= schedule.warmup_tokens
    return "constant" if constant and 0 < tokens <= final - schedule.cooldown_tokens else None


def read_result(sweep: str | Path, planned: PlannedRun) -> dict[str, Any] | None:
    """Return the result of a run, None while it has none."""
    try:
        result: dict[str, Any] = read_json(
            run_folder(sweep, planned) / RESULT_FILE, dict, "remove it, then the sweep makes it again from the run"
        )
        return result
    except FileNotFoundError:
        return None


def collect(sweep: str | Path, plan: SweepPlan) -> list[dict[str, Any]]:
    """Write ``runs.parquet`` (every point of every finished run, in the plan's order) and return its rows.

    Raises
    ------
    ConfigError
        When no run has finished.
    """
    evidence = _evidence(plan.corpus)
    results = {planned: _on_the_same_corpus(sweep, plan, planned) for planned in plan.runs}
    results = _all_with_unique_tokens_or_none(results)
    rows = [row for planned, result in results.items() for row in _rows(plan.bundle, planned, result, evidence)]
    if not rows:
        raise ConfigError(f"no run of {sweep} has finished; start workers with: launch/sweep.py work {sweep}")
    _write_parquet(Path(sweep) / TABLE_FILE, rows, plan.corpus)
    return rows


def search_cost(plan: SweepPlan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tokens and FLOPs spent on the finished runs, and their share of the target run."""
    final = [row for row in rows if row["phase"] == "final"]
    tokens, flops = math.fsum(row["tokens"] for row in final), math.fsum(row["flops"] for row in final)
    cost: dict[str, Any] = {"runs": len(final), "tokens": tokens, "flops": flops}
    if plan.target.tokens:
        cost["share_of_target_tokens"] = tokens / plan.target.tokens
        if plan.target.parameters:
            cost["share_of_target_flops"] = flops / (FLOPS_PER_PARAMETER * plan.target.parameters * plan.target.tokens)
    return cost


def _on_the_same_corpus(sweep: str | Path, plan: SweepPlan, planned: PlannedRun) -> dict[str, Any] | None:
    """Return the result of a run, None while it has none or when it was trained on another corpus than is planned."""
    result = read_result(sweep, planned)
    trained_on = result.get("corpus") if result is not None else None
    if trained_on and plan.corpus is not None and trained_on != plan.corpus.digest:
        log.warning(
            "run %s is left out: it was trained on another corpus (%s, not %s); delete its folder to train it again",
            planned.run,
            trained_on,
            plan.corpus.digest,
        )
        return None
    return result


def _evidence(corpus: CorpusIdentity | None) -> dict[str, str]:
    """Return the columns that say of which text and tokenizer the losses are; none for plans that do not know it."""
    if corpus is None:
        return {}
    domains = {name: f"{text.train}-{text.validation}" for name, text in corpus.domains.items()}
    texts = {TEXT + name: digest for name, digest in (*domains.items(), *corpus.targets.items())}
    return {TOKENIZER: corpus.tokenizer, **texts}


def _all_with_unique_tokens_or_none(
    results: Mapping[PlannedRun, dict[str, Any] | None],
) -> dict[PlannedRun, dict[str, Any] | None]:
    """Return the results without unique tokens where a run from before they were kept has none: columns are whole."""
    known = ["unique" in result for result in results.values() if result is not None]
    if all(known):
        return dict(results)
    if any(known):
        log.warning(
            "the columns unique/<domain> are left out: %d runs are from before they were kept", known.count(False)
        )
    return {planned: result and {**result, "unique": {}} for planned, result in results.items()}


def _rows(
    bundle: Bundle | None, planned: PlannedRun, result: Mapping[str, Any] | None, evidence: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for every point of a run, domains that are reused as one as one."""
    if result is None:
        return []
    weights, unique = planned.weights, result["unique"]
    if bundle is not None:
        weights, unique = bundle.reduced(weights), unique and bundle.tokens(unique)
        evidence = {**evidence, **bundle.columns}
    return [
        {
            "run": planned.run,
            "design": planned.design,
            "scale": planned.scale,
            "seed": planned.seed,
            "phase": point["phase"],
            "parameters": float(result["parameters"]),
            "tokens": float(point["tokens"]),
            "flops": result["flops_per_token"] * point["tokens"],
            "corpus": result.get("corpus", ""),
            **evidence,
            **{WEIGHT + name: weight for name, weight in weights.items()},
            **{UNIQUE + name: float(tokens) for name, tokens in unique.items()},
            **{LOSS + name: loss for name, loss in point["loss"].items()},
        }
        for point in result["points"]
    ]


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], corpus: CorpusIdentity | None) -> None:
    """Write rows atomically, with what they were trained on in the file's metadata; a missing value is null."""
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    handle, working = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        metadata = {"autoscale_ds.corpus": json.dumps(corpus.to_json())} if corpus is not None else None
        pyarrow.parquet.write_table(pyarrow.table(columns, metadata=metadata), working)
        os.chmod(working, 0o644)
        os.replace(working, path)
    except BaseException:
        Path(working).unlink(missing_ok=True)
        raise

#!/usr/bin/env python3
r"""Train a small GPT-2 on real text and watch downstream tasks: scores, bits per byte, and what measuring them costs.

    python benchmarks/downstream.py raw/ eval/     about half an hour on 2 cores; writes results/downstream.json

raw/ holds one NAME.jsonl.gz a domain, eval/ the documents of the shipped tasks (docs/evaluation.md). Three of the tasks
are task targets too: bits per byte of their gold completions. The corpus and the run are kept in --work; the same
command goes on from there.

The cost is that of task targets at the defaults (sequences of 1,024 tokens, 80 a step, 512 items a task, every 500
steps): seconds of one evaluation over those of 500 steps, measured in one process, the median of several.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
import shutil
import statistics
import time
from typing import Any

from autoscale_ds import cli, config
from autoscale_ds.evaluation.base import Site
from autoscale_ds.evaluation.targets import Targets
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.metrics import read_metrics
from autoscale_ds.training.trainer import Trainer
from benchmarks._machine import describe, write_result
from benchmarks._real_text import prepare, run

VOCABULARY, LENGTH, BATCH = 4096, 256, 32
SHAPE = {"layers": 4, "heads": 4, "width": 192}
TASKS = ("hellaswag", "arc_easy", "openbookqa", "lambada_openai", "piqa", "blimp_passive_1", "blimp_npi_present_1")
CHANCE = {"hellaswag": 1 / 4, "arc_easy": 1 / 4, "openbookqa": 1 / 4, "lambada_openai": 0.0}
EVALUATIONS, ITEMS = 6, 200
COST_SHAPE, COST_STEPS = {"layers": 2, "heads": 2, "width": 128}, 5


def main() -> None:
    """Preprocess, train, measure, print, write."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("raw", type=Path, help="folder with NAME.jsonl.gz, one a domain")
    parser.add_argument("eval", type=Path, help="folder with the documents of tasks")
    parser.add_argument("--work", type=Path, default=Path("runs/downstream"), help="corpus and run are kept here")
    parser.add_argument("--tokens", type=cli.positive, default=3e6, help="training tokens (default: 3e6)")
    arguments = parser.parse_args()
    corpus = prepare(arguments.raw.resolve(), arguments.eval.resolve(), arguments.work.absolute(), VOCABULARY)
    share = cost(corpus, arguments.work)
    print(f"task targets at the defaults take {share['share']:.2%} of a run's time ({share['items']} items)\n")
    table = train(corpus, arguments.eval, arguments.work, arguments.tokens)
    print(markdown(table))
    machine = describe("torch", "deepspeed", "lm_eval")
    run = {"model": SHAPE, "vocabulary": VOCABULARY, "sequence_length": LENGTH, "tokens": arguments.tokens}
    write_result(
        "downstream", {"machine": machine, "run": run, "items": ITEMS, "records": table, "targets_cost": share}
    )


def train(corpus: Path, documents: Path, work: Path, tokens: float) -> list[dict[str, Any]]:
    """Return what was measured over a run: tokens, mean validation loss, scores, errors and bits per byte."""
    steps = int(tokens) // (LENGTH * BATCH)
    evaluation = {
        "every_steps": steps // EVALUATIONS,
        "tasks": list(TASKS),
        "tasks_data": str(documents),
        "tasks_every_steps": steps // EVALUATIONS,
        "tasks_limit": ITEMS,
    }
    tree = {
        "run": str(work / "run"),
        "budget_tokens": tokens,
        "data": {"corpus": str(corpus), "sequence_length": LENGTH, "global_batch": BATCH},
        "model": SHAPE,
        "optimizer": {"learning_rate": 2e-3},
        "evaluation": evaluation,
    }
    (work / "run.yaml").write_text(json.dumps(tree))
    (work / "ds.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": 8}))
    run("launch/train.py", "--config", work / "run.yaml", "--deepspeed_config", work / "ds.json")
    records: dict[int, dict[str, Any]] = {}
    for record in read_metrics(work / "run" / "metrics.jsonl"):
        at = records.setdefault(record["step"], {"tokens": record.get("tokens")})
        if record["kind"] == "validation":
            at["validation_loss"] = record["loss"]
        elif record["kind"] == "targets":
            at["bits_per_byte"] = record["bits_per_byte"]
        elif record["kind"] == "scores":
            at |= {"score": record["score"], "standard_error": record["standard_error"]}
    return [record for _, record in sorted(records.items()) if "score" in record]


def cost(corpus: Path, work: Path) -> dict[str, Any]:
    """Return the share of a run's time that task targets take at the defaults."""
    shutil.rmtree(work / "cost", ignore_errors=True)
    tree: dict[str, Any] = {"run": str(work / "cost"), "data": {"corpus": str(corpus)}, "model": COST_SHAPE}
    plain = config.build(RunConfig, {**tree, "budget_tokens": 1e9})
    tree["budget_tokens"] = COST_STEPS * plain.tokens_per_step
    tree["evaluation"] = {"windows_per_domain": 1}
    settings = config.build(RunConfig, tree)
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    times: list[float] = []
    last = time.perf_counter()

    def tick(record: Any) -> None:
        nonlocal last
        if record["kind"] == "train":
            times.append(time.perf_counter() - last)
        last = time.perf_counter()

    ds = resolve({"train_micro_batch_size_per_gpu": 8}, settings, 1)
    logged = config.build(RunConfig, {**tree, "logging": {"every_steps": 1}})
    trainer = Trainer(logged, ds, ranks, device, tick)
    trainer.fit()
    (targets,) = [each for each in trainer.parts.evaluations if isinstance(each, Targets)]
    site = Site(trainer.parts.engine, device, 0, 1, lambda: False)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        targets.run(site)
        seconds.append(time.perf_counter() - began)
    trainer.close()
    stop_distributed()
    step, once = statistics.median(times[1:]), statistics.median(seconds)
    every = plain.evaluation.every_steps or 1
    return {
        "share": once / (once + every * step),
        "items": len(targets.completions),
        "evaluation_seconds": once,
        "step_seconds": step,
        "every_steps": every,
    }


def markdown(records: list[dict[str, Any]]) -> str:
    """Return a table for people: a row a point in training."""
    names, bits = list(records[-1]["score"]), list(records[-1]["bits_per_byte"])
    header = ["tokens", "validation loss", *(f"{name} bits/byte" for name in bits), *(f"{name}" for name in names)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---:|" * len(header)]
    for record in records:
        cells = [f"{record['tokens']:,}", f"{record['validation_loss']:.3f}"]
        cells += [f"{record['bits_per_byte'][name]:.3f}" for name in bits]
        errors = record["standard_error"]
        cells += [f"{record['score'][name]:.3f} ± {errors.get(name, float('nan')):.3f}" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    chance = ", ".join(f"{name} {CHANCE.get(name, 0.5):.2f}" for name in names)
    return "\n".join([*lines, "", f"Chance: {chance}"])


if __name__ == "__main__":
    cli.run(main)

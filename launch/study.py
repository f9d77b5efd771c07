#!/usr/bin/env python3
r"""One file from a corpus to a trained model: probes, decision, main run, report.

Examples:
  python launch/study.py run study.yaml         # every step is an ordinary command, which is printed
  python launch/study.py status study.yaml      # where it is
  python launch/study.py run study.yaml         # killed, stopped or interrupted: the same command goes on

study.yaml:
  folder: runs/study                   # everything the study makes
  corpus: corpora/seven                # made from text first with preprocess: FILE of tools/preprocess_domains.py
  targets: {arxiv: 1, github: 1}       # what is minimised; or objective: mean-loss
  against: uniform                     # what you would train otherwise
  probes:
    config: launch/configs/probe.yaml
    deepspeed_config: ds_configs/zero1_cpu.json
    tokens: [1e6, 2e6]                 # two budgets show how effects grow
    share: 0.1                         # of the main run's cost
    workers: 2
  main:
    config: launch/configs/micro.yaml
    deepspeed_config: ds_configs/zero1_cpu.json
    tokens: 400e6
    launcher: deepspeed --num_gpus 2
    baseline: true                     # train the mixture of against too, and compare

Every value is described in autoscale_ds/study/config.py; paths are relative to where the command is started.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.study.config import StudyConfig
from autoscale_ds.study.outcome import decision, outcome
from autoscale_ds.study.runner import Record, run_study
from autoscale_ds.study.steps import Paths, steps
from autoscale_ds.sweep.plan import PLAN_FILE, SweepPlan, tokens_label
from autoscale_ds.sweep.progress import in_one_line, survey
from autoscale_ds.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
console = cli.console()


def run(study: StudyConfig) -> int:
    """Do what is left and say what came out."""
    code = run_study(study, ROOT, lambda text: console.print(text, soft_wrap=True, style="dim"))
    if code == 0:
        conclude(study)
    return code


def conclude(study: StudyConfig) -> None:
    """Print the decision and, where a baseline was trained, what it gained."""
    console.print(f"\n{decision(study)['sentence']}", soft_wrap=True)
    if study.main.baseline:
        for line in outcome(study).lines:
            console.print(line, soft_wrap=True)
    console.print(f"now open  {Paths(Path(study.folder)).report / 'index.html'}", soft_wrap=True)


def status(study: StudyConfig) -> int:
    """Show which steps are done and how far the present one is."""
    record, paths = Record(study), Paths(Path(study.folder))
    table = Table(title=study.folder)
    for name in ("step", "state", ""):
        table.add_column(name)
    for step in steps(study):
        state = "done" if step.name in record.done else "to do"
        table.add_row(step.name, state, progress(step.name, study, paths))
    console.print(table)
    if "decide" in record.done:
        console.print(str(decision(study)["sentence"]), soft_wrap=True)
    return 0


def progress(step: str, study: StudyConfig, paths: Paths) -> str:
    """Return how far a step is, in words; empty where it has no size."""
    if step == "search" and (paths.probes / PLAN_FILE).exists():
        states = survey(paths.probes, SweepPlan.read(paths.probes))
        spent = sum(state.tokens for state in states)
        most = study.probes.share * study.main.tokens
        return f"{in_one_line(states)}; {tokens_label(spent)} of at most {tokens_label(most)} tokens"
    runs = {"main": paths.main, "baseline": paths.baseline}
    if step not in runs or not RunPaths(runs[step]).metrics.exists():
        return ""
    records = read_metrics(RunPaths(runs[step]).metrics, "train")
    done = records[-1]["tokens"] if records else 0
    return f"{tokens_label(done)} of {tokens_label(study.main.tokens)} tokens"


COMMANDS = {"run": run, "status": status}


def main() -> int:
    """Run one command."""
    parser = cli.CommandLine.of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.add_argument("study", type=Path, help="the study file")
    arguments: argparse.Namespace = parser.parse_args()
    return COMMANDS[arguments.command](StudyConfig.read(arguments.study))


if __name__ == "__main__":
    cli.run(main)

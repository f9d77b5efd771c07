#!/usr/bin/env python3
r"""Predict the scores that a larger or longer run will reach on tasks, from small runs.

Examples:
  # the table of runs that were trained with evaluation.tasks and task targets of the same names
  python tools/predict_scores.py collect runs/small-* --out small_runs.csv

  # two curves a task: bits per byte from size and tokens, the score from bits per byte
  python tools/predict_scores.py fit small_runs.csv --chance 0.25 --chance boolq=0.5 --out scores.json

  # what would a 3.2 B model reach after 60 B and after 300 B tokens?
  python tools/predict_scores.py predict scores.json --parameters 3.2e9 --tokens 60e9 300e9

  # how well were runs predicted that were not fitted?
  python tools/predict_scores.py score scores.json large_runs.csv

A table is CSV, JSON lines or Parquet, one row a checkpoint: run, parameters, tokens, and for every task bits/<task>,
the bits per byte of the gold completions, and score/<task>, the share of right answers (0 to 1). The last row of a run
is taken as its end, so leave out runs that were stopped before their learning rate had decayed. Other names are
renamed, for example --columns 'eval/*/bpb=bits/*'. Every command takes --json for machines and --plot FILE.png for a
figure.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoscale_ds import cli
from autoscale_ds.errors import ScoreError
from autoscale_ds.files import check_outputs
from autoscale_ds.report import score_collecting, score_text, style
from autoscale_ds.report import score_figures as figures
from autoscale_ds.report.mixture_text import Report
from autoscale_ds.scores import ScoreTable, fitting, scorefile


def main() -> None:
    """Run one command."""
    arguments = command_line().parse_args()
    plot = getattr(arguments, "plot", None)
    if plot:
        style.require("--plot")
    inputs = [*getattr(arguments, "runs", []), *filter(None, [getattr(arguments, "scores", None)])]
    check_outputs({"--out": getattr(arguments, "out", None), "--plot": plot}, inputs)
    result, text = arguments.command(arguments)
    print(cli.json_text(result) if arguments.json else text)


def command_line() -> argparse.ArgumentParser:
    """Return the parser: one sub-command each."""
    top = cli.CommandLine.of(__doc__)
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")

    def add(command: object, name: str, example: str) -> argparse.ArgumentParser:
        epilog = f"example:\n  python tools/predict_scores.py {name} {example}"
        sub = subparsers.add_parser(name, help=command.__doc__, description=command.__doc__, epilog=epilog)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        if command is not collect:
            sub.add_argument("--plot", type=cli.file_name, metavar="FILE.png", help="draw a figure (extra 'plots')")
        return sub

    s = add(fit, "fit", "runs.csv --chance 0.25 --chance boolq=0.5 --out scores.json")
    _runs(s)
    s.add_argument("--tasks", nargs="+", metavar="TASK", help="only these (default: all with bits/ and score/)")
    s.add_argument(
        "--chance",
        action="append",
        default=[],
        metavar="[TASK=]SHARE",
        help="score of guessing: of one task, or of all others (repeatable; default: found from the worst checkpoints)",
    )
    s.add_argument("--seed", type=cli.natural, default=0, help="seed of the intervals (default: 0)")
    s.add_argument("--out", required=True, type=cli.file_name, metavar="FILE.json", help="where the fitted curves go")

    s = add(collect, "collect", "runs/small-* --out small_runs.csv")
    s.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    s.add_argument("--out", required=True, type=cli.file_name, metavar="FILE.csv", help="where the table goes")

    s = add(predict, "predict", "scores.json --parameters 3.2e9 --tokens 60e9 300e9")
    s.add_argument("scores", metavar="SCORES.json", help="file that 'fit' wrote")
    s.add_argument("--parameters", type=cli.positive, required=True, metavar="N", help="model size")
    s.add_argument("--tokens", type=cli.positive, required=True, nargs="+", metavar="D", help="lengths of the run")

    s = add(score, "score", "scores.json large_runs.csv --plot predicted.png")
    s.add_argument("scores", metavar="SCORES.json", help="file that 'fit' wrote")
    _runs(s)
    return top


def _runs(s: argparse.ArgumentParser) -> None:
    s.add_argument("runs", nargs="+", metavar="RUNS", help="tables: CSV, JSON lines or Parquet")
    s.add_argument(
        "--columns", action="append", default=[], metavar="OLD=NEW", help="rename columns, * is the rest (repeatable)"
    )


# -- commands: read, compute, write, draw, report ---------------------------------------------------------------


def collect(a: argparse.Namespace) -> Report:
    """Write the table of runs that were trained with evaluation.tasks."""
    rows, tasks = score_collecting.collect(a.runs, a.out)
    text = f"wrote {a.out}: {rows:,} checkpoints of {len(a.runs):,} runs, tasks {', '.join(tasks)}"
    return {"out": a.out, "rows": rows, "tasks": tasks}, text


def fit(a: argparse.Namespace) -> Report:
    """Fit the curves of every task, and check them on runs left out."""
    table = ScoreTable.read(a.runs, a.columns)
    if a.tasks:
        table = table.with_tasks(a.tasks)
    chance = read_chance(a.chance, table.tasks)
    with cli.counting("tasks", len(table.tasks)) as advance:
        model = fitting.fit(table, chance, seed=a.seed, advance=advance)
    model = replace(model, files=tuple(Path(path).name for path in a.runs))
    scorefile.save(model, a.out)
    if a.plot:
        figures.plot_fit(a.plot, model, table)
    return score_text.of_fit(model, table, a.out)


def predict(a: argparse.Namespace) -> Report:
    """Predict the scores of a run, with intervals."""
    model = scorefile.load(a.scores)
    tokens = np.array(a.tokens)
    sizes = np.full(len(tokens), a.parameters)
    predicted = model.predict(sizes, tokens)
    if a.plot:
        figures.plot_predictions(a.plot, predicted, tokens)
    return score_text.of_predictions(model, sizes, tokens, predicted)


def score(a: argparse.Namespace) -> Report:
    """Compare predictions with the ends of other runs."""
    model, table = scorefile.load(a.scores), ScoreTable.read(a.runs, a.columns)
    shared = [name for name in model.tasks if name in table.tasks]
    if not shared:
        raise ScoreError(f"the table has none of the fitted tasks, {', '.join(model.tasks)}")
    ends = table.with_tasks(shared).take(table.is_end)
    predicted = {name: its for name, its in model.predict(ends.parameters, ends.tokens).items() if name in shared}
    if a.plot:
        figures.plot_score(a.plot, ends, predicted)
    return score_text.of_score(model, ends, predicted)


def read_chance(texts: list[str], tasks: tuple[str, ...]) -> dict[str, float]:
    """Return the score of guessing by task."""
    known: dict[str, float] = {}
    others: float | None = None
    for text in texts:
        task, _, share = text.rpartition("=")
        try:
            value = cli.real(least=0.0, most=0.95)(share)
        except argparse.ArgumentTypeError as error:
            raise ScoreError(f"--chance {text!r}: {error}") from None
        if task and task not in tasks:
            raise ScoreError(f"--chance {text!r}: no task {task!r}; the table has {', '.join(tasks)}")
        if task:
            known[task] = value
        else:
            others = value
    return known if others is None else dict.fromkeys(tasks, others) | known


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START, memory_advice="fit fewer --tasks")

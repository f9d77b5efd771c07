#!/usr/bin/env python3
r"""Measure how fast each metric of some runs is learned: time to a threshold, width of the rise, area under the curve.

Examples:
  # when does each task come half of the way to its best, and stay for two evaluations?
  python tools/learning_speed.py curves.csv.gz --metric acc

  # tokens until the mean accuracy of all operations is .95, in two groups of seeds
  python tools/learning_speed.py runs/plain-* runs/reversed-* --metric score --mean operations --threshold 0.95 \
      --compare plain='plain-*' --compare reversed='reversed-*'

A run folder gives loss (by validation domain), score (by task) and bits (per byte, by target). A table is CSV,
gzipped or not, one row an evaluation: value; tokens, step or samples; optionally metric, series (or task), stderr;
the other columns name the run. Times are interpolated in log tokens between two evaluations, which are given as the
interval; ">" is a run that never came there by its last evaluation, "<" one that was there at its first.
"""

from __future__ import annotations

import argparse
import csv
import io

from autoscale_ds import cli
from autoscale_ds.errors import CurveError
from autoscale_ds.files import check_outputs, write_atomic
from autoscale_ds.report import speed_reading, speed_text
from autoscale_ds.speed.curve import matching, mean_of, select
from autoscale_ds.speed.measure import Settings, by_group, measure
from autoscale_ds.speed.threshold import FORMS, Threshold


def main() -> None:
    """Read, measure, compare, write, print."""
    a = command_line().parse_args()
    check_outputs({"--csv": a.csv}, a.inputs)
    curves, notes = speed_reading.read(a.inputs)
    curves = select(curves, metric=a.metric, series=a.series)
    if a.mean:
        curves = mean_of(curves, a.mean)
    falling = None if a.better is None else a.better == "lower"
    floors = None if a.floor is None else {"": a.floor}
    settings = Settings(Threshold.parse(a.threshold), a.window, falling, a.for_good, floors, a.reference)
    speeds = measure(curves, settings)
    groups = by_group(speeds, read_groups(a.compare, [curve.run for curve in curves])) if a.compare else []
    rows = speed_text.rows(speeds)
    if a.csv:
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        try:
            write_atomic(a.csv, text.getvalue())
        except OSError as error:
            raise CurveError(f"cannot write {a.csv}: {error.strerror or error}") from None
    if a.json:
        print(cli.json_text({"curves": rows, "groups": speed_text.group_rows(groups), "notes": notes}))
    else:
        print(speed_text.text(speeds, groups, notes, settings))


def command_line() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("inputs", nargs="+", metavar="RUN|CURVES.csv", help="run folders, or tables of curves")
    parser.add_argument("--metric", help="which metric (needed where there are several)")
    parser.add_argument(
        "--series",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these skills, tasks or domains; * as in file names",
    )
    parser.add_argument("--mean", metavar="NAME", help="measure the mean of the series, as one series of this name")
    parser.add_argument("--threshold", default="way:0.5", help=f"{FORMS}; default: way:0.5")
    parser.add_argument(
        "--window",
        type=cli.positive_int,
        default=2,
        metavar="W",
        help="consecutive evaluations to stay beyond it (default: 2)",
    )
    parser.add_argument("--for-good", action="store_true", help="count only the last time it comes there")
    parser.add_argument(
        "--better", choices=["lower", "higher"], help="default: lower for loss, bits, perplexity, error"
    )
    parser.add_argument(
        "--floor", type=cli.real(), metavar="VALUE", help="value of guessing (default: the first evaluation)"
    )
    parser.add_argument(
        "--reference", metavar="RUN", help="relative thresholds of all runs come from this one's curves"
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="GROUP=RUNS",
        help="runs of one data choice, name or pattern, commas between (repeatable); tested against the first",
    )
    parser.add_argument("--csv", type=cli.file_name, metavar="FILE", help="write the table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def read_groups(texts: list[str], runs: list[str]) -> dict[str, list[str]]:
    """Return the names of runs by group."""
    names = list(dict.fromkeys(runs))
    groups: dict[str, list[str]] = {}
    for text in texts:
        group, equals, patterns = text.partition("=")
        if not (group and equals and patterns) or group in groups:
            raise CurveError(f"--compare {text!r} given, expected GROUP=RUNS with another GROUP each time")
        groups[group] = matching(patterns.split(","), names, "run")
        for other, its in groups.items():
            if other != group and (both := set(its) & set(groups[group])):
                raise CurveError(f"--compare: {min(both)!r} is in {other!r} and in {group!r}; put it in one")
    return groups


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

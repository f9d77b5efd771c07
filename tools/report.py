#!/usr/bin/env python3
"""Figures and one self-contained HTML page about runs and sweeps, also while they are going.

Examples:
  # one run: losses, weights and swaps, tokens and epochs; writes runs/small/report/index.html
  python tools/report.py runs/small

  # a sweep: effects against noise, optimal weights against scale, laws, cost; or any table of runs
  python tools/report.py sweeps/small
  python tools/report.py runs.csv --out runs-report

  # several runs side by side: tokens to the first group's final perplexity, and the speed-up; seeds are grouped
  python tools/report.py runs/uniform-* runs/autoscale-* --out runs/compared
  python tools/report.py --label uniform=runs/u0,runs/u1 --label AutoScale=runs/a0,runs/a1 --target 25 --out compared
"""

from __future__ import annotations

import argparse
import logging

from autoscale_ds import cli
from autoscale_ds.errors import ReportError
from autoscale_ds.report.build import build


def main() -> None:
    """Write the report and say where it is."""
    a = _parser().parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("autoscale_ds").setLevel(logging.INFO)
    print(build(a.paths, a.out, a.title, named=_named(a.label), target=a.target, corpus=a.corpus))


def _parser() -> argparse.ArgumentParser:
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("paths", nargs="*", metavar="RUN|SWEEP", help="run folders, sweep folders, run tables")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: report/ inside the only argument)")
    parser.add_argument("--corpus", metavar="FOLDER", help="where the corpus of the runs lies now")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=RUN,RUN", help="runs to compare as one group; repeatable"
    )
    parser.add_argument(
        "--target",
        type=cli.positive,
        metavar="PERPLEXITY",
        help="mean validation perplexity to reach (default: the final one of the first group)",
    )
    return parser


def _named(labels: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for text in labels:
        name, separator, members = text.partition("=")
        runs = [run for run in members.split(",") if run]
        if not (name and separator and runs):
            raise ReportError(f"--label {text!r} is not of the form NAME=RUN,RUN, for example uniform=runs/u0,runs/u1")
        if name in groups:
            raise ReportError(f"--label names the group {name!r} twice; give all its runs at once")
        groups[name] = runs
    return groups


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

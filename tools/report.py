#!/usr/bin/env python3
"""Figures and one self-contained HTML page about runs and sweeps, also while they are going.

Examples:
  python tools/report.py runs/small                          # writes runs/small/report/index.html
  python tools/report.py runs/small --out /tmp/small --title "Small model, three swaps"
"""

from __future__ import annotations

import argparse
import logging

from autoscale_ds import cli
from autoscale_ds.report.build import build


def main() -> None:
    """Write the report and say where it is."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(build(arguments.paths, arguments.out, arguments.title))


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="RUN", help="run folder")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where to write (default: RUN/report for one, ./report for more)"
    )
    parser.add_argument("--title", help="heading of the page")
    return parser


if __name__ == "__main__":
    cli.run(main)

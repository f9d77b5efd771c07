#!/usr/bin/env python3
r"""Make text that teaches skills whose answers are known: arithmetic in four formats, parities, chains, random numbers.

Examples:
  # the same additions of up to 3 digits in four formats, a domain each
  python tools/make_skills.py skills/formats --skill addition:format=all,digits=3 --samples 1e5

  # other kinds; a name of one's own; see below for their keys
  python tools/make_skills.py skills/mixed --skill subtraction --skill aggregated:operations=4 \
      --skill parity:tasks=64,bits=32,exponent=1.4 --skill lego:depth=all,length=5 --skill hard=random:multiplier=25173

  # then: domains like any others (257 ids: a token a character)
  python tools/preprocess_domains.py --output corpora/formats --train-tokenizer 257 --validation-documents 500 \
      --domain addition-plain=skills/formats/addition-plain/train.jsonl …
  deepspeed launch/train.py … data.corpus=corpora/formats

Kinds and keys ("all" makes one domain for each value of a key marked with *):
  addition, subtraction, multiplication   format* plain, reversed, simplified, detailed; digits (at most);
                                          lengths proportional, equal
  aggregated                              format* plain, reversed; digits; operations (at most)
  parity                                  tasks, bits, size (bits that count), exponent (of the frequencies)
  lego                                    depth* (1 to length), length (variables of a chain)
  random                                  bits, multiplier, increment, numbers (of a sample)

Output: FOLDER/NAME/train.jsonl, FOLDER/NAME/held_out.jsonl and, last, FOLDER/skills.json. Which problems are held out
depends on the problems and --held-out-share alone: another seed, size or format never moves one into training. The
bytes are the same on every machine. What is made and how it is measured: docs/skills.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.errors import ConfigError
from autoscale_ds.skills import Generator, parse_skill
from autoscale_ds.skills.folder import MakeSettings, make

_PERIOD_SECONDS = 10.0


def main() -> None:
    """Make, show."""
    a = _parser().parse_args()
    domains: dict[str, Generator] = {}
    for text in a.skill:
        for name, generator in parse_skill(text).items():
            if name in domains:
                raise ConfigError(f"two skills are called {name}; name one of them: --skill NAME={text}")
            domains[name] = generator
    settings = MakeSettings(a.samples, a.held_out_items, a.held_out_share, a.seed)
    total = a.samples * len(domains)
    with cli.counting("samples", total) as advance:
        made = make(Path(a.folder), domains, settings, _told(advance, total), a.overwrite)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    for column in ("samples", "bytes", "bytes/sample", "skills", "held out"):
        table.add_column(column, justify="right")
    for name, entry in made["domains"].items():
        train, held = entry["train"], entry["held_out"]
        row = (train["samples"], train["bytes"], train["bytes"] // train["samples"], len(entry["skills"]))
        table.add_row(name, *(f"{number:,}" for number in (*row, held["samples"])))
    console = cli.console(width=120)
    console.print(table)
    console.print(f"{a.folder}/skills.json", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("folder", type=cli.file_name, metavar="FOLDER", help="where the skills are written")
    parser.add_argument(
        "--skill",
        metavar="[NAME=]KIND[:key=value,...]",
        action="append",
        required=True,
        help="a domain; may be repeated",
    )
    default = MakeSettings()
    parser.add_argument(
        "--samples",
        type=cli.positive_int,
        default=default.samples,
        help=f"training samples of each domain (default {default.samples:,})",
    )
    parser.add_argument(
        "--held-out-items",
        type=cli.positive_int,
        default=default.held_out_items,
        help=f"different held-out problems of each skill (default {default.held_out_items})",
    )
    parser.add_argument(
        "--held-out-share",
        type=cli.real(above=0.0, most=0.9),
        default=default.held_out_share,
        help=f"share of all problems that training never meets (default {default.held_out_share})",
    )
    parser.add_argument("--seed", type=cli.natural, default=default.seed, help="of the order of problems (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the skills that the folder holds")
    return parser


def _told(advance: Callable[[int], None], total: int) -> Callable[[int], None]:
    """Return what moves the bar and, where stderr is no terminal, prints a line every ten seconds."""
    console = cli.console(stderr=True)
    done, due = 0, time.monotonic() + _PERIOD_SECONDS

    def tell(count: int) -> None:
        nonlocal done, due
        advance(count)
        done += count
        if not console.is_terminal and time.monotonic() >= due:
            due = time.monotonic() + _PERIOD_SECONDS
            console.print(f"samples: {min(100.0, 100 * done / total):.0f} %")

    return tell


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

#!/usr/bin/env python3
r"""Turn text into a corpus folder: Megatron-format token shards of each domain, and corpus.json.

Examples:
  # one glob a domain; the format follows from the file names (.jsonl .parquet .txt, also .gz and .zst)
  python tools/preprocess_domains.py --output corpora/small --tokenizer path/to/gpt2 \
      --domain wikipedia='raw/wikipedia/*.jsonl.gz' --domain books='raw/books/**/*.txt' --validation-fraction 0.01

  # the same from a file; any key can be overridden
  python tools/preprocess_domains.py --config corpus.yaml --output corpora/small deduplicate=all seed=1

  # corpus.yaml
  #   domains:
  #     wikipedia: {paths: ["raw/wikipedia/*.jsonl"], format: jsonl, field: text}
  #     news:      {paths: [cc_news], format: huggingface, split: train}
  #   tokenizer: gpt2
  #   validation_documents: 500

  # train the tokenizer on the domains themselves
  python tools/preprocess_domains.py --output corpora/small --train-tokenizer 8192 --domain code='src/**/*.txt'

  # spread over nodes that share a file system; the bytes are the same
  mpirun -n 64 python tools/preprocess_domains.py --config corpus.yaml --output corpora/large

  # write corpus.json over shards that Megatron made
  python tools/preprocess_domains.py --output corpora/old --tokenizer gpt2 --adopt web=/data/web_text_document \
      --adopt web:validation=/data/web_valid_text_document

Killed, out of disk or interrupted: the same command goes on where it was. The output folder needs room for the tokens
twice while the work goes on. Every key of the configuration is described in autoscale_ds/corpus/settings.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from autoscale_ds import cli, config
from autoscale_ds.corpus.adoption import adopt
from autoscale_ds.corpus.plan import Listener, Summary
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.publication import ERRORS_NAME
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.workers import Team, current_team
from autoscale_ds.errors import ConfigError

# Options that are settings under another spelling: name, type, help.
_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("output", str, "the corpus folder"),
    ("tokenizer", str, "gpt2, a hub name, a tokenizer.json, or a folder that holds one (default: gpt2)"),
    ("train-tokenizer", int, "train a byte-level BPE with this many ids instead"),
    ("end-of-document", str, "the token that ends documents, where the tokenizer does not tell"),
    ("min-characters", int, "drop documents with fewer characters (default: 1)"),
    ("validation-fraction", float, "share of each domain's documents to hold out, at least one"),
    ("validation-documents", int, "number of each domain's documents to hold out"),
    ("deduplicate", str, "drop exact copies: none, within each domain, or over all (default: none)"),
    ("shard-tokens", int, "most tokens in a shard (default: 100,000,000)"),
    ("on-error", str, "what cannot be read: stop, or skip, count and report (default: stop)"),
    ("seed", int, "key of the hash that chooses the validation documents (default: 0)"),
    ("workers", int, "processes (default: one a core; under mpirun one a rank)"),
)
_CHOICES = {"deduplicate": ("none", "domain", "all"), "on-error": ("stop", "skip")}


def main() -> int:
    """Preprocess as the command line says, and print the summary."""
    arguments = _parser().parse_args()
    if arguments.remove_first and not arguments.overwrite:
        raise ConfigError("--remove-first goes with --overwrite")
    if arguments.adopt:
        return _adopt(arguments)
    settings = _settings(arguments)
    started = time.perf_counter()
    with current_team() as team, _Terminal(team) as terminal:
        summary = preprocess(settings, terminal, team, arguments.overwrite, arguments.remove_first)
    if summary is not None:
        _show(summary, settings, time.perf_counter() - started)
    return 0


def _parser() -> argparse.ArgumentParser:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="YAML", help="settings and domains; options given here go first")
    parser.add_argument("--domain", metavar="NAME=GLOB", action="append", default=[], help="may be repeated")
    for name, kind, text in _SETTINGS:
        parser.add_argument(f"--{name}", type=kind, choices=_CHOICES.get(name), help=text)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the corpus that --output holds, once the new one is complete"
    )
    parser.add_argument(
        "--remove-first",
        action="store_true",
        help="with --overwrite: remove it before, where there is no room for both",
    )
    parser.add_argument("--adopt", metavar="NAME[:SPLIT]=PREFIX", action="append", default=[], help="existing shards")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="any setting, e.g. domains.web.field=body")
    return parser


def _settings(arguments: argparse.Namespace) -> PreprocessSettings:
    given = {name: getattr(arguments, name.replace("-", "_")) for name, _, _ in _SETTINGS}
    data: dict[str, Any] = {name.replace("-", "_"): value for name, value in given.items() if value is not None}
    domains: dict[str, Any] = {}
    for name, path in map(_pair, arguments.domain):
        domains.setdefault(name, {"paths": []})["paths"].append(path)
    base = config.load_mapping(arguments.config, arguments.overrides)
    merged = {**base, **data}
    if domains:
        merged["domains"] = {**base.get("domains", {}), **domains}
    merged.setdefault("domains", {})
    return config.build(PreprocessSettings, merged)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise ConfigError(f"{text!r} is not of the form NAME=PATH, for example wikipedia='raw/wikipedia/*.jsonl.gz'")
    return name, value


def _adopt(arguments: argparse.Namespace) -> int:
    if arguments.output is None:
        raise ConfigError("--adopt needs --output, the folder that corpus.json is written to")
    prefixes: dict[str, dict[str, list[str]]] = {}
    for name, prefix in map(_pair, arguments.adopt):
        domain, _, split = name.partition(":")
        prefixes.setdefault(domain, {}).setdefault(split or "train", []).append(prefix)
    with _Terminal(Team()) as terminal:
        manifest = adopt(
            Path(arguments.output),
            prefixes,
            arguments.tokenizer or "gpt2",
            arguments.end_of_document,
            terminal.notice,
            arguments.overwrite,
        )
    tokens = sum(shard.tokens for splits in manifest.domains.values() for part in splits.values() for shard in part)
    print(f"adopted {tokens:,} tokens of {len(manifest.domains)} domains: {arguments.output}/corpus.json")
    return 0


class _Terminal(Listener):
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere; only rank 0 prints."""

    _PERIOD_SECONDS = 10.0

    def __init__(self, team: Team) -> None:
        self._console = Console(stderr=True, quiet=team.rank != 0)
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._next_line = time.monotonic() + self._PERIOD_SECONDS

    def notice(self, text: str) -> None:
        self._console.print(f"notice: {text}", markup=False, highlight=False, soft_wrap=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        if self._console.is_terminal and not self._console.quiet:
            self._draw(stage, done, total)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._PERIOD_SECONDS
            self._console.print(f"{stage}: {100 * done / max(1, total):.0f} %", highlight=False)

    def _draw(self, stage: str, done: int, total: int) -> None:
        # Started here and not before: its thread must not exist when the workers are forked.
        if self._bar is None:
            columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done)

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _show(summary: Summary, settings: PreprocessSettings, seconds: float) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    for column in ("documents", "short", "copies", "errors", "train tokens", "validation", "bytes/token"):
        table.add_column(column, justify="right")
    rows = [_row(summary, domain) for domain in summary.manifest.domains]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    for name, row in zip([*summary.manifest.domains, "total"], rows, strict=True):
        *numbers, text_bytes = row
        tokens = row[4] + row[5]
        table.add_row(name, *(f"{number:,}" for number in numbers), f"{text_bytes / tokens:.3f}" if tokens else "")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)
    console.print(_last_line(summary, settings, seconds, rows[-1][-1]), soft_wrap=True)


def _row(summary: Summary, domain: str) -> list[int]:
    """Return documents, short, copies, errors, train tokens, validation tokens, text bytes."""
    splits = summary.manifest.domains[domain]
    counts = dataclasses.astuple(summary.counts[domain])[1:]
    tokens = [sum(shard.tokens for shard in splits.get(split, ())) for split in ("train", "validation")]
    shards = [shard for part in splits.values() for shard in part]
    return [sum(s.documents for s in shards), *counts, *tokens, sum(s.text_bytes for s in shards)]


def _last_line(summary: Summary, settings: PreprocessSettings, seconds: float, text_bytes: int) -> str:
    if summary.already_complete:
        return f"{settings.output} was complete already, by these settings from this input; nothing was done"
    errors = sum(count.errors for count in summary.counts.values())
    report = f"; {errors:,} errors are listed in {settings.output}/{ERRORS_NAME}" if errors else ""
    speed = f"{text_bytes / 1e6:,.1f} MB of text in {seconds:.1f} s ({text_bytes / 1e6 / seconds:,.0f} MB/s"
    return f"{speed}, {summary.backend}): {settings.output}{report}"


if __name__ == "__main__":
    cli.run(main)

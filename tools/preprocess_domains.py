#!/usr/bin/env python3
r"""Turn text into a corpus folder: Megatron-format token shards of each domain, and corpus.json.

Examples:
  # one glob a domain; the format follows from the file names (.jsonl .parquet .txt, also .gz .zst .xz .bz2)
  python tools/preprocess_domains.py --output corpora/small --tokenizer path/to/gpt2 \
      --domain wikipedia='raw/wikipedia/*.jsonl.gz' --domain books='raw/books/**/*.txt' --validation-fraction 0.01

  # the same from a file; any key can be overridden
  python tools/preprocess_domains.py --config corpus.yaml --output corpora/small deduplicate=all seed=1

  # corpus.yaml
  #   domains:
  #     wikipedia: {paths: ["raw/wikipedia/*.jsonl"], format: jsonl, field: text}
  #     news:      {paths: [cc_news], format: huggingface, split: train}
  #     web:       {paths: [allenai/c4], format: huggingface, subset: en, streaming: true}
  #   tokenizer: gpt2
  #   validation_documents: 500

  # text to measure the loss on and never to train on
  python tools/preprocess_domains.py --config corpus.yaml --output corpora/small --target exams='held_out/exams/*.jsonl'

  # prompts whose completions' bits per byte are measured; with choices, the key of the gold one
  python tools/preprocess_domains.py --config corpus.yaml --output corpora/small \
      --task-target hellaswag=hellaswag_val.jsonl.gz --prompt-field query --completion-field endings --gold-field label

  # train the tokenizer on the domains themselves
  python tools/preprocess_domains.py --output corpora/small --train-tokenizer 8192 --domain code='src/**/*.txt'

  # spread over nodes that share a file system; the bytes are the same
  mpirun -n 64 python tools/preprocess_domains.py --config corpus.yaml --output corpora/large

  # write corpus.json over shards that Megatron made
  python tools/preprocess_domains.py --output corpora/old --tokenizer gpt2 --adopt web=/data/web_text_document \
      --adopt web:validation=/data/web_valid_text_document

How much of a domain is trained on is not decided here but by the weights of a run. A weight is a share of training
tokens, not of documents.

Killed, out of disk or interrupted: the same command goes on where it was. The output folder needs room for the tokens
twice while the work goes on. Every key of the configuration is described in autoscale_ds/corpus/settings.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from autoscale_ds import cli, config
from autoscale_ds.corpus.adoption import adopt
from autoscale_ds.corpus.manifest import ShardInfo
from autoscale_ds.corpus.plan import Listener, Summary
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.publication import ERRORS_NAME
from autoscale_ds.corpus.settings import LARGEST_WORKERS, PreprocessSettings
from autoscale_ds.corpus.workers import Team, current_team
from autoscale_ds.errors import ConfigError

# Options that are settings under another spelling: name, type, help.
_SETTINGS: tuple[tuple[str, Any, str], ...] = (
    ("output", str, "the corpus folder"),
    ("tokenizer", str, "gpt2, a hub name, a tokenizer.json, or a folder that holds one (default: gpt2)"),
    ("train-tokenizer", cli.positive_int, "train a byte-level BPE with this many ids instead"),
    ("end-of-document", str, "the token that ends documents, where the tokenizer does not tell"),
    ("min-characters", cli.natural, "drop documents with fewer characters (default: 1)"),
    ("validation-fraction", cli.share, "share of each domain's documents to hold out, at least one"),
    ("validation-documents", cli.natural, "number of each domain's documents to hold out"),
    ("deduplicate", str, "drop exact copies: none, within each domain, or over all (default: none)"),
    ("shard-tokens", cli.positive_int, "most tokens in a shard (default: 100,000,000)"),
    ("on-error", str, "what cannot be read: stop, or skip, count and report (default: stop)"),
    ("seed", cli.whole(-(2**127), 2**127 - 1), "key of the hash that chooses the validation documents (default: 0)"),
    ("workers", cli.whole(1, LARGEST_WORKERS), "processes (default: one a core; under mpirun one a rank)"),
)
_MOST_ROWS = 100  # of the summary; corpus.json and preprocessing.json hold every domain
_TASK_FIELDS = {
    "prompt": "key of the prompt (default: prompt)",
    "completion": "key of the completion, or of a list of choices; or keys with commas between (default: completion)",
    "gold": "key of the gold choice: its number, counted from 0, its letter, or its label",
    "labels": "key of the list of labels that --gold-field names one of",
}
_SOURCES = ("domains", "targets")
_CHOICES = {"deduplicate": ("none", "domain", "all"), "on-error": ("stop", "skip")}


def main() -> int:
    """Preprocess as the command line says, and print the summary."""
    arguments = _parser().parse_intermixed_args()
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
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("--config", metavar="YAML", help="settings and domains; the options here go over them")
    parser.add_argument(
        "--domain",
        metavar="NAME=GLOB",
        action="append",
        default=[],
        help="may be repeated; the paths of a domain, in place of those that --config gives it",
    )
    parser.add_argument(
        "--target",
        metavar="NAME=GLOB",
        action="append",
        default=[],
        help="like --domain, for text to measure the loss on and never to train on",
    )
    parser.add_argument(
        "--task-target",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a JSONL file of prompts and completions: bits per byte of the completions are measured in training",
    )
    for key, text in _TASK_FIELDS.items():
        parser.add_argument(f"--{key}-field", metavar="KEY", help=f"of every --task-target here: {text}")
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
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="any setting, over all others, e.g. domains.web.field=body"
    )
    return parser


def _settings(arguments: argparse.Namespace) -> PreprocessSettings:
    """Return the settings: the file's, then the options and --domain, then the overrides, merged key by key."""
    data = config.load_mapping(arguments.config)
    config.merge(data, _given(arguments))
    for key, pairs in (("domains", arguments.domain), ("targets", arguments.target)):
        paths: dict[str, list[str]] = {}
        for name, path in map(_pair, pairs):
            paths.setdefault(name, []).append(path)
        config.merge(data, {key: {name: {"paths": each} for name, each in paths.items()}})
    fields = {key: value for key in _TASK_FIELDS if (value := getattr(arguments, f"{key}_field")) is not None}
    if fields and not arguments.task_target:
        raise ConfigError(f"--{next(iter(fields))}-field describes a --task-target; none is given")
    config.merge(data, {"tasks": {name: {"path": path, **fields} for name, path in map(_pair, arguments.task_target)}})
    known = {key: list(data[key]) for key in _SOURCES}
    config.override(data, arguments.overrides)
    for key in _SOURCES:
        _refuse_misspelt_domains(data[key], known[key])
        for source in data[key].values() if isinstance(data[key], dict) else ():
            if isinstance(source, dict) and isinstance(source.get("paths"), str):
                source["paths"] = [source["paths"]]  # one path need not be a list
    if not data.get("output"):
        raise ConfigError("no output folder is given; give --output FOLDER, or output: in the configuration file")
    return config.build(PreprocessSettings, data)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that have an option of their own and were given."""
    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name, _, _ in _SETTINGS}
    return {name: value for name, value in given.items() if value is not None}


def _refuse_misspelt_domains(domains: Any, known: list[str]) -> None:
    """Raise ConfigError for a domain that only an override names, unless the override gives its paths."""
    for name, source in domains.items() if isinstance(domains, dict) else ():
        if name not in known and isinstance(source, dict) and "paths" not in source:
            raise ConfigError(f"an override names the domain {name!r}, which has no paths{config.suggest(name, known)}")


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise ConfigError(f"{text!r} is not of the form NAME=PATH, for example wikipedia='raw/wikipedia/*.jsonl.gz'")
    return name, value


def _adopt(arguments: argparse.Namespace) -> int:
    if arguments.output is None:
        raise ConfigError("--adopt needs --output, the folder that corpus.json is written to")
    _refuse_what_adoption_ignores(arguments)
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
    tokens = sum(shard.tokens for shard in manifest.shards())
    print(f"adopted {tokens:,} tokens of {len(manifest.domains)} domains: {arguments.output}/corpus.json")
    return 0


def _refuse_what_adoption_ignores(arguments: argparse.Namespace) -> None:
    used = ("output", "tokenizer", "end_of_document")
    ignored = [f"--{name.replace('_', '-')}" for name in _given(arguments) if name not in used]
    others = [name for name in ("config", "domain", "target", "task_target") if getattr(arguments, name)]
    ignored += [f"--{name.replace('_', '-')}" for name in others]
    ignored += arguments.overrides
    ignored += ["--remove-first"] if arguments.remove_first else []
    if ignored:
        raise ConfigError(f"{ignored[0]} has no effect with --adopt, which takes shards as they are; leave it out")


class _Terminal(Listener):
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere; only rank 0 prints."""

    _PERIOD_SECONDS = 10.0

    def __init__(self, team: Team) -> None:
        self._console = cli.console(stderr=True)
        self._console.quiet = team.rank != 0
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._next_line = time.monotonic() + self._PERIOD_SECONDS

    def notice(self, text: str) -> None:
        self._console.print(f"notice: {text}", soft_wrap=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        if self._console.is_terminal and not self._console.quiet:
            self._draw(stage, done, total)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._PERIOD_SECONDS
            self._console.print(f"{stage}: {100 * done / max(1, total):.0f} %")

    def _draw(self, stage: str, done: int, total: int) -> None:
        # Started here and not before: its thread must not exist when the workers are forked.
        if self._bar is None:
            columns = (
                TextColumn("{task.description:>10}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %", markup=False),
            )
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
    manifest = summary.manifest
    rows = {domain: _row(summary, domain, splits) for domain, splits in manifest.domains.items()}
    rows |= {f"{name} (target)": _row(summary, name, {"validation": part}) for name, part in manifest.targets.items()}
    rows |= {f"{name} (task)": _task_row(shard) for name, (shard, _) in manifest.tasks.items()}
    total = _sum(rows.values())
    for name, row in {**_shortened(rows), "total": total}.items():
        *numbers, train_bytes, _ = row
        tokens = row[4]  # of training, as inspect_corpus.py and objectives in bits per byte count
        table.add_row(name, *(f"{number:,}" for number in numbers), f"{train_bytes / tokens:.3f}" if tokens else "")
    console = cli.console(width=120)
    console.print(table)
    console.print(_last_line(summary, settings, seconds, total[-1]), soft_wrap=True)


def _shortened(rows: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the rows of the largest domains, and one that sums the others."""
    if len(rows) <= _MOST_ROWS:
        return rows
    largest = {*sorted(rows, key=lambda domain: -rows[domain][4])[:_MOST_ROWS]}
    others = [row for domain, row in rows.items() if domain not in largest]
    shown = {domain: row for domain, row in rows.items() if domain in largest}
    return {**shown, f"{len(others):,} smaller ones": _sum(others)}


def _sum(rows: Iterable[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _row(summary: Summary, domain: str, splits: Mapping[str, Sequence[ShardInfo]]) -> list[int]:
    """Return documents, short, copies, errors, train tokens, validation tokens, text bytes of train and of all."""
    counts = dataclasses.astuple(summary.counts[domain])[1:]
    tokens = [sum(shard.tokens for shard in splits.get(split, ())) for split in ("train", "validation")]
    shards = [shard for part in splits.values() for shard in part]
    text_bytes = [sum(shard.text_bytes for shard in part) for part in (splits.get("train", ()), shards)]
    return [sum(shard.documents for shard in shards), *counts, *tokens, *text_bytes]


def _task_row(shard: ShardInfo) -> list[int]:
    """Return the same of a task; a document is a prompt with its completion."""
    return [shard.documents // 2, 0, 0, 0, 0, shard.tokens, 0, shard.text_bytes]


def _last_line(summary: Summary, settings: PreprocessSettings, seconds: float, text_bytes: int) -> str:
    if summary.already_complete:
        return f"{settings.output} was complete already, by these settings from this input; nothing was done"
    errors = sum(count.errors for count in summary.counts.values())
    report = f"; {errors:,} errors are listed in {settings.output}/{ERRORS_NAME}" if errors else ""
    speed = f"{text_bytes / 1e6:,.1f} MB of text in {seconds:.1f} s ({text_bytes / 1e6 / seconds:,.0f} MB/s"
    return f"{speed}, {summary.backend}): {settings.output}{report}"


if __name__ == "__main__":
    cli.run(main, memory_advice="lower --workers, piece_megabytes or train_megabytes")

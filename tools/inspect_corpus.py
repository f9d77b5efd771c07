#!/usr/bin/env python3
"""Look into a corpus folder: sizes, epochs at a budget, the text of a document or window, checksums.

Examples:
  python tools/inspect_corpus.py corpora/small
  python tools/inspect_corpus.py corpora/small --budget 10e9 --weights weights.json
  python tools/inspect_corpus.py corpora/small --document wikipedia:17
  python tools/inspect_corpus.py corpora/small --window books:3 --sequence-length 1024 --split validation
  python tools/inspect_corpus.py corpora/small --verify
  python tools/inspect_corpus.py corpora/small --json | jq '.[].train_tokens'
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping

from rich.table import Table

from autoscale_ds import cli, config
from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.inspection import DomainSize, damages, domain_sizes, read_document, read_window
from autoscale_ds.corpus.manifest import SPLITS
from autoscale_ds.errors import ConfigError, CorpusError
from autoscale_ds.mixture.weights import DomainWeights


def main() -> int:
    """Show what was asked for."""
    arguments = _parser().parse_args()
    corpus = Corpus(arguments.corpus)
    if arguments.verify:
        return _verify(corpus)
    if arguments.document:
        sys.stdout.write(read_document(corpus, *_place(arguments.document), arguments.split) + "\n")
        return 0
    if arguments.window:
        domain, index = _place(arguments.window)
        sys.stdout.write(read_window(corpus, domain, index, arguments.sequence_length, arguments.split) + "\n")
        return 0
    sizes = domain_sizes(corpus, arguments.budget, _weights(arguments.weights, corpus))
    if arguments.json:
        print(cli.json_text([dataclasses.asdict(size) for size in sizes]))
    else:
        _show(corpus, sizes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("corpus", help="folder with a corpus.json")
    parser.add_argument(
        "--budget", type=cli.positive, metavar="TOKENS", help="show the epochs of each domain at this budget"
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default="proportional",
        help="proportional (default), uniform, or a JSON or YAML file of name: weight (share of training tokens)",
    )
    parser.add_argument("--document", metavar="DOMAIN:INDEX", help="print the text of a document")
    parser.add_argument("--window", metavar="DOMAIN:INDEX", help="print the text of a training window")
    parser.add_argument(
        "--sequence-length", type=cli.positive_int, default=1024, help="tokens of a window (default: 1024)"
    )
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--verify", action="store_true", help="read every byte and compare checksums")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _place(text: str) -> tuple[str, int]:
    domain, _, index = text.rpartition(":")
    try:
        return domain, cli.natural(index if domain else "")
    except argparse.ArgumentTypeError:
        raise ConfigError(f"{text!r} is not of the form DOMAIN:INDEX, for example wikipedia:17") from None


def _weights(name: str, corpus: Corpus) -> Mapping[str, float] | None:
    if name == "proportional":
        return None
    if name == "uniform":
        return DomainWeights.uniform(corpus.domains)
    weights = DomainWeights(config.load_mapping(name))
    weights.check_domains(corpus.domains)
    return weights


def _verify(corpus: Corpus) -> int:
    checked, damaged = 0, []
    for name, damage in damages(corpus):
        checked += 1
        print(f"{'ok     ' if damage is None else 'DAMAGED'} {name}")
        damaged += [damage] if damage is not None else []
    if damaged:
        raise CorpusError(f"{len(damaged)} of {checked} are damaged, the first: {damaged[0]}")
    return 0


def _show(corpus: Corpus, sizes: list[DomainSize]) -> None:
    tokenizer = corpus.manifest.tokenizer
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("domain")
    budgeted = sizes[0].weight is not None
    columns = ["documents", "train tokens", "validation", "shards", "bytes/token"]
    for column in [*columns, "weight", "epochs"] if budgeted else columns:
        table.add_column(column, justify="right")
    for size in sizes:
        numbers = [f"{n:,}" for n in (size.documents, size.train_tokens, size.validation_tokens, size.shards)]
        rest = [_number(size.bytes_per_token, ".3f")]
        rest += [_number(size.weight, ".4f", ""), _number(size.epochs, ".2f", "")] if budgeted else []
        kinds = {**dict.fromkeys(corpus.targets, " (target)"), **dict.fromkeys(corpus.tasks, " (task)")}
        table.add_row(size.domain + kinds.get(size.domain, ""), *numbers, *rest)
    table.add_row("total", *_totals(sizes), style="bold")
    console = cli.console(width=120)
    console.print(table)
    console.print(
        f"tokenizer {tokenizer.name}: {tokenizer.vocabulary_size:,} ids, {tokenizer.end_of_document} ends a document",
        soft_wrap=True,
    )


def _totals(sizes: list[DomainSize]) -> list[str]:
    columns = zip(*((s.documents, s.train_tokens, s.validation_tokens, s.shards) for s in sizes), strict=True)
    return [f"{sum(column):,}" for column in columns]


def _number(value: float | None, form: str, unknown: str = "unknown") -> str:
    return unknown if value is None else format(value, form)


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

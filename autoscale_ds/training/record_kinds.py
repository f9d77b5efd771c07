"""The kinds of records in ``metrics.jsonl``: what each holds, whether a rerun of its step drops it, how it reads.

The terminal, the metrics file and the report look kinds up here. An evaluation's records need no entry: a kind that is
not listed is shown by its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RecordKind:
    """One kind of record.

    Attributes
    ----------
    needed : tuple of str
        Figures that every record has, besides ``kind`` and ``step``.
    in_one_line : callable or None
        Text for the terminal; None where the event is logged in words of its own.
    counts_steps : bool
        Whether it moves the progress bar.
    survives_rewind : bool
        Whether it stays in the file when its step is done again after a crash.
    numbered_by : str
        Figure that increases from one record of the kind to the next; metrics loggers remember it of the last one sent.
    """

    needed: tuple[str, ...] = ()
    in_one_line: Callable[[Record], str] | None = None
    counts_steps: bool = False
    survives_rewind: bool = False
    numbered_by: str = "step"


def _train_line(record: Record) -> str:
    return f"loss {record['loss']:.4f}  {record['tokens_per_second']:,.0f} tokens/s"


def _validation_line(record: Record) -> str:
    by_domain = "  ".join(f"{name} {loss:.4f}" for name, loss in record["domain_loss"].items())
    return f"validation {record['loss']:.4f}   {by_domain}"


def _targets_line(record: Record) -> str:
    return "targets " + "  ".join(f"{name} {loss:.4f}" for name, loss in record["target_loss"].items())


def _scores_line(record: Record) -> str:
    return "scores " + "  ".join(f"{name} {score:.4f}" for name, score in record["score"].items())


def numbers(record: Record) -> dict[str, float]:
    """Return the figures of a record that are plain numbers, without its step and tokens."""
    figures = {name: value for name, value in record.items() if name not in ("kind", "step", "tokens")}
    return {name: value for name, value in figures.items() if isinstance(value, (int, float))}


def _figures_line(record: Record) -> str:
    return f"{record['kind']}   " + "  ".join(f"{name} {value:.4g}" for name, value in numbers(record).items())


KINDS: dict[str, RecordKind] = {
    "train": RecordKind(("tokens", "loss", "realised"), _train_line, counts_steps=True),
    "validation": RecordKind(("tokens", "loss", "domain_loss"), _validation_line),
    "targets": RecordKind(("tokens", "loss", "target_loss"), _targets_line),
    "scores": RecordKind(("tokens", "score"), _scores_line),
    # An accepted change of weights stands in the journal and is not made again when its step is.
    "swap": RecordKind(survives_rewind=True, numbered_by="version"),
    "proposal": RecordKind(),
    "start": RecordKind(),  # for the progress bar only: never in the file
}
_OTHER = RecordKind(in_one_line=_figures_line)


def kind_of(record: Record) -> RecordKind:
    """Return the kind of a record; that of an evaluation not listed here shows its numbers."""
    return KINDS.get(record["kind"], _OTHER)


def scalars(record: Record) -> dict[str, float]:
    """Return every number of a record under the name that TensorBoard and metrics loggers show, ``KIND/FIGURE``."""
    return dict(_named(record, f"{record['kind']}/"))


def _named(figures: Record, prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
            yield f"{prefix}{name}", float(value)

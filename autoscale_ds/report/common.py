"""What several runs have in common: only that is compared, and what was left out is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoscale_ds.corpus.identity import few
from autoscale_ds.report.groups import Group
from autoscale_ds.report.reading import Record, Run


@dataclass(frozen=True)
class Measure:
    """A figure that falls while a run trains, and what runs are compared by.

    Attributes
    ----------
    key : str
        In the runs' validation records.
    words : str
        What it is.
    unit : str
        Of the loss by domain.
    """

    key: str
    words: str
    unit: str


PERPLEXITY = Measure("mean_perplexity", "mean validation perplexity", "nats per token")
BITS_PER_BYTE = Measure("loss", "mean validation bits per byte", "bits per byte")


def on_common_ground(groups: Sequence[Group]) -> tuple[list[Group], list[str], Measure]:
    """Return the groups reduced to what all their runs have, notes of what was left out, and what to compare by.

    Means are over the domains that every run validates. Losses by token say nothing across tokenizers, so there runs
    are compared by bits per byte: their ``loss`` figures are in that unit then, and they have no perplexity. Runs of
    another tokenizer than the first one's that do not know the bytes of their text are left out.
    """
    groups, notes = list(groups), []
    tokenizers = {run.tokenizer for group in groups for run in group.runs if run.tokenizer is not None}
    measure = BITS_PER_BYTE if len(tokenizers) > 1 else PERPLEXITY
    if measure is BITS_PER_BYTE:
        notes.append(
            f"The runs were trained with {len(tokenizers)} tokenizers, so they are compared by bits per byte of text, "
            "not by loss per token."
        )
        silent = [run for group in groups for run in group.runs if not _figures(run, "bits_per_byte")]
        if silent:
            notes.append(f"Left out, because the bytes of their text are not known: {few([r.name for r in silent])}.")
        groups = [replace(group, runs=tuple(run for run in group.runs if run not in silent)) for group in groups]
        groups = [group for group in groups if group.runs]
    key = "bits_per_byte" if measure is BITS_PER_BYTE else "domain_loss"
    domains = [set(_figures(run, key)) for group in groups for run in group.runs if run.validation]
    common = set.intersection(*domains) if domains else set()
    partial = sorted(set().union(*domains) - common)
    if partial:
        notes.append(f"Means are over {few(sorted(common)) or 'no domain'}; not every run validates {few(partial)}.")
    if partial or measure is BITS_PER_BYTE:
        groups = [replace(g, runs=tuple(_reduced(run, common, measure) for run in g.runs)) for g in groups]
    return groups, notes, measure


def _figures(run: Run, key: str) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = run.last("validation").get(key, {})
    return figures


def _reduced(run: Run, domains: set[str], measure: Measure) -> Run:
    records: list[Record] = [_reduced_record(record, domains, measure) for record in run.validation]
    return replace(run, records={**run.records, "validation": records})


def _reduced_record(record: Record, domains: set[str], measure: Measure) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: {name: value for name, value in record.get(key, {}).items() if name in domains}
        for key in ("domain_loss", "perplexity", "bits_per_byte")
    }
    if measure is BITS_PER_BYTE:
        kept["domain_loss"], kept["perplexity"] = kept["bits_per_byte"], {}
    means = {"loss": _mean(kept["domain_loss"]), "mean_perplexity": _mean(kept["perplexity"])}
    return {**record, **kept, **means}


def _mean(figures: Mapping[str, float | None]) -> float | None:
    """Return the mean; None for no figures, or one that was not finite."""
    known = [math.nan if value is None else value for value in figures.values()]
    mean = math.fsum(known) / len(known) if known else math.nan
    return None if math.isnan(mean) else mean

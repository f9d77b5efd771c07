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

    Final figures are of the domains that every run validates, means of those that every one of their validations has.
    A domain whose validation text is not the same in all runs is in neither. Losses by token say nothing across
    tokenizers, so there runs are compared by bits per byte: their ``loss`` figures are in that unit then, and they have
    no perplexity. Runs of another tokenizer than the first one's that do not know the bytes of their text are left out.
    """
    groups, notes = list(groups), []
    tokenizers = {run.tokenizer for run in _runs(groups) if run.tokenizer is not None}
    measure = BITS_PER_BYTE if len(tokenizers) > 1 else PERPLEXITY
    if measure is BITS_PER_BYTE:
        notes.append(
            f"The runs were trained with {len(tokenizers)} tokenizers, so they are compared by bits per byte of text, "
            "not by loss per token. Whether runs of different tokenizers validate the same text is not known."
        )
        silent = [run for run in _runs(groups) if not run.last("validation").get("bits_per_byte")]
        if silent:
            notes.append(f"Left out, because the bytes of their text are not known: {few([r.name for r in silent])}.")
        groups = [replace(group, runs=tuple(run for run in group.runs if run not in silent)) for group in groups]
        groups = [group for group in groups if group.runs]
    validated = [run for run in _runs(groups) if run.validation]
    if not validated:
        return groups, notes, measure
    key = "bits_per_byte" if measure is BITS_PER_BYTE else "domain_loss"
    shared = _Shared.of(validated, key)
    groups = [replace(g, runs=tuple(_reduced(run, shared, measure) for run in g.runs)) for g in groups]
    return groups, [*notes, *shared.notes, *_other_windows(validated)], measure


@dataclass(frozen=True)
class _Shared:
    """What several runs validate.

    Attributes
    ----------
    shown : set of str
        Domains that the newest validation of every run has.
    averaged : set of str
        Domains that every validation of every run has.
    notes : list of str
        What is in neither, or in the first only, and why.
    """

    shown: set[str]
    averaged: set[str]
    notes: list[str]

    @classmethod
    def of(cls, runs: Sequence[Run], key: str) -> _Shared:
        by_run = [[set(record.get(key, {})) for record in run.validation] for run in runs]
        anywhere = set().union(*(names for records in by_run for names in records))
        other = _with_other_text(runs) & anywhere
        ever = set.intersection(*(set().union(*records) for records in by_run)) - other
        always = set.intersection(*(names for records in by_run for names in records)) - other
        shown = set.intersection(*(records[-1] for records in by_run)) - other
        notes = []
        if other:
            notes.append(f"Left out, because their validation text is not the same in all runs: {few(sorted(other))}.")
        reasons = {
            "not every run validates": anywhere - other - ever,
            "some validations of a run, before or after others, lack": ever - always,
        }
        said = [f"{reason} {few(sorted(names))}" for reason, names in reasons.items() if names]
        if said or other:
            notes.append(f"Means are over {'; '.join([few(sorted(always)) or 'no domain', *said])}.")
        return cls(shown, always, notes)


def _runs(groups: Sequence[Group]) -> list[Run]:
    return [run for group in groups for run in group.runs]


def _with_other_text(runs: Sequence[Run]) -> set[str]:
    """Return the domains of which runs of one tokenizer have validated different text, or one run has."""
    texts: dict[tuple[str | None, str], set[str]] = {}
    for run in runs:
        for name, digests in run.validation_texts.items():
            texts.setdefault((run.tokenizer, name), set()).update(digests)
    return {name for (_, name), digests in texts.items() if len(digests) > 1}


def _other_windows(runs: Sequence[Run]) -> list[str]:
    """Return a note when runs validate on another number or length of windows."""
    windows = {(run.config.evaluation.windows_per_domain, run.config.data.sequence_length) for run in runs}
    if len(windows) == 1:
        return []
    said = few([f"{count} of {length} tokens" for count, length in sorted(windows)])
    return [f"Losses are not over the same text: by domain, the runs validate on windows in these numbers: {said}."]


def _reduced(run: Run, shared: _Shared, measure: Measure) -> Run:
    records: list[Record] = [_reduced_record(record, shared, measure) for record in run.validation]
    return replace(run, records={**run.records, "validation": records})


def _reduced_record(record: Record, shared: _Shared, measure: Measure) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: {name: value for name, value in record.get(key, {}).items() if name in shared.shown}
        for key in ("domain_loss", "perplexity", "bits_per_byte")
    }
    if measure is BITS_PER_BYTE:
        kept["domain_loss"], kept["perplexity"] = kept["bits_per_byte"], {}
    loss, perplexity = (
        _mean({name: value for name, value in kept[key].items() if name in shared.averaged})
        for key in ("domain_loss", "perplexity")
    )
    return {**record, **kept, "loss": loss, "mean_perplexity": perplexity}


def _mean(figures: Mapping[str, float | None]) -> float | None:
    """Return the mean; None for no figures, or one that was not finite."""
    known = [math.nan if value is None else value for value in figures.values()]
    mean = math.fsum(known) / len(known) if known else math.nan
    return None if math.isnan(mean) else mean

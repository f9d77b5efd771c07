"""The corpus of a run that tools look at afterwards: where it lies now, and whether it is the run's."""

from __future__ import annotations

from pathlib import Path

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import history, read_events
from autoscale_ds.stream.spec import SpecChange


def recorded(run: str | Path) -> SpecChange:
    """Return what a run's journal says of its corpus, batch and limits; an empty one where it says nothing."""
    journal = RunPaths(run).journal
    events = history(read_events(journal)) if journal.exists() else []
    return SpecChange.recorded(event.stream for event in events)


def open_run_corpus(run: str | Path, given: str | Path | None) -> Corpus:
    """Open the corpus of a run, where it lies now if given, else where the run was told.

    Raises
    ------
    ConfigError
        When its tokenizer is not the one whose ids the run was trained on.
    """
    corpus = Corpus(given or RunPaths(run).corpus)
    tokenizer = recorded(run).tokenizer
    if tokenizer is not None and corpus.identity.tokenizer != tokenizer:
        raise ConfigError(
            f"the tokenizer of {corpus.folder} ({corpus.manifest.tokenizer.name}) is {corpus.identity.tokenizer}, but "
            f"{run} was trained on ids of {tokenizer}; give the run's corpus with --corpus FOLDER"
        )
    return corpus

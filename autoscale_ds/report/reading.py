"""Reads a run folder without changing or locking it, so also while the run is training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.controllers import Budget
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.clock import Clock
from autoscale_ds.stream.dataset import count_windows
from autoscale_ds.stream.journal import START, Event, history, read_events
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.metrics import sound_records
from autoscale_ds.training.run_corpus import open_run_corpus, recorded
from autoscale_ds.training.run_folder import load_run_config

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The records of a run up to its newest.

    Attributes
    ----------
    path : Path
        Run folder.
    config : RunConfig
        Configuration it was last started with.
    records : mapping of str to list of mapping
        Records of ``metrics.jsonl`` by kind, in order of steps; kinds without records are absent.
    events : list of Event
        The journal: the weights at the start, then every swap.
    windows : mapping of str to int, or None
        Training windows that each domain is drawn from: what one epoch is. None where the corpus cannot be read.
    parameters : int or None
        Size of the model, where the corpus (its vocabulary) is known.
    no_epochs : str
        Why ``windows`` is None.
    age_seconds : float or None
        Time since the last record was written.
    tokenizer : str or None
        Digest of the tokenizer whose ids it was trained on; None where the run does not say.
    validation_texts : mapping of str to set of str
        Digests of each domain's validation text, several where it changed on the way; without domains of which the run
        does not say.
    """

    path: Path
    config: RunConfig
    records: Mapping[str, list[Record]]
    events: list[Event]
    windows: Mapping[str, int] | None
    parameters: int | None
    no_epochs: str
    age_seconds: float | None
    tokenizer: str | None = None
    validation_texts: Mapping[str, set[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @cached_property
    def domains(self) -> list[str]:
        """Every domain met, sorted."""
        names = {name for event in self.events for name in event.weights}
        names |= {name for record in self.train for name in record.get("realised", {})}
        return sorted(names | {name for record in self.validation for name in record.get("domain_loss", {})})

    @property
    def step(self) -> int:
        """The newest step on record."""
        return max((int(record["step"]) for record in [*self.train[-1:], *self.validation[-1:]]), default=0)

    @property
    def tokens(self) -> int:
        """Training tokens at the newest step on record."""
        return self.budget.tokens_at(self.step)

    @cached_property
    def budget(self) -> Budget:
        """The length of the run, by the batches it has had."""
        data = self.config.data
        return self.config.budget_on(Clock.of(self.events, data.sequence_length, data.global_batch))

    @property
    def finished(self) -> bool:
        """Whether the budget is used up; a run that its data ended is not finished."""
        return self.step >= self.budget.total_steps

    @property
    def train(self) -> list[Record]:
        """Records of training steps; may be empty."""
        return self.records.get("train", [])

    @property
    def validation(self) -> list[Record]:
        """Records of validation losses; may be empty."""
        return self.records.get("validation", [])

    @property
    def swaps(self) -> list[Event]:
        """Every change of weights after the start, those still ahead included, in the order they were accepted."""
        return [event for event in self.in_order[1:] if event.source != START]

    @property
    def in_order(self) -> list[Event]:
        """The events that count in the order they were accepted, which is that of their versions."""
        return sorted(self.events, key=lambda event: event.version)

    def curve(self, kind: str, figure: str, domain: str | None = None) -> tuple[Array, Array]:
        """Return tokens and values of one figure, of a domain if named, where it was measured and is finite.

        Parameters
        ----------
        kind : str
            As in ``metrics.jsonl``.
        figure : str
            ``loss``, ``mean_perplexity``, or with a domain ``domain_loss``, ``perplexity``, ``realised``, ``weights``.
        """
        records = self.records.get(kind, [])
        values = [record.get(figure) for record in records]
        if domain is not None:
            values = [(value or {}).get(domain) for value in values]
        points = [(r["tokens"], v) for r, v in zip(records, values, strict=True) if v is not None]
        x, y = np.array(points, float).reshape(-1, 2).T
        return x, y

    @cached_property
    def consumed(self) -> tuple[Array, dict[str, Array]]:
        """Return training tokens at each log line, and tokens of each domain up to there; both start at 0."""
        tokens = np.array([0.0, *(record["tokens"] for record in self.train)])
        names = self.domains
        shares = np.array([[record["realised"].get(n, 0.0) for n in names] for record in self.train])
        steps = shares.reshape(len(self.train), len(names)) * np.diff(tokens)[:, None]
        totals = np.vstack([np.zeros(len(names)), np.cumsum(steps, axis=0)])
        return tokens, dict(zip(names, totals.T, strict=True))

    def epochs(self, domain: str, tokens: npt.ArrayLike) -> Array | None:
        """Return the epochs of a domain after that many of its tokens; None where the corpus is not known."""
        windows = (self.windows or {}).get(domain, 0)
        return np.asarray(tokens, float) / (windows * self.config.data.sequence_length) if windows else None

    def last(self, kind: str) -> Record:
        """Return the newest record of a kind, an empty one if there is none."""
        records = self.records.get(kind, [])
        return records[-1] if records else {}


def read_run(path: str | Path, corpus: str | Path | None = None) -> Run:
    """Read a run folder, config.yaml, metrics.jsonl and the journal; nothing of it is changed or locked.

    Parameters
    ----------
    path : path
        Run folder.
    corpus : path, optional
        Where its corpus lies now, if not where the run was told.

    Raises
    ------
    AutoScaleError
        When it has no config.yaml, or a file in it is damaged (a torn last line is not damage).
    """
    folder = RunPaths(path)
    config = load_run_config(folder.path)
    records = sound_records(folder.metrics)
    by_kind: dict[str, list[Record]] = {}
    for record in records:
        by_kind.setdefault(record["kind"], []).append(record)
    windows, parameters, reason = _corpus(folder, config, corpus)
    events = history(read_events(folder.journal)) if folder.journal.exists() else []
    return Run(
        path=folder.path,
        config=config,
        records=by_kind,
        events=events,
        windows=windows,
        parameters=parameters,
        no_epochs=reason,
        age_seconds=max(time.time() - folder.metrics.stat().st_mtime, 0.0) if folder.metrics.exists() else None,
        tokenizer=recorded(folder.path).tokenizer,
        validation_texts=_validation_texts(events),
    )


def shown(names: Sequence[str], amounts: Mapping[str, float], most: int) -> tuple[list[str], list[str]]:
    """Return the names to draw and those left over: all when few, else the largest by amount; each sorted."""
    if len(names) <= most:
        return sorted(names), []
    ranked = sorted(names, key=lambda name: (-amounts.get(name, 0.0), name))
    return sorted(ranked[: most - 1]), sorted(ranked[most - 1 :])


def _validation_texts(events: Sequence[Event]) -> dict[str, set[str]]:
    texts: dict[str, set[str]] = {}
    for event in events:
        for name, text in event.stream.domains.items() if event.stream is not None else ():
            if text is not None:
                texts.setdefault(name, set()).add(text.validation)
    return texts


def _corpus(
    folder: RunPaths, config: RunConfig, given: str | Path | None
) -> tuple[dict[str, int] | None, int | None, str]:
    """Return windows by domain and model size, and why not.

    Windows stand in the journal; the size of the model takes the corpus's vocabulary.
    """
    on_record = recorded(folder.path)
    shares = on_record.unique_windows or {}
    held = {name: text.windows for name, text in on_record.domains.items() if text is not None}
    windows: dict[str, int] | None = {name: shares.get(name, count) for name, count in held.items()} or None
    try:
        corpus = open_run_corpus(folder.path, given)
        windows = windows or count_windows(corpus, config.data.sequence_length)
        shape = config.model.build(config.data.sequence_length, corpus.manifest.tokenizer.vocabulary_size)
    except (AutoScaleError, OSError) as error:
        if given is not None:
            raise
        return windows, None, str(error)
    return windows, shape.num_parameters, ""

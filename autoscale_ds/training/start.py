"""What a start does to the journal of a run: begin it, or say what has changed since the last start.

Rank 0 only. Domains that joined, left or have other text, another batch and other limits become events, so that seed
and journal give the data order from the first step to the last. What the run cannot go on with is refused before any
step, with what to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.identity import few
from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import START, Event, Journal, history, known_texts
from autoscale_ds.stream.spec import SpecChange, StreamSpec
from autoscale_ds.training.hot_swap import now
from autoscale_ds.training.second_stage import Source

log = logging.getLogger(__name__)


class Start:
    """One start of a run, on its rank 0.

    Parameters
    ----------
    run : Path
        Run folder, for messages.
    journal : Journal
        Its events; new ones are appended.
    spec : StreamSpec
        What the configuration and the corpus give now.
    corpus : Corpus
        The corpus as it is now.
    step : int
        Steps done, by the checkpoint the run continues from.
    tokens : callable
        Training tokens before a step.
    accept_new_text : bool
        Whether a domain with other text starts again at its beginning instead of being refused.
    """

    def __init__(
        self,
        run: Path,
        journal: Journal,
        spec: StreamSpec,
        corpus: Corpus,
        step: int,
        tokens: Callable[[int], int],
        accept_new_text: bool,
    ) -> None:
        self._run = run
        self.journal = journal
        self._corpus = corpus
        self._step = step
        self._tokens = tokens
        self._accept_new_text = accept_new_text
        self._wanted = SpecChange.whole(spec, corpus.identity)
        self._leaving: list[str] = []  # domains that the corpus no longer holds, but the newest weights still name

    def begin(self, first: Event, source: Source | None) -> None:
        """Write the first event of a run, and where it goes on from, if from another run."""
        stream, reason = self._wanted, first.reason
        if source is not None:
            stream = replace(stream, cursors=dict(source.cursors(self._corpus.identity)))
            reason = f"{reason}; data goes on from {source.run} at step {source.checkpoint.step}"
        self.journal.append(replace(first, stream=stream, reason=reason))

    def continue_journal(self, last_batch: int, may_be_turned_off: bool = True) -> None:
        """Append what has changed since the last start, but for domains that left while they still have weight.

        What starts decided for steps that are done again is decided anew; changes of weights ahead stay.

        Parameters
        ----------
        last_batch : int
            ``data.global_batch`` of the last start, for a journal that does not say it.
        may_be_turned_off : bool
            Whether something that is judged later, before the first step, may turn off domains that left.

        Raises
        ------
        ConfigError
            For another tokenizer, for other text that was not accepted, and for domains that left and stay on.
        """
        events = history(self.journal.events)
        if not any(event.stream for event in events):
            self._record_for_the_first_time(last_batch)
            return
        ahead = [e for e in events if e.source == START and e.effective_step >= self._step]
        before = [e for e in events if e not in ahead]
        base = SpecChange.recorded(event.stream for event in before if event.effective_step <= self._step)
        change = base.towards(self._wanted)
        is_decided = all(event.effective_step == self._step for event in ahead)
        if not (SpecChange.recorded(e.stream for e in events).towards(self._wanted)) and is_decided:
            return
        known = known_texts(before)
        if self._step:
            self._check(base, change, known)
        weights = [e.weights for e in before if e.effective_step <= self._step][-1:]
        swaps = [e for e in events if e.effective_step > self._step and e.source != START]
        asked = {name for each in (*weights, *(e.weights for e in swaps)) for name, w in each.items() if w > 0}
        self._leaving = sorted(name for name, text in change.domains.items() if text is None and name in asked)
        if not may_be_turned_off:
            self._refuse_weighted()
        stays = {name: text for name, text in change.domains.items() if name not in self._leaving}
        change = replace(change, domains=stays)
        if not change and not ahead:
            return
        lines = _in_words(base, change, known)
        for line in lines:
            log.warning("since the last start: %s", line)
        self._append(change, "; ".join(lines) or "as before", weights[0], self._step)
        for swap in swaps:  # put aside with the rest: they come again at their steps
            self.journal.append(replace(swap, version=self.journal.current.version + 1))

    def _record_for_the_first_time(self, last_batch: int) -> None:
        """Say everything in a journal from before that was done; what was before is taken to be the same."""
        current = self.journal.current
        gone = sorted({n for n, weight in current.weights.items() if weight > 0}.difference(self._wanted.domains))
        if gone:
            raise ConfigError(
                f"{self._corpus.folder} does not hold {few(gone)}, which this run samples, and its journal is from "
                "before texts were recorded: start it once with the corpus as it was"
            )
        if last_batch != self._wanted.global_batch:
            raise ConfigError(
                f"data.global_batch is {self._wanted.global_batch}, and the journal of this run is from before batches "
                f"were recorded: start it once with {last_batch}, then change it"
            )
        log.warning(
            "what the corpus held so far is not on record and taken to be the same; from now on it is on record"
        )
        step = max(self._step, current.effective_step)
        self._append(self._wanted, "the corpus, on record from here on", current.weights, step)

    def finish(self) -> Event | None:
        """Record the domains that left, when the proposals that waited have been judged; return the event.

        Raises
        ------
        ConfigError
            When the newest weights still name one of them.
        """
        if not self._leaving:
            return None
        self._refuse_weighted()
        change = SpecChange(domains=dict.fromkeys(self._leaving))
        # What this start said at the same step is put aside by an event of its own kind, so it is said again.
        step, weights = self.journal.current.effective_step, self.journal.current.weights
        said = [e.stream for e in history(self.journal.events) if e.source == START and e.effective_step == step]
        whole = SpecChange.recorded([*said, change])
        self._append(whole, _in_words(SpecChange(), change, {})[0], weights, step)
        return self.journal.current

    def _refuse_weighted(self) -> None:
        """Raise ConfigError when a domain that left is still sampled, by the newest weights or in steps before."""
        newest = self.journal.current.weights
        weighted = [name for name in self._leaving if newest.get(name, 0.0) > 0]
        if weighted:
            asked = " ".join(f"--drop-domain {name}" for name in weighted)
            raise ConfigError(
                f"{self._corpus.folder} no longer holds {few(weighted)}, which this run samples with weight "
                f"{newest[weighted[0]]:.4g}: put it back, or turn it off with tools/swap_weights.py {self._run} "
                f"{asked} and start again"
            )
        events = history(self.journal.events)
        now_weights = [event.weights for event in events if event.effective_step <= self._step][-1]
        sampled = [name for name in self._leaving if now_weights.get(name, 0.0) > 0]
        if sampled:
            until = next(
                e.effective_step
                for e in events
                if e.effective_step > self._step and not any(e.weights.get(name, 0.0) > 0 for name in sampled)
            )
            raise ConfigError(
                f"{self._corpus.folder} no longer holds {few(sampled)}, which the steps {self._step:,} to "
                f"{until - 1:,} read: this start goes on from step {self._step:,}, and it is turned off at step "
                f"{until:,}; put it back, and take it out when a checkpoint of step {until:,} or later is saved"
            )

    def _check(self, recorded: SpecChange, change: SpecChange, known: Mapping[str, str]) -> None:
        refuse_other_tokenizer(recorded, self._corpus)
        other = _with_other_text(change, known)
        if other and not self._accept_new_text:
            raise ConfigError(
                f"{self._corpus.folder} holds other text in {few(other)} than this run was trained on: give the corpus "
                "as it was (data.corpus=FOLDER; a moved or copied one is the same), give the new text a name of its "
                "own, or add --accept-new-text, which reads it from its beginning; the other domains go on either way"
            )

    def _append(self, change: SpecChange, reason: str, weights: DomainWeights, step: int) -> None:
        gone = {name for name, text in change.domains.items() if text is None}
        kept = {name: weight for name, weight in weights.items() if name not in gone}
        joined = {name: 0.0 for name, text in change.domains.items() if text is not None and name not in kept}
        version = self.journal.current.version + 1
        now_weights = DomainWeights({**kept, **joined})
        self.journal.append(Event(version, step, now_weights, START, reason, now(), self._tokens(step), stream=change))


def refuse_other_tokenizer(recorded: SpecChange, corpus: Corpus) -> None:
    """Raise ConfigError if a run was trained on ids of another tokenizer than a corpus has."""
    if recorded.tokenizer not in (None, corpus.identity.tokenizer):
        raise ConfigError(
            f"the tokenizer of {corpus.folder} ({corpus.manifest.tokenizer.name}) is {corpus.identity.tokenizer}, but "
            f"this run was trained on ids of {recorded.tokenizer}, which mean other text: give the corpus of that "
            "tokenizer (data.corpus=FOLDER), or start another run with run=ANOTHER_FOLDER"
        )


def _with_other_text(change: SpecChange, known: Mapping[str, str]) -> list[str]:
    """Return domains that the run knows with another training text, also of those that had left."""
    texts = {name: text.train for name, text in change.domains.items() if text is not None}
    return sorted(name for name, text in texts.items() if known.get(name, text) != text)


def _in_words(recorded: SpecChange, change: SpecChange, known: Mapping[str, str]) -> list[str]:
    """Return a change as people say it."""
    other = _with_other_text(change, known)
    left = sorted(name for name, text in change.domains.items() if text is None)
    joined = sorted(set(change.domains).difference(known, left))
    back = sorted(name for name in change.domains if name not in {*joined, *left} and not recorded.domains.get(name))
    rest = sorted(set(change.domains).difference(joined, other, left, back))
    lines = []
    if joined:
        lines.append(f"new in the corpus, with weight 0 until a proposal names them: {few(joined)}")
    if back:
        lines.append(f"back in the corpus, with weight 0 until a proposal names them: {few(back)}")
    if other:
        lines.append(f"other text, read from its beginning: {few(other)}")
    if left:
        lines.append(f"no longer in the corpus: {few(left)}")
    if rest:
        lines.append(f"other validation text, losses before and after do not compare: {few(rest)}")
    if change.max_epochs is not None:
        lines.append(f"data.max_epochs: {_changed_limits(recorded.max_epochs or {}, change.max_epochs)}")
    if change.unique_windows is not None:
        shares = _changed_limits(recorded.unique_windows or {}, change.unique_windows)
        lines.append(f"windows that a domain is drawn from: {shares}")
    for name in ("global_batch", "when_exhausted"):
        value = getattr(change, name)
        if value is not None:
            lines.append(f"data.{name} {getattr(recorded, name)} -> {value}")
    if change.tokenizer is not None and recorded.tokenizer is not None:
        lines.append(f"tokenizer {recorded.tokenizer} -> {change.tokenizer}")
    return lines


def _changed_limits(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return few([f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in names])

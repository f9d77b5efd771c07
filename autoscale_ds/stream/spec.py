"""What fixes the data order besides seed and weights, and how it changes between the starts of a run.

A run's first journal event holds all of it. When a later start finds a domain added, removed or changed, or another
batch or limit in the configuration, it appends an event that holds what differs from then on. So seed and journal give
the whole data order, without the corpora a run has had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from autoscale_ds.corpus import CorpusIdentity

WhenExhausted = Literal["stop", "renormalise", "repeat"]


@dataclass(frozen=True)
class StreamSpec:
    """What fixes the data order, besides the journal.

    Attributes
    ----------
    seed : int
        Keys every permutation and the order of slots.
    global_batch : int
        Samples a step, over all ranks.
    num_windows : mapping of str to int
        Windows each domain holds: ``(tokens - 1) // sequence_length``.
    max_epochs : mapping of str to float
        How often a domain may be gone through; absent means without limit.
    when_exhausted : {"stop", "renormalise", "repeat"}
        What happens then: end the run; turn the domain off and scale the others up; go on regardless.
        Less than one step's worth may be left unseen at the end of a run.
    unique_windows : mapping of str to int
        How many of its windows a domain is drawn from, a share chosen by seed and domain; absent means all of them. An
        epoch is then one pass over the share.
    """

    seed: int
    global_batch: int
    num_windows: Mapping[str, int]
    max_epochs: Mapping[str, float] = field(default_factory=dict)
    when_exhausted: WhenExhausted = "stop"
    unique_windows: Mapping[str, int] = field(default_factory=dict)

    def epoch_windows(self, name: str) -> int:
        """Return the samples of one pass over a domain: the windows of its share; 0 for a domain that is not held."""
        held = self.num_windows.get(name, 0)
        return min(self.unique_windows.get(name, held), held)

    def changed(self, change: SpecChange) -> StreamSpec:
        """Return the spec after a change."""
        windows = {**self.num_windows, **{name: text.windows for name, text in change.domains.items() if text}}
        for name, text in change.domains.items():
            if text is None:
                windows.pop(name, None)
        return replace(
            self,
            global_batch=self.global_batch if change.global_batch is None else change.global_batch,
            max_epochs=self.max_epochs if change.max_epochs is None else change.max_epochs,
            when_exhausted=cast(WhenExhausted, change.when_exhausted or self.when_exhausted),
            num_windows=windows,
            unique_windows=self.unique_windows if change.unique_windows is None else change.unique_windows,
        )


def share_in_words(share: float) -> str:
    """Return a share of windows as people say it.

    >>> share_in_words(0.125), share_in_words(0.3), share_in_words(1.0)
    ('1/8 of the windows', '30 % of the windows', 'all windows')
    """
    if share == 1:
        return "all windows"
    parts = round(1 / share)
    is_fraction = abs(share * parts - 1) < 1e-9
    return f"{f'1/{parts:,}' if is_fraction else f'{100 * share:.4g} %'} of the windows"


@dataclass(frozen=True)
class DomainText:
    """The text of a domain: windows of its training split, and digests that tell other text from it."""

    windows: int
    train: str
    validation: str


@dataclass(frozen=True)
class SpecChange:
    """What holds from an event on; None, and domains that are not named, stay as they were.

    Attributes
    ----------
    tokenizer : str or None
        See ``CorpusIdentity``.
    domains : mapping of str to DomainText or None
        Domains that are new or have other text; None for one that the corpus no longer holds.
    cursors : mapping of str to int or None
        Samples of a domain that were given before, by the run this one goes on from; 0 where not named.
    global_batch, max_epochs, when_exhausted, unique_windows
        As in ``StreamSpec``. ``unique_windows`` is None in a whole one, too, where every domain gives all its windows.
    """

    tokenizer: str | None = None
    domains: Mapping[str, DomainText | None] = field(default_factory=dict)
    global_batch: int | None = None
    max_epochs: Mapping[str, float] | None = None
    when_exhausted: str | None = None
    cursors: Mapping[str, int] | None = None
    unique_windows: Mapping[str, int] | None = None

    @classmethod
    def whole(cls, spec: StreamSpec, identity: CorpusIdentity) -> SpecChange:
        """Return all there is to say of a run's stream."""
        texts = {
            name: DomainText(windows, identity.domains[name].train, identity.domains[name].validation)
            for name, windows in spec.num_windows.items()
        }
        return cls(
            identity.tokenizer,
            texts,
            spec.global_batch,
            dict(spec.max_epochs),
            spec.when_exhausted,
            unique_windows=dict(spec.unique_windows) or None,
        )

    @classmethod
    def recorded(cls, changes: Iterable[SpecChange | None]) -> SpecChange:
        """Return what holds after changes, in their order."""
        merged = cls()
        for change in changes:
            if change is not None:
                said = {name: value for name, value in vars(change).items() if value is not None}
                merged = replace(merged, **{**said, "domains": {**merged.domains, **change.domains}})
        return merged

    def towards(self, wanted: SpecChange) -> SpecChange:
        """Return what must change for ``wanted``, a whole one, to hold after this."""
        domains: dict[str, DomainText | None] = {
            name: text for name, text in wanted.domains.items() if self.domains.get(name) != text
        }
        domains |= {name: None for name, text in self.domains.items() if text and name not in wanted.domains}
        others = {
            name: value
            for name, value in vars(wanted).items()
            if name not in ("domains", "cursors", "unique_windows") and value != getattr(self, name)
        }
        if (wanted.unique_windows or {}) != (self.unique_windows or {}):
            others["unique_windows"] = wanted.unique_windows or {}
        return SpecChange(domains=domains, **others)

    def __bool__(self) -> bool:
        return self != SpecChange()

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without those that stay as they were."""
        raw = {name: value for name, value in vars(self).items() if value is not None and name != "domains"}
        texts = {name: None if text is None else asdict(text) for name, text in self.domains.items()}
        return {**raw, **({"domains": texts} if texts else {})}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SpecChange:
        """Return what ``to_json`` wrote; raises TypeError or AttributeError for anything else."""
        texts = {name: None if text is None else DomainText(**text) for name, text in raw.get("domains", {}).items()}
        return cls(**{**raw, "domains": texts})

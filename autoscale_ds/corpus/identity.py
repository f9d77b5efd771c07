"""Which text and which tokenizer a corpus is made of: the same wherever the corpus lies, another when it changes.

Made of the checksums in ``corpus.json``, so that asking costs nothing and a corpus that was moved or copied is the
same. Names of files and folders do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from autoscale_ds.corpus.manifest import SPLITS, Manifest, ShardInfo, TokenizerInfo
from autoscale_ds.errors import CorpusError

_DIGITS = 16  # of a SHA-256 in hexadecimal: 64 bits tell any number of corpora apart that people make


@dataclass(frozen=True)
class DomainIdentity:
    """Digests of a domain's shards in reading order, one for each split."""

    train: str
    validation: str


@dataclass(frozen=True)
class CorpusIdentity:
    """What a corpus is made of.

    Attributes
    ----------
    tokenizer : str
        Digest of ``tokenizer.json``; name, vocabulary size and end-of-document id where there is no such file.
    domains : mapping of str to DomainIdentity
        By name.
    targets : mapping of str to str
        Digests of the shards of held-out targets and tasks.
    """

    tokenizer: str
    domains: Mapping[str, DomainIdentity]
    targets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> CorpusIdentity:
        """Return the identity of the corpus that a manifest describes."""
        domains = {
            name: DomainIdentity(*(_digest(shards.get(split, ())) for split in SPLITS))
            for name, shards in manifest.domains.items()
        }
        targets = {name: _digest(shards) for name, shards in (*manifest.targets.items(), *manifest.tasks.items())}
        return cls(_tokenizer(manifest.tokenizer), domains, targets)

    @property
    def digest(self) -> str:
        """One digest of everything."""
        parts = [self.tokenizer]
        parts += [f"{name} {text.train} {text.validation}" for name, text in sorted(self.domains.items())]
        parts += [f"target {name} {text}" for name, text in sorted(self.targets.items())]
        return _hash("\n".join(parts))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        domains = {name: asdict(text) for name, text in self.domains.items()}
        measured = {"targets": dict(self.targets)} if self.targets else {}
        return {"tokenizer": self.tokenizer, "domains": domains, **measured}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> CorpusIdentity:
        """Return what ``to_json`` wrote; raises CorpusError for anything else."""
        try:
            domains = {name: DomainIdentity(**text) for name, text in raw["domains"].items()}
            return cls(raw["tokenizer"], domains, dict(raw.get("targets") or {}))
        except (KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{str(raw)[:80]!r} is no identity of a corpus: {error}") from None

    def difference(self, other: CorpusIdentity) -> str | None:
        """Return in words what of ``other`` is not as it is here; None when both are the same corpus."""
        if self.tokenizer != other.tokenizer:
            return f"its tokenizer is {other.tokenizer}, not {self.tokenizer}"
        mine, others = {**self.domains, **self.targets}, {**other.domains, **other.targets}
        parts = {
            "other text in": sorted(name for name in mine if others.get(name, mine[name]) != mine[name]),
            "no longer": sorted(set(mine) - set(others)),
            "new:": sorted(set(others) - set(mine)),
        }
        return "; ".join(f"{words} {few(names)}" for words, names in parts.items() if names) or None


def few(names: Sequence[str], most: int = 5) -> str:
    """Return names as people list them, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _tokenizer(info: TokenizerInfo) -> str:
    if info.sha256:
        return f"sha256:{info.sha256[:_DIGITS]}"
    return f"{info.name}:{info.vocabulary_size}:{info.end_of_document}"


def _digest(shards: Sequence[ShardInfo]) -> str:
    return _hash("\n".join(f"{s.tokens} {s.documents} {s.sha256_bin} {s.sha256_idx}" for s in shards))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

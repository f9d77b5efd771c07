"""``corpus.json``: what the shard format does not hold. A folder without it is an unfinished corpus.

Written last and atomically, so its presence means that every shard it names is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_json

MANIFEST_NAME = "corpus.json"
VERSION = 1
SPLITS = ("train", "validation")
MEASURED = ("targets", "tasks")  # keys of what is measured and never trained on


@dataclass(frozen=True)
class TokenizerInfo:
    """Which tokenizer made the ids.

    Attributes
    ----------
    name : str
        ``gpt2``, a hub name, or the path it was read from.
    vocabulary_size : int
        Ids lie in ``[0, vocabulary_size)``.
    end_of_document : int
        The id that ends every document.
    sha256 : str
        Digest of ``tokenizer.json`` as stored beside the shards.
    file : str
        Path of that copy, relative to the corpus folder; empty when there is none (adopted shards).
    """

    name: str
    vocabulary_size: int
    end_of_document: int
    sha256: str = ""
    file: str = ""


@dataclass(frozen=True)
class ShardInfo:
    """One shard: ``prefix`` relative to the corpus folder, counts, and SHA-256 of ``.bin`` and ``.idx``.

    ``text_bytes`` is the UTF-8 size of the documents; 0 when unknown (adopted shards).
    """

    prefix: str
    tokens: int
    documents: int
    text_bytes: int
    sha256_bin: str
    sha256_idx: str


@dataclass(frozen=True)
class Manifest:
    """The whole of ``corpus.json``: ``domains[name][split]`` is that split's shards in reading order.

    ``targets[name]`` has the shards of held-out text that is measured and never trained on; no domain has such a name.
    ``tasks[name]`` has those of prompts and completions, see ``tasks``.
    ``made_with`` has the versions of the libraries that made the ids, by name, the one that did most first; it is empty
    for adopted shards and earlier versions of this program, and no part of the corpus's identity.
    """

    tokenizer: TokenizerInfo
    domains: Mapping[str, Mapping[str, tuple[ShardInfo, ...]]]
    made_with: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, tuple[ShardInfo, ...]] = field(default_factory=dict)
    tasks: Mapping[str, tuple[ShardInfo, ...]] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read ``folder/corpus.json``; raises CorpusError when missing, unfinished or of another version."""
        path = Path(folder) / MANIFEST_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CorpusError(
                f"{path} does not exist: the folder holds no finished corpus; give the folder it was moved to, or "
                "(re)run tools/preprocess_domains.py"
            ) from None
        except (OSError, ValueError) as error:
            raise CorpusError(f"cannot read {path}: {error}") from None
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            version = raw.get("version") if isinstance(raw, dict) else type(raw).__name__
            raise CorpusError(f"{path}: version {version!r}, this program reads version {VERSION}")
        try:
            domains = _read_domains(raw["domains"])
            made_with = dict(raw.get("made_with") or {})
            targets, tasks = (_read_measured(raw, key) for key in MEASURED)
            return cls(TokenizerInfo(**raw["tokenizer"]), domains, made_with, targets, tasks)
        except (KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{path} lacks or misnames a field: {error}") from None

    def shards(self) -> Iterator[ShardInfo]:
        """Yield all shards, in order of domains and splits, those of targets and tasks last."""
        yield from (shard for splits in self.domains.values() for part in splits.values() for shard in part)
        yield from (shard for shards in (*self.targets.values(), *self.tasks.values()) for shard in shards)

    def save(self, folder: str | Path) -> None:
        """Write ``folder/corpus.json`` atomically."""
        write_json(Path(folder) / MANIFEST_NAME, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        domains = {
            name: {split: [asdict(shard) for shard in shards] for split, shards in splits.items()}
            for name, splits in self.domains.items()
        }
        made_with = {"made_with": dict(self.made_with)} if self.made_with else {}
        measured = {
            key: {name: [asdict(shard) for shard in shards] for name, shards in getattr(self, key).items()}
            for key in MEASURED
            if getattr(self, key)
        }
        return {
            "version": self.version,
            "tokenizer": asdict(self.tokenizer),
            **made_with,
            "domains": domains,
            **measured,
        }


def _read_domains(raw: Mapping[str, Any]) -> dict[str, dict[str, tuple[ShardInfo, ...]]]:
    return {name: {split: _read_shards(shards) for split, shards in splits.items()} for name, splits in raw.items()}


def _read_measured(raw: Mapping[str, Any], key: str) -> dict[str, tuple[ShardInfo, ...]]:
    return {name: _read_shards(shards) for name, shards in (raw.get(key) or {}).items()}


def _read_shards(raw: Iterable[Mapping[str, Any]]) -> tuple[ShardInfo, ...]:
    return tuple(ShardInfo(**shard) for shard in raw)

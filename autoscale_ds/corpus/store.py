"""Random access to a finished corpus: one long array of tokens for each domain and split."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_ds.corpus.identity import CorpusIdentity
from autoscale_ds.corpus.indexed import IndexedShard, shard_files
from autoscale_ds.corpus.manifest import Manifest, ShardInfo
from autoscale_ds.errors import CorpusError


class TokenStore:
    """The tokens of several shards as one array, read by position.

    Attributes
    ----------
    num_tokens : int
        Tokens over all shards.
    shards : list of IndexedShard
        In reading order.
    """

    def __init__(self, shards: Sequence[IndexedShard]) -> None:
        self.shards = list(shards)
        self._starts = [0, *accumulate(shard.num_tokens for shard in self.shards)]
        self.num_tokens = self._starts[-1]

    @property
    def num_documents(self) -> int:
        """Documents over all shards."""
        return sum(shard.num_documents for shard in self.shards)

    def read(self, start: int, count: int) -> npt.NDArray:
        """Return tokens ``[start, start + count)``, shape (count,): a view, or a copy where shards meet."""
        if start < 0 or count < 0 or start + count > self.num_tokens:
            raise CorpusError(f"tokens [{start}, {start + count}) asked for, the store holds [0, {self.num_tokens})")
        index = bisect_right(self._starts, start) - 1
        pieces = []
        while count > 0:
            offset = start - self._starts[index]
            piece = self.shards[index].tokens[offset : offset + count]
            pieces.append(piece)
            start, count, index = start + len(piece), count - len(piece), index + 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def document(self, index: int) -> npt.NDArray:
        """Return the tokens of document ``index``, counted over all shards."""
        before = 0
        for shard in self.shards:
            if index - before < shard.num_documents:
                return shard.document(index - before)
            before += shard.num_documents
        raise CorpusError(f"document {index} asked for, there are {before}, counted from 0")


class Corpus:
    """A finished corpus folder; opening it costs one header a shard, whatever the number of tokens.

    Attributes
    ----------
    folder : Path
        Corpus folder.
    manifest : Manifest
        What its ``corpus.json`` says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.load(self.folder)

    @property
    def domains(self) -> list[str]:
        """Domain names, in the manifest's order."""
        return list(self.manifest.domains)

    @property
    def targets(self) -> list[str]:
        """Names of held-out text that is measured and never trained on."""
        return list(self.manifest.targets)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks whose completions are measured, see ``corpus.tasks``."""
        return list(self.manifest.tasks)

    @cached_property
    def identity(self) -> CorpusIdentity:
        """Which text and tokenizer it is made of."""
        return CorpusIdentity.of(self.manifest)

    def shards(self, domain: str, split: str = "train") -> Sequence[ShardInfo]:
        """Return what the manifest says of a split; empty when the domain has no such split, a target no training."""
        measured = {**self.manifest.targets, **self.manifest.tasks}
        if domain in measured:
            return measured[domain] if split == "validation" else ()
        if domain not in self.manifest.domains:
            names = ", ".join([*self.domains, *measured])
            raise CorpusError(f"no domain {domain!r} in {self.folder}; it holds: {names}")
        return self.manifest.domains[domain].get(split, ())

    def store(self, domain: str, split: str = "train") -> TokenStore:
        """Open a split; raises CorpusError when a shard's size is not what the manifest says."""
        return TokenStore([self._open(info) for info in self.shards(domain, split)])

    def num_tokens(self, split: str = "train") -> dict[str, int]:
        """Return the tokens of each domain."""
        return {name: self.tokens_of(name, split) for name in self.domains}

    def tokens_of(self, name: str, split: str = "train") -> int:
        """Return the tokens of a domain or target."""
        return sum(shard.tokens for shard in self.shards(name, split))

    def bytes_per_token(self, domain: str, split: str = "train") -> float | None:
        """Return UTF-8 bytes of text a token (of a task, its completions'), or None when the text size is unknown."""
        shards = self.shards(domain, split)
        text_bytes, tokens = sum(s.text_bytes for s in shards), sum(s.tokens for s in shards)
        if domain in self.manifest.tasks:
            tokens = int(self.store(domain, split).shards[0].lengths[1::2].sum())
        return text_bytes / tokens if text_bytes and tokens else None

    def bytes_per_token_of(self, names: Iterable[str]) -> dict[str, float]:
        """Return the bytes a token of those names that are domains, targets or tasks here and whose text size is known.

        Of a domain its training text counts, of others what they have.
        """
        measured = [*self.targets, *self.tasks]
        splits = {**dict.fromkeys(self.domains, "train"), **dict.fromkeys(measured, "validation")}
        return {t: b for t in names if t in splits and (b := self.bytes_per_token(t, splits[t]))}

    def verify(self, info: ShardInfo) -> str | None:
        """Return the damage of a shard (missing, size, checksum), or None when it is as it was written."""
        try:
            self._open(info)
        except CorpusError as error:
            return str(error)
        for path, expected in zip(
            shard_files(self.folder / info.prefix), (info.sha256_bin, info.sha256_idx), strict=True
        ):
            actual = file_sha256(path)
            if actual != expected:
                return (
                    f"{path}: SHA-256 is {actual}, the manifest says {expected}; its bytes changed since it was written"
                )
        return None

    def _open(self, info: ShardInfo) -> IndexedShard:
        shard = IndexedShard(self.folder / info.prefix)
        if (shard.num_tokens, shard.num_documents) != (info.tokens, info.documents):
            raise CorpusError(
                f"{shard.prefix} holds {shard.num_tokens} tokens in {shard.num_documents} documents, corpus.json says "
                f"{info.tokens} in {info.documents}: the shard is damaged or was replaced; "
                "rerun tools/preprocess_domains.py"
            )
        return shard


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

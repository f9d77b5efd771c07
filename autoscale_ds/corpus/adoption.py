"""Shards that exist already (Megatron's, NeMo's): look at them once and write ``corpus.json`` over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoscale_ds.corpus.disk import exclusive, told_when_writing_fails
from autoscale_ds.corpus.indexed import IndexedShard, shard_files
from autoscale_ds.corpus.manifest import MANIFEST_NAME, SPLITS, Manifest, ShardInfo
from autoscale_ds.corpus.publication import LOCK_NAME, WORK_NAME, refuse_foreign_tokenizer
from autoscale_ds.corpus.settings import check_domain_name
from autoscale_ds.corpus.store import file_sha256
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE
from autoscale_ds.corpus.tokenizers import TextTokenizer, load_tokenizer
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_atomic

# Tokens looked at together: bounds the memory of the scan.
_SCAN_TOKENS = 1 << 24


def adopt(
    folder: Path,
    prefixes: Mapping[str, Mapping[str, Sequence[str]]],
    tokenizer: str,
    end_of_document: str | None = None,
    notice: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> Manifest:
    """Write ``corpus.json`` and ``tokenizer.json`` in ``folder`` for shards that stay where they are.

    Parameters
    ----------
    folder : Path
        Made if missing; must hold no corpus yet, or see ``overwrite``.
    prefixes : mapping
        ``prefixes[domain][split]`` are paths without ``.bin``/``.idx``, in reading order.
    tokenizer, end_of_document : str
        As for preprocessing; every id must lie in its vocabulary.
    notice : callable
        Told, in one line, of what is unusual.
    overwrite : bool
        Replace a ``corpus.json`` that is there. Shards stay, also those it named.

    Raises
    ------
    CorpusError
        For a shard that cannot be opened, an id beyond the vocabulary, or an unknown split.
    """
    with exclusive(folder / WORK_NAME / LOCK_NAME):
        return _adopt(folder, prefixes, tokenizer, end_of_document, notice, overwrite)


def _adopt(
    folder: Path,
    prefixes: Mapping[str, Mapping[str, Sequence[str]]],
    tokenizer: str,
    end_of_document: str | None,
    notice: Callable[[str], None],
    overwrite: bool,
) -> Manifest:
    if (folder / MANIFEST_NAME).exists() and not overwrite:
        raise CorpusError(
            f"{folder} holds a corpus already; choose another --output, or --overwrite its {MANIFEST_NAME}"
        )
    text_tokenizer = load_tokenizer(tokenizer, end_of_document)
    refuse_foreign_tokenizer(folder, text_tokenizer)
    for domain, splits in prefixes.items():
        check_domain_name(domain)
        _check_splits(domain, splits)
    domains = {}
    for domain, splits in prefixes.items():
        domains[domain] = {
            split: tuple(_look(folder, prefix, text_tokenizer, notice) for prefix in part)
            for split, part in splits.items()
        }
    manifest = Manifest(text_tokenizer.info, domains)
    with told_when_writing_fails(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        write_atomic(folder / TOKENIZER_FILE, text_tokenizer.json_text)
        manifest.save(folder)
    return manifest


def _check_splits(domain: str, splits: Mapping[str, Sequence[str]]) -> None:
    for split in splits:
        if split not in SPLITS:
            raise CorpusError(f"domain {domain}: split {split!r} is none of {', '.join(SPLITS)}")
    every = [prefix for part in splits.values() for prefix in part]
    twice = [prefix for prefix in every if every.count(prefix) > 1]
    if twice:
        raise CorpusError(f"domain {domain}: {twice[0]} is named twice")


def _look(folder: Path, prefix: str, tokenizer: TextTokenizer, notice: Callable[[str], None]) -> ShardInfo:
    shard = IndexedShard(prefix.removesuffix(".bin").removesuffix(".idx"))
    _check_ids(shard, tokenizer)
    open_ended = _count_open_ended(shard, tokenizer.info.end_of_document)
    if open_ended:
        notice(
            f"{shard.prefix}: {open_ended:,} of {shard.num_documents:,} documents do not end with "
            f"{tokenizer.end_name} (id {tokenizer.info.end_of_document})"
        )
    bin_path, idx_path = shard_files(shard.prefix)
    return ShardInfo(
        prefix=os.path.relpath(shard.prefix, folder),
        tokens=shard.num_tokens,
        documents=shard.num_documents,
        text_bytes=0,
        sha256_bin=file_sha256(bin_path),
        sha256_idx=file_sha256(idx_path),
    )


def _check_ids(shard: IndexedShard, tokenizer: TextTokenizer) -> None:
    for start in range(0, shard.num_tokens, _SCAN_TOKENS):
        part = shard.tokens[start : start + _SCAN_TOKENS]
        low, high = int(part.min()), int(part.max())
        if low < 0 or high >= tokenizer.info.vocabulary_size:
            raise CorpusError(
                f"{shard.prefix} holds the id {low if low < 0 else high}, tokenizer {tokenizer.info.name} has ids "
                f"0..{tokenizer.info.vocabulary_size - 1}: it was made with another tokenizer"
            )


def _count_open_ended(shard: IndexedShard, end: int) -> int:
    """Return how many documents with tokens lack the end-of-document token."""
    if not shard.num_tokens:
        return 0
    last_sequences = shard.document_indices[1:] - 1
    ends = shard.offsets[last_sequences] // shard.dtype.itemsize + shard.lengths[last_sequences]
    last_tokens = shard.tokens[np.maximum(ends - 1, 0)]
    return int((last_tokens != end).sum())

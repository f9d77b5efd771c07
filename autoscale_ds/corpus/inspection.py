"""Look into a finished corpus: sizes, epochs, text, checksums."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoscale_ds.corpus.store import Corpus, file_sha256
from autoscale_ds.corpus.tokenizers import TextTokenizer
from autoscale_ds.errors import CorpusError


@dataclass(frozen=True)
class DomainSize:
    """One row of the table.

    Attributes
    ----------
    domain : str
        Name of the domain or target; a target has no training tokens, weight or epochs.
    documents, train_tokens, validation_tokens : int
        Documents of both splits.
    shards : int
        Number of its shards, over all splits.
    bytes_per_token : float or None
        UTF-8 bytes a token of the training text, of a target's text; None when unknown (adopted shards).
    weight, epochs : float or None
        Passes over the training tokens that a budget at these weights makes; None without a budget.
    """

    domain: str
    documents: int
    train_tokens: int
    validation_tokens: int
    shards: int
    bytes_per_token: float | None
    weight: float | None = None
    epochs: float | None = None


def domain_sizes(
    corpus: Corpus, budget_tokens: float | None = None, weights: Mapping[str, float] | None = None
) -> list[DomainSize]:
    """Return one row a domain, in the manifest's order, and one a target.

    Parameters
    ----------
    corpus : Corpus
        The corpus to describe.
    budget_tokens : float or None
        Training tokens in all.
    weights : mapping of str to float, or None
        Of every domain, summing to 1. None means in proportion to training tokens.
    """
    train, validation = corpus.num_tokens(), corpus.num_tokens("validation")
    total = sum(train.values())
    rows = []
    for domain in corpus.domains:
        shards = [shard for part in corpus.manifest.domains[domain].values() for shard in part]
        weight = weights[domain] if weights is not None else train[domain] / max(1, total)
        rows.append(
            DomainSize(
                domain=domain,
                documents=sum(shard.documents for shard in shards),
                train_tokens=train[domain],
                validation_tokens=validation[domain],
                shards=len(shards),
                bytes_per_token=corpus.bytes_per_token(domain),
                weight=weight if budget_tokens is not None else None,
                epochs=weight * budget_tokens / train[domain] if budget_tokens is not None and train[domain] else None,
            )
        )
    return rows + [_target_size(corpus, name) for name in (*corpus.targets, *corpus.tasks)]


def _target_size(corpus: Corpus, name: str) -> DomainSize:
    shards = corpus.shards(name, "validation")
    texts = shards[:1] if name in corpus.tasks else shards  # a task's second shard holds sizes
    documents, tokens = sum(shard.documents for shard in texts), sum(shard.tokens for shard in texts)
    documents //= 2 if name in corpus.tasks else 1  # an item is a prompt and a completion
    return DomainSize(name, documents, 0, tokens, len(shards), corpus.bytes_per_token(name, "validation"))


def corpus_tokenizer(corpus: Corpus) -> TextTokenizer:
    """Return the tokenizer stored beside the shards; raises CorpusError if it is missing or was replaced."""
    info = corpus.manifest.tokenizer
    path = corpus.folder / info.file
    if not info.file or not path.is_file():
        raise CorpusError(f"{corpus.folder} holds no {info.file or 'tokenizer.json'}, so its tokens cannot be spelled")
    if file_sha256(path) != info.sha256:
        raise CorpusError(f"{path} is not the tokenizer that {corpus.folder} was made with: its SHA-256 differs")
    return TextTokenizer(info.name, path.read_text(encoding="utf-8"), info.end_of_document)


def read_document(corpus: Corpus, domain: str, index: int, split: str = "train") -> str:
    """Return the text of one document, its end-of-document token spelled out."""
    return corpus_tokenizer(corpus).decode(corpus.store(domain, split).document(index).tolist())


def read_window(corpus: Corpus, domain: str, index: int, sequence_length: int, split: str = "train") -> str:
    """Return the text of window ``index``: tokens [jT, jT + T], as training sees them."""
    store = corpus.store(domain, split)
    windows = max(0, (store.num_tokens - 1) // sequence_length)
    if not 0 <= index < windows:
        raise CorpusError(
            f"window {index} of {domain}/{split}: at sequence length {sequence_length} there are {windows}, from 0"
        )
    tokens = store.read(index * sequence_length, sequence_length + 1)
    return corpus_tokenizer(corpus).decode(tokens.tolist())


def damages(corpus: Corpus) -> Iterator[tuple[str, str | None]]:
    """Yield each file group of the corpus with a description of its damage, or None when it is as it was written."""
    info = corpus.manifest.tokenizer
    if info.file:
        yield info.file, _tokenizer_damage(corpus.folder / info.file, info.sha256)
    for shard in corpus.manifest.shards():
        yield shard.prefix, corpus.verify(shard)


def _tokenizer_damage(path: Path, expected: str) -> str | None:
    try:
        actual = file_sha256(path)
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"
    return None if actual == expected else f"{path}: SHA-256 is {actual}, the manifest says {expected}"

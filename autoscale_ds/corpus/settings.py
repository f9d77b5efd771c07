"""What preprocessing is asked to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autoscale_ds.config import check_range, to_dict
from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.corpus.manifest import MANIFEST_NAME
from autoscale_ds.corpus.publication import ERRORS_NAME, REPORT_NAME
from autoscale_ds.corpus.tasks import TaskInput
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE
from autoscale_ds.errors import ConfigError

# A domain is a folder beside these files; some file systems allow 255 bytes, and a suffix may be added.
_RESERVED = (MANIFEST_NAME, TOKENIZER_FILE, REPORT_NAME, ERRORS_NAME)
_LONGEST_NAME = 200
_DOMAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
LARGEST_WORKERS = 4096  # more processes than any machine has cores
_LARGEST = 2**63 - 1
# These change how the work is done or when it stops, never a byte of a finished corpus.
_WITHOUT_EFFECT = ("output", "on_error", "workers", "gigatoken", "piece_megabytes")
# Least and most of each number: seeds are 16 signed bytes, ids and counts signed words.
_RANGES: Mapping[str, tuple[float, float]] = {
    "min_characters": (0, _LARGEST),
    "validation_documents": (0, _LARGEST),
    "seed": (-(2**127), 2**127 - 1),
    "shard_tokens": (1, _LARGEST),
    "workers": (1, LARGEST_WORKERS),
    "train_tokenizer": (257, 2**31 - 1),
    "piece_megabytes": (0.001, 1e9),
    "train_megabytes": (0.001, 1e9),
}


@dataclass(frozen=True)
class PreprocessSettings:
    """Everything the bytes of a corpus depend on, and how the work is done.

    Attributes
    ----------
    domains : mapping of str to DomainInput
        Their order matters twice: for the manifest, and because the first of several duplicates stays.
    targets : mapping of str to DomainInput
        Text to measure the loss on and never to train on: all of it is held out, whatever the validation settings.
    tasks : mapping of str to TaskInput
        Prompts and completions to measure the loss of completions on, see ``corpus.tasks``.
    output : str
        Corpus folder. Needs room for the tokens twice while it works: once as pieces, once as shards.
    tokenizer : str
        ``gpt2``, a hub name, a ``tokenizer.json`` or a folder that holds one.
    train_tokenizer : int or None
        Train a byte-level BPE of this many ids on a sample of the domains instead.
    train_megabytes : float
        Text of each domain that training sees.
    end_of_document : str or None
        The token that ends documents, where the tokenizer does not tell.
    min_characters : int
        Documents with fewer Unicode characters are dropped, and counted.
    validation_fraction, validation_documents : float or int or None
        How much of each domain is held out, as a share or a number of documents. Documents are chosen by a keyed hash
        of their text, so the choice depends on no order and no number of workers, and copies stay on one side.
    seed : int
        Key of that hash.
    deduplicate : str
        Drop exact copies within each ``domain``, or in ``all`` domains together. Costs 16 bytes of memory a document.
    shard_tokens : int
        Most tokens in a shard, unless one document is longer.
    on_error : str
        ``stop`` at the first document that cannot be read, or ``skip``, count and report them.
    workers : int or None
        Processes; None means one a core.
    gigatoken : bool
        Use it where its ids are identical.
    piece_megabytes : float
        Text that is read and tokenised as one piece of work; what a crash can cost.
    """

    domains: Mapping[str, DomainInput]
    output: str
    tokenizer: str = "gpt2"
    train_tokenizer: int | None = None
    train_megabytes: float = 16.0
    end_of_document: str | None = None
    min_characters: int = 1
    validation_fraction: float | None = None
    validation_documents: int | None = None
    seed: int = 0
    deduplicate: Literal["none", "domain", "all"] = "none"
    shard_tokens: int = 100_000_000
    on_error: Literal["stop", "skip"] = "stop"
    workers: int | None = None
    gigatoken: bool = True
    piece_megabytes: float = 64.0
    targets: Mapping[str, DomainInput] = field(default_factory=dict)
    tasks: Mapping[str, TaskInput] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise CorpusError for a value out of its range."""
        if not self.output:
            raise ConfigError("output is empty; give the corpus folder: --output FOLDER")
        if not self.domains:
            raise ConfigError("no domain given; use --domain name=GLOB or a configuration with domains:")
        kinds: dict[str, str] = {}
        for kind, names in (("domain", self.domains), ("target", self.targets), ("task target", self.tasks)):
            for name in names:
                check_domain_name(name)
                if name in kinds:
                    raise ConfigError(f"{name} is a {kinds[name]} and a {kind}, which is never trained on; rename one")
                kinds[name] = kind
        if self.validation_fraction is not None and self.validation_documents is not None:
            raise ConfigError("validation_fraction and validation_documents are both given; choose one")
        if not 0 <= (self.validation_fraction or 0) < 1:
            raise ConfigError(f"validation_fraction is {self.validation_fraction}, expected at least 0 and below 1")
        for name, (least, most) in _RANGES.items():
            check_range(name, getattr(self, name), least, most)

    @property
    def piece_bytes(self) -> int:
        """``piece_megabytes`` in bytes."""
        return int(self.piece_megabytes * 2**20)

    @property
    def inputs(self) -> dict[str, DomainInput]:
        """All text that is read: domains, then targets."""
        return {**self.domains, **self.targets}

    def effective(self) -> dict[str, Any]:
        """Return the settings that decide the bytes of the corpus, as plain containers."""
        return {name: value for name, value in to_dict(self).items() if name not in _WITHOUT_EFFECT}


def check_domain_name(name: str) -> None:
    """Raise ConfigError for a name that cannot be a folder's everywhere, nor an option's ``NAME=``."""
    if not _DOMAIN_NAME.fullmatch(name):
        raise ConfigError(f"domain name {name!r}: use letters, digits and _ . + - (it names a folder)")
    if name in _RESERVED or len(name) > _LONGEST_NAME:
        what = (
            "the corpus has a file of that name" if name in _RESERVED else f"expected up to {_LONGEST_NAME} characters"
        )
        raise ConfigError(f"domain name {name!r:.80}: {what}; choose another")

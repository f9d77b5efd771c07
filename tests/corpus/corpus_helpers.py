"""Small corpora, and ways to look at what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.corpus.tokenizers import TextTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = [sys.executable, str(REPOSITORY / "tools" / "preprocess_domains.py")]
SHARED_GPT2 = REPOSITORY.parent / "shared" / "data" / "gpt2_bpe"


def sentences(count: int, word: str) -> list[str]:
    """Distinct documents of different lengths that name their domain."""
    return [
        f"{word} document {i}: " + f"{word}s and numbers {i * 7919 % 1000} " * (1 + i * i % 17) for i in range(count)
    ]


def write_jsonl(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts)))
    return path


def run_tool(*arguments: object, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}  # no test asks the network
    return subprocess.run(
        [*TOOL, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120, **options
    )


def texts_of(folder: Path, domain: str, split: str = "train") -> list[str]:
    """The documents of a split, decoded, end-of-document token removed after checking that it is there."""
    corpus = Corpus(folder)
    tokenizer = TextTokenizer("stored", (folder / "tokenizer.json").read_text())
    store = corpus.store(domain, split)
    documents = [store.document(i).tolist() for i in range(store.num_documents)]
    assert all(document[-1] == corpus.manifest.tokenizer.end_of_document for document in documents)
    return [tokenizer.decode(document[:-1]) for document in documents]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def as_input(source: DomainInput | Path | list[Path]) -> DomainInput:
    if isinstance(source, DomainInput):
        return source
    return DomainInput(paths=tuple(map(str, source if isinstance(source, list) else [source])))

"""A small tokenizer, and preprocessing in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_helpers import SHARED_GPT2, as_input, sentences

from autoscale_ds.corpus.plan import Summary
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.tokenizers import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained = train_tokenizer((text.encode() for text in sentences(200, "wonder")), 400)
    (folder / "tokenizer.json").write_text(trained.json_text)
    return folder


@pytest.fixture(scope="session")
def gpt2() -> Path:
    if not SHARED_GPT2.is_dir():
        pytest.skip("the GPT-2 tokenizer is not beside the repository (../shared/data/gpt2_bpe)")
    return SHARED_GPT2


@pytest.fixture
def run(tokenizer_folder: Path, tmp_path: Path):
    """Preprocess ``{name: path or paths or DomainInput}`` into ``tmp_path/<output>`` in this process."""

    def call(domains: dict, output: str = "corpus", **settings) -> Summary:
        sources = {name: as_input(source) for name, source in domains.items()}
        settings.setdefault("tokenizer", str(tokenizer_folder))
        settings.setdefault("workers", 1)
        how = {name: settings.pop(name, False) for name in ("overwrite", "remove_first")}
        summary = preprocess(PreprocessSettings(domains=sources, output=str(tmp_path / output), **settings), **how)
        assert summary is not None
        return summary

    return call

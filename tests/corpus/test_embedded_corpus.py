"""The corpus that needs no download is real, varied and the same every time."""

import json
import runpy
from pathlib import Path

import pytest
from corpus_helpers import REPOSITORY

build = runpy.run_path(str(REPOSITORY / "examples" / "embedded_corpus.py"))["build"]


@pytest.mark.job
def test_it_has_different_domains_of_the_size_asked_for_and_the_same_bytes_again(tmp_path: Path):
    first, second = build(tmp_path / "a", 0.2), build(tmp_path / "b", 0.2)
    assert len(first) >= 5
    assert {domain: path.read_bytes() for domain, path in first.items()} == {
        domain: path.read_bytes() for domain, path in second.items()
    }
    for path in first.values():
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert 0 < sum(len(record["text"].encode()) for record in records) <= 200_000
        assert not any(Path(record["meta"]["path"]).is_absolute() for record in records)
        assert len({record["text"] for record in records}) == len(records)

"""Progress counts the bytes of input that were read, also inside one large compressed file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from corpus_helpers import sentences, write_jsonl

from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.corpus.plan import Listener
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.settings import PreprocessSettings


class _Recorder(Listener):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "tokenising":
            self.seen.append((done, total))


@pytest.mark.parametrize(("workers", "streamed"), [(1, False), (2, False), (2, True)])
def test_a_compressed_file_shows_progress_while_it_is_read(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch, workers: int, streamed: bool
):
    monkeypatch.setattr("autoscale_ds.corpus.preprocessing._STREAM_BYTES", 0 if streamed else 1 << 60)
    monkeypatch.setattr("autoscale_ds.corpus.workers._TICK_SECONDS", 0.001)
    monkeypatch.setattr("autoscale_ds.corpus.reading.BLOCK_BYTES", 1 << 16)
    lines = write_jsonl(tmp_path / "a.jsonl", sentences(5000, "progress")).read_bytes()
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines, 0))
    recorder = _Recorder()
    settings = PreprocessSettings(
        domains={"web": DomainInput(paths=(str(path),))},
        output=str(tmp_path / "corpus"),
        tokenizer=str(tokenizer_folder),
        workers=workers,
        piece_megabytes=0.1,
    )
    preprocess(settings, recorder)
    done = [done for done, _ in recorder.seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == path.stat().st_size
    assert len({*done}) >= 5
    assert {total for _, total in recorder.seen} == {path.stat().st_size}

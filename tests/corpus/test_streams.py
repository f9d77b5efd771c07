"""Datasets that are streamed: whole, in order, from where an interrupted run was."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from corpus_helpers import sentences, texts_of

from autoscale_ds.corpus import tables
from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.errors import CorpusError

TEXTS = sentences(900, "stream")
FILES = 3


def stream(folder: Path, kind: str, **options) -> DomainInput:
    """Write a folder of data files as a hub dataset has them."""
    folder.mkdir()
    for index in range(FILES):
        rows = [{"id": i, "meta": {"body": text}} for i, text in enumerate(TEXTS[index * 300 : (index + 1) * 300])]
        path = folder / f"train-{index}.{kind}"
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DomainInput((str(folder),), "huggingface", "meta.body", streaming=True, **options)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_streamed_dataset_is_read_whole_and_in_order(run, tmp_path: Path, kind: str):
    run({"web": stream(tmp_path / "data", kind)})
    assert texts_of(tmp_path / "corpus", "web") == TEXTS


def test_an_interrupted_stream_goes_on_after_the_files_that_are_done(run, tmp_path: Path, monkeypatch):
    source, real, asked = stream(tmp_path / "data", "jsonl"), tables.open_stream, []

    class Broken:
        """The network is gone while file 2 is read."""

        def __init__(self, rows):
            self._rows, self.num_shards = rows, rows.num_shards

        def shard(self, num_shards, index):
            asked.append(index)
            if asked.count(1) == 2:  # once each to compare tokenizers, then to be tokenised
                raise OSError("connection reset")
            return self._rows.shard(num_shards=num_shards, index=index)

    def opened(*name):
        stream = real(*name)
        return type(stream)(Broken(stream.rows), stream.identity)

    monkeypatch.setattr(tables, "open_stream", opened)
    lost = r"file 2 of 3: cannot be read beyond row 0: .*connection reset; run the same command again"
    with pytest.raises(CorpusError, match=lost):
        run({"web": source})
    assert not (tmp_path / "corpus" / "corpus.json").exists()
    asked[:] = [1, 1, 1]
    run({"web": source})
    assert sorted(asked[3:]) == [0, 1, 1, 2, 2]  # the first file is not tokenised again
    assert texts_of(tmp_path / "corpus", "web") == TEXTS


def test_a_stream_whose_files_changed_is_an_error(run, tmp_path: Path, monkeypatch):
    source, real = stream(tmp_path / "data", "jsonl"), tables.open_stream
    monkeypatch.setattr(tables, "open_stream", lambda *name: type(real(*name))(real(*name).rows, "another revision"))
    with pytest.raises(CorpusError, match="changed while it was read"):
        run({"web": source})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DomainInput(("nobody/nothing",), "huggingface", streaming=True), "cannot stream dataset nobody/nothing"),
        (
            DomainInput(("raw.jsonl",), "jsonl", streaming=True),
            "streaming is for format: huggingface",
        ),
    ],
)
def test_a_stream_that_cannot_be_opened_is_refused(run, source: DomainInput, message: str, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CorpusError, match=message):
        run({"web": source})


def test_a_split_that_is_not_there_is_named(run, tmp_path: Path):
    with pytest.raises(CorpusError, match=r"cannot stream dataset .*test"):
        run({"web": stream(tmp_path / "data", "jsonl", split="test")})

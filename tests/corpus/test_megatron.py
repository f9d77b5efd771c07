"""Megatron reads our shards, and we read Megatron's: both ways against megatron-core itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from corpus_helpers import run_tool, sentences, write_jsonl

from autoscale_ds.corpus import Corpus, IndexedShard
from autoscale_ds.corpus.adoption import adopt
from autoscale_ds.errors import CorpusError

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")

# megatron-core hands torch tensors to numpy.array.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DOCUMENTS = [[[1, 2, 3], [4, 5, 0]], [[0]], [[7] * 100, [8], [9, 0]], [[11, 12, 0]]]


def write_with_megatron(prefix: Path, dtype: type) -> None:
    builder = indexed_dataset.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in DOCUMENTS:
        for sequence in document:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_shards_of_megatron_open_here_with_several_sequences_a_document(tmp_path: Path, dtype: type):
    write_with_megatron(tmp_path / "theirs", dtype)
    shard = IndexedShard(tmp_path / "theirs")
    assert (shard.num_documents, shard.num_sequences, shard.num_tokens) == (4, 7, 113)
    for index, document in enumerate(DOCUMENTS):
        assert shard.document(index).tolist() == [token for sequence in document for token in sequence]


def test_megatrons_multimodal_index_is_recognised(tmp_path: Path):
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "t.bin"), dtype=np.int32, multimodal=True)
    for mode in (0, 1, 0):
        builder.add_item(torch.tensor([1, 2, 0]), mode)
        builder.end_document()
    builder.finalize(str(tmp_path / "t.idx"))
    with pytest.raises(CorpusError, match=r"Megatron's multimodal index: .* each of its 3 sequences"):
        IndexedShard(tmp_path / "t")


def test_our_shards_open_in_megatron_token_for_token(run, tmp_path: Path):
    run({"web": write_jsonl(tmp_path / "a.jsonl", sentences(50, "web"))})
    ours = IndexedShard(tmp_path / "corpus" / "web" / "train-00000")
    theirs = indexed_dataset.IndexedDataset(str(ours.prefix))
    assert len(theirs) == ours.num_sequences == 50
    assert theirs.document_indices.tolist() == list(range(51))
    for index in range(50):
        assert theirs[index].tolist() == ours.document(index).tolist()
        assert theirs.get(index, offset=2, length=3).tolist() == ours.document(index)[2:5].tolist()


def test_both_write_the_same_bytes_for_the_same_documents(run, tmp_path: Path):
    run({"web": write_jsonl(tmp_path / "a.jsonl", sentences(50, "web"))})
    ours = IndexedShard(tmp_path / "corpus" / "web" / "train-00000")
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for index in range(50):
        builder.add_document(torch.tensor(ours.document(index).astype(np.int64)), [len(ours.document(index))])
    builder.finalize(str(tmp_path / "theirs.idx"))
    for ending in (".bin", ".idx"):
        assert ours.prefix.with_suffix(ending).read_bytes() == (tmp_path / f"theirs{ending}").read_bytes()


def test_existing_shards_are_adopted_where_they_are(tmp_path: Path, tokenizer_folder: Path):
    write_with_megatron(tmp_path / "theirs", np.uint16)
    result = run_tool(
        *("--output", tmp_path / "adopted", "--tokenizer", tokenizer_folder),
        *("--adopt", f"web={tmp_path / 'theirs'}", "--adopt", f"web:validation={tmp_path / 'theirs'}.bin"),
    )
    assert result.returncode == 0, result.stderr
    assert "adopted 226 tokens of 1 domains" in result.stdout
    corpus = Corpus(tmp_path / "adopted")
    assert corpus.store("web").num_tokens == corpus.store("web", "validation").num_tokens == 113
    assert corpus.bytes_per_token("web") is None
    assert corpus.verify(corpus.shards("web")[0]) is None
    prefix = json.loads((tmp_path / "adopted" / "corpus.json").read_text())["domains"]["web"]["train"][0]["prefix"]
    assert prefix == "../theirs"


def test_ids_beyond_the_vocabulary_and_open_ended_documents_are_told(tmp_path: Path, tokenizer_folder: Path):
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "t.bin"), dtype=np.int32)
    builder.add_document(torch.tensor([1, 2, 3]), [3])
    builder.finalize(str(tmp_path / "t.idx"))
    notices: list[str] = []
    adopt(tmp_path / "a", {"web": {"train": [str(tmp_path / "t")]}}, str(tokenizer_folder), notice=notices.append)
    assert "1 of 1 documents do not end with <|endoftext|>" in notices[0]
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "u.bin"), dtype=np.int32)
    builder.add_document(torch.tensor([1, 40_000, 0]), [3])
    builder.finalize(str(tmp_path / "u.idx"))
    with pytest.raises(CorpusError, match=r"holds the id 40000, .* has ids 0\.\.\d+"):
        adopt(tmp_path / "b", {"web": {"train": [str(tmp_path / "u")]}}, str(tokenizer_folder))

"""Shards and the store over them: what was written is what is read, and damage is noticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_helpers import REPOSITORY, sentences, write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscale_ds.corpus import Corpus, IndexedShard, IndexedWriter, TokenStore
from autoscale_ds.errors import CorpusError

documents = st.lists(st.lists(st.integers(0, 65_499), max_size=20), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shards=st.lists(documents, min_size=1, max_size=4), wide=st.booleans(), data=st.data())
def test_what_is_written_is_what_is_read_over_any_shards(tmp_path: Path, shards: list, wide: bool, data):
    opened = []
    for number, shard in enumerate(shards):
        with IndexedWriter(tmp_path / str(number), np.dtype("<i4" if wide else "<u2")) as writer:
            for document in shard:
                writer.add_document(document)
        opened.append(IndexedShard(tmp_path / str(number)))
    store = TokenStore(opened)
    everything = [token for shard in shards for document in shard for token in document]
    start = data.draw(st.integers(0, len(everything)))
    count = data.draw(st.integers(0, len(everything) - start))
    assert store.read(start, count).tolist() == everything[start : start + count]
    flat = [document for shard in shards for document in shard]
    assert [store.document(i).tolist() for i in range(store.num_documents)] == flat
    with pytest.raises(CorpusError):
        store.read(start, len(everything) - start + 1)


@pytest.fixture
def corpus(run, tmp_path: Path) -> Path:
    run({"web": write_jsonl(tmp_path / "a.jsonl", sentences(200, "web"))}, validation_fraction=0.1, shard_tokens=2000)
    return tmp_path / "corpus"


def test_the_manifest_holds_what_the_shards_hold(corpus: Path):
    opened = Corpus(corpus)
    texts = sentences(200, "web")
    shards = [shard for split in ("train", "validation") for shard in opened.shards("web", split)]
    assert sum(shard.documents for shard in shards) == len(texts)
    assert sum(shard.text_bytes for shard in shards) == sum(len(text.encode()) for text in texts)
    assert all(opened.verify(shard) is None for shard in shards)
    assert all(shard.tokens <= 2000 for shard in shards)


def inspect(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "tools" / "inspect_corpus.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}, timeout=60)


def test_verify_finds_a_single_flipped_bit(corpus: Path):
    assert inspect(corpus, "--verify").returncode == 0
    shard = corpus / "web" / "train-00001.bin"
    raw = bytearray(shard.read_bytes())
    raw[777] ^= 1
    shard.write_bytes(raw)
    result = inspect(corpus, "--verify")
    assert result.returncode == 2
    assert "DAMAGED web/train-00001" in result.stdout
    assert "1 of" in result.stderr
    assert "its bytes changed since it was written" in result.stderr


@pytest.mark.parametrize("ending", ["bin", "idx"])
@pytest.mark.parametrize("cut", [1, 2, 8, 100])
def test_a_truncated_shard_is_refused(corpus: Path, ending: str, cut: int):
    path = corpus / "web" / f"train-00000.{ending}"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CorpusError, match=r"truncated|damaged"):
        Corpus(corpus).store("web")


def test_a_shard_of_another_corpus_is_refused(corpus: Path):
    for ending in ("bin", "idx"):
        (corpus / "web" / f"train-00001.{ending}").replace(corpus / "web" / f"train-00000.{ending}")
    with pytest.raises(CorpusError, match=r"corpus\.json says"):
        Corpus(corpus).store("web")


def test_a_folder_without_manifest_is_an_unfinished_corpus(corpus: Path):
    (corpus / "corpus.json").unlink()
    result = inspect(corpus)
    assert result.returncode == 2
    assert "the folder holds no finished corpus" in result.stderr


def test_inspection_spells_documents_and_windows_as_training_sees_them(corpus: Path):
    assert inspect(corpus, "--document", "web:0").stdout == sentences(1, "web")[0] + "<|endoftext|>\n"
    window = inspect(corpus, "--window", "web:0", "--sequence-length", 8).stdout
    assert sentences(1, "web")[0].startswith(window[:-1])
    beyond = inspect(corpus, "--window", "web:99999", "--sequence-length", 8)
    assert beyond.returncode == 2
    assert "there are" in beyond.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--document", "web:²"], "'web:²' is not of the form DOMAIN:INDEX, for example wikipedia:17"),
        (["--window", "web:-1"], "not of the form DOMAIN:INDEX"),
        (["--document", "web:99999"], "document 99999 asked for, there are"),
        (["--window", "web:0", "--sequence-length", 0], "--sequence-length: '0' given, expected a whole number"),
        (["--budget", "nan"], "--budget: 'nan' given, expected a finite number above 0"),
    ],
)
def test_inspection_refuses_a_place_or_number_that_cannot_be(corpus: Path, arguments: list, message: str):
    result = inspect(corpus, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_inspection_counts_epochs_at_a_budget(corpus: Path):
    from autoscale_ds.corpus.inspection import domain_sizes

    (size,) = domain_sizes(Corpus(corpus), budget_tokens=1e6, weights={"web": 1.0})
    assert size.epochs == pytest.approx(1e6 / size.train_tokens)


def test_a_window_over_shards_equals_the_tokens_back_to_back(corpus: Path):
    store = Corpus(corpus).store("web")
    assert len(store.shards) > 2
    whole = np.concatenate([shard.tokens for shard in store.shards])
    seam = store.shards[0].num_tokens
    assert store.read(seam - 5, 10).tolist() == whole[seam - 5 : seam + 5].tolist()
    assert store.read(0, store.num_tokens).tolist() == whole.tolist()


def test_an_index_followed_by_a_byte_a_sequence_is_a_multimodal_one(tmp_path: Path):
    with IndexedWriter(tmp_path / "shard", np.dtype("<u2")) as writer:
        for _ in range(3):
            writer.add_document(np.arange(8))
    with (tmp_path / "shard.idx").open("ab") as file:
        file.write(bytes(3))
    with pytest.raises(CorpusError, match=r"multimodal index.*multimodal=False"):
        IndexedShard(tmp_path / "shard")


def test_deepspeeds_dialect_of_the_same_magic_is_refused(tmp_path: Path):
    """DeepSpeed's data_sampling writes u16 as code 6, which is f64 in Megatron's table."""
    with IndexedWriter(tmp_path / "shard", np.dtype("<u2")) as writer:
        writer.add_document(np.arange(8))
        writer.add_document(np.arange(8))
    raw = bytearray((tmp_path / "shard.idx").read_bytes())
    raw[17] = 6
    (tmp_path / "shard.idx").write_bytes(raw)
    with pytest.raises(CorpusError, match="DeepSpeed's data_sampling"):
        IndexedShard(tmp_path / "shard")

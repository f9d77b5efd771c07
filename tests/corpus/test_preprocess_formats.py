"""Every input format gives the same documents."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
import zstandard
from corpus_helpers import sentences, texts_of, write_jsonl

from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.errors import CorpusError

TEXTS = [*sentences(40, "format"), "naïve café 漢字 👩‍👩‍👧 \u2028 \x00 tab\t", "line one\nline two\r\n", "  spaces  "]


COMPRESS = {"gz": gzip.compress, "zst": zstandard.compress, "xz": lzma.compress, "bz2": bz2.compress}


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_jsonl_is_read_plain_and_compressed(run, tmp_path: Path, piece_megabytes: float):
    plain = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    paths = {"plain": plain}
    for ending, compress in COMPRESS.items():
        paths[ending] = tmp_path / f"b.jsonl.{ending}"
        paths[ending].write_bytes(compress(plain.read_bytes()))
    run(paths, piece_megabytes=piece_megabytes)
    for name in paths:
        assert texts_of(tmp_path / "corpus", name) == TEXTS


def test_endings_in_capitals_are_endings(run, tmp_path: Path):
    plain = write_jsonl(tmp_path / "A.JSONL", TEXTS)
    (tmp_path / "B.Jsonl.GZ").write_bytes(gzip.compress(plain.read_bytes()))
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "C.PARQUET")
    (tmp_path / "D.TXT").write_text("text")
    run({"folder": tmp_path})
    assert texts_of(tmp_path / "corpus", "folder") == [*TEXTS * 3, "text"]


def test_zstd_with_the_largest_windows_is_read(run, tmp_path: Path):
    path = tmp_path / "a.jsonl.zst"
    # A frame whose header asks for the window of `zstd --long=31` (RFC 8878, 3.1.1.1.2), and holds one raw block.
    text = write_jsonl(tmp_path / "a.jsonl", TEXTS[:5]).read_bytes()
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00\xa8" + (len(text) << 3 | 1).to_bytes(3, "little") + text)
    run({"long": path})
    assert texts_of(tmp_path / "corpus", "long") == TEXTS[:5]


def test_several_members_of_a_compressed_file_are_read_to_the_end(run, tmp_path: Path):
    halves = [write_jsonl(tmp_path / "half.jsonl", part).read_bytes() for part in (TEXTS[:20], TEXTS[20:])]
    padding = b"\0" * 100_000  # tape blocks, once: allowed between and after members
    (tmp_path / "b.jsonl.gz").write_bytes(padding.join([*map(gzip.compress, halves), b""]))
    (tmp_path / "c.jsonl.xz").write_bytes(padding.join([*map(lzma.compress, halves), b""]))
    (tmp_path / "d.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, halves)))
    (tmp_path / "e.jsonl.bz2").write_bytes(b"".join(map(bz2.compress, halves)))
    run({"all": tmp_path / "*.jsonl.*"})
    assert texts_of(tmp_path / "corpus", "all") == TEXTS * 4


def test_parquet_is_read_by_row_groups(run, tmp_path: Path):
    table = pyarrow.table({"id": list(range(len(TEXTS))), "body": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    source = DomainInput(paths=(str(tmp_path / "a.parquet"),), field="body")
    run({"whole": source})
    run({"whole": source}, output="divided", piece_megabytes=0.001)
    assert texts_of(tmp_path / "corpus", "whole") == texts_of(tmp_path / "divided", "whole") == TEXTS


def test_text_files_are_one_document_each_in_order_of_their_paths(run, tmp_path: Path):
    folder = tmp_path / "books"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "b.txt").write_text("the second\n")
    (folder / "a.txt").write_text("the first\n")
    (folder / "deep" / "c.txt").write_text("the third\n")
    (folder / ".git" / "d.txt").write_text("hidden, not meant")
    with gzip.open(folder / "z.txt.gz", "wt") as file:
        file.write("the last\n")
    run({"folder": folder, "glob": tmp_path / "books" / "**" / "*.txt"})
    assert texts_of(tmp_path / "corpus", "folder") == ["the first\n", "the second\n", "the third\n", "the last\n"]
    assert texts_of(tmp_path / "corpus", "glob") == ["the first\n", "the second\n", "the third\n"]


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_saved_hugging_face_dataset_is_read(run, tmp_path: Path, as_dict: bool):
    saved = datasets.Dataset.from_dict({"text": TEXTS, "id": list(range(len(TEXTS)))})
    (datasets.DatasetDict({"train": saved}) if as_dict else saved).save_to_disk(tmp_path / "saved")
    source = DomainInput(paths=(str(tmp_path / "saved"),), format="huggingface")
    run({"saved": source}, piece_megabytes=0.001)
    assert texts_of(tmp_path / "corpus", "saved") == TEXTS


def test_an_unknown_split_names_those_there_are(run, tmp_path: Path):
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})}).save_to_disk(tmp_path / "saved")
    with pytest.raises(CorpusError, match="no split 'test'; it holds: train"):
        run({"saved": DomainInput(paths=(str(tmp_path / "saved"),), format="huggingface", split="test")})


def test_a_large_file_is_divided_without_losing_or_repeating_a_line(run, tmp_path: Path):
    plain = write_jsonl(tmp_path / "a.jsonl", TEXTS * 5)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for size in (0.001, 0.0013, 0.01):
        run({"plain": plain, "packed": tmp_path / "a.jsonl.gz"}, output=str(size), piece_megabytes=size)
        assert texts_of(tmp_path / str(size), "plain") == texts_of(tmp_path / str(size), "packed") == TEXTS * 5


def test_a_piece_that_ends_with_a_line_does_not_repeat_the_next(run, tmp_path: Path):
    texts = [f"{index:0118}" for index in range(100)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert path.stat().st_size == 100 * 131  # eight lines are 1048 bytes, as 0.001 MiB is
    run({"a": path}, piece_megabytes=0.001)
    assert texts_of(tmp_path / "corpus", "a") == texts


def test_a_byte_order_mark_blank_lines_and_a_missing_last_newline_do_no_harm(run, tmp_path: Path):
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(lines).encode())
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfmarked")
    run({"jsonl": tmp_path / "a.jsonl", "text": tmp_path / "b.txt"})
    assert texts_of(tmp_path / "corpus", "jsonl") == TEXTS
    assert texts_of(tmp_path / "corpus", "text") == ["marked"]


@pytest.mark.parametrize(
    ("source", "message"),
    [("nothing-*.jsonl", "no file matches"), ("data.bin", "its name tells no format; give format")],
)
def test_a_path_that_cannot_be_meant_is_refused(run, tmp_path: Path, source: str, message: str):
    (tmp_path / "data.bin").write_bytes(b"?")
    with pytest.raises(CorpusError, match=message):
        run({"domain": tmp_path / source})


def test_only_the_text_column_of_a_saved_dataset_is_decoded(run, tmp_path: Path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "id": datasets.Value("int64"), "picture": datasets.Image()}
    )
    broken = [{"bytes": b"no picture", "path": None}] * len(TEXTS)
    table = {"text": TEXTS, "id": list(range(len(TEXTS))), "picture": broken}
    saved = datasets.Dataset.from_dict(table, features=features).with_format("numpy", columns=["id"])
    saved.save_to_disk(tmp_path / "saved")
    saved.select(range(len(TEXTS) - 1, -1, -2)).save_to_disk(tmp_path / "part")
    source = {name: DomainInput((str(tmp_path / name),), format="huggingface") for name in ("saved", "part")}
    run(source, piece_megabytes=0.001)
    assert texts_of(tmp_path / "corpus", "saved") == TEXTS
    assert texts_of(tmp_path / "corpus", "part") == TEXTS[::-1][::2]


def test_zstd_frames_with_long_windows_are_read(run, tmp_path: Path):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    plain = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # of unknown size: the whole window
    (tmp_path / "a.jsonl.zst").write_bytes(writer.compress(plain.read_bytes()) + writer.flush())
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "a.jsonl.zst").read_bytes())
    run({"a": tmp_path / "a.jsonl.zst"})
    assert texts_of(tmp_path / "corpus", "a") == TEXTS

"""A file that changes while it is read is an error that names it, in every format, also where errors are skipped."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
import zstandard
from corpus_helpers import sentences, write_jsonl

from autoscale_ds.corpus.inputs import DomainInput, domain_units
from autoscale_ds.corpus.plan import Listener
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.reading import chunks, read_unit
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.errors import CorpusError

TEXTS = sentences(400, "changing")
LINES = "".join(f'{{"text": "{text}"}}\n' for text in TEXTS).encode()


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), path, row_group_size=50)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.jsonl.zst": lambda path: path.write_bytes(zstandard.compress(LINES)),
    "a.jsonl.xz": lambda path: path.write_bytes(lzma.compress(LINES)),
    "a.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(LINES)),
    "a.txt": lambda path: path.write_text(TEXTS[0]),
    "a.parquet": parquet,
}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_at_a_line_end(path: Path) -> None:
    os.truncate(path, path.read_bytes().index(b"\n", path.stat().st_size // 2) + 1)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def write_again(path: Path) -> None:
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


class _ChangesAfterThePlan(Listener):
    def __init__(self, change: Callable[[], object]) -> None:
        self._change: Callable[[], object] | None = change

    def progress(self, stage: str, done: int, total: int) -> None:
        if self._change is not None:
            self._change()
        self._change = None


@pytest.mark.parametrize("piece_megabytes", [64, 0.002])
@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [(cut, "bytes, now"), (grow, "bytes, now"), (write_again, "was written again"), (Path.unlink, "it was removed")],
)
def test_a_file_changed_after_the_plan_is_an_error_even_where_errors_are_skipped(
    tokenizer_folder: Path, tmp_path: Path, name: str, change: Callable, message: str, piece_megabytes: float
):
    path = tmp_path / name
    WRITERS[name](path)
    settings = PreprocessSettings(
        domains={"web": DomainInput(paths=(str(path),))},
        output=str(tmp_path / "corpus"),
        tokenizer=str(tokenizer_folder),
        on_error="skip",
        workers=1,
        gigatoken=False,
        piece_megabytes=piece_megabytes,
    )
    with pytest.raises(CorpusError, match=rf"{name} changed while it was read: .*{message}.* run the same command"):
        preprocess(settings, _ChangesAfterThePlan(lambda: change(path)))


@pytest.mark.parametrize("change", [cut_at_a_line_end, cut, grow])
def test_a_file_changed_between_two_blocks_is_an_error(tmp_path: Path, change: Callable[[Path], object]):
    path = write_jsonl(tmp_path / "a.jsonl", ["x" * 100_000] * 100)
    for size in (1 << 30, 6 << 20):
        write_jsonl(path, ["x" * 100_000] * 100)
        (unit, *_) = domain_units(DomainInput(paths=(str(path),)), size)
        reading = read_unit(unit)
        next(reading)
        change(path)
        with pytest.raises(CorpusError, match=r"a\.jsonl changed while it was read"):
            list(reading)


def test_a_compressed_file_that_is_cut_off_while_it_is_read_is_no_damaged_one(tmp_path: Path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(3 << 20).hex().encode().replace(b"0", b"\n")))
    (unit,) = domain_units(DomainInput(paths=(str(path),)), 1 << 16)
    reading = chunks(unit, 1 << 16)
    next(reading)
    cut(path)
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz changed while it was read"):
        list(reading)


def test_a_dataset_saved_again_while_it_is_read_is_an_error(tmp_path: Path):
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(saved)
    (unit,) = domain_units(DomainInput(paths=(str(saved),), format="huggingface"), 1 << 30)
    datasets.Dataset.from_dict({"text": TEXTS[:9] * 2}).save_to_disk(saved)
    with pytest.raises(CorpusError, match=r"dataset .*saved.* changed while it was read"):
        list(read_unit(unit))

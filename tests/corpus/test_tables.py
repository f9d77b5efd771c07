"""Parquet and saved datasets: the text's column alone is read, and damage costs what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from corpus_helpers import sentences, texts_of

from autoscale_ds.corpus.inputs import DomainInput, domain_units
from autoscale_ds.errors import CorpusError

TEXTS = sentences(300, "table")


def saved(dataset: datasets.Dataset, path: Path, **options) -> DomainInput:
    dataset.save_to_disk(path)
    return DomainInput(paths=(str(path),), format="huggingface", **options)


def errors(folder: Path) -> list[tuple[int | None, str]]:
    path = folder / "errors.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(error["line"], error["reason"]) for error in map(json.loads, lines)]


def test_broken_images_beside_the_text_do_no_harm(run, tmp_path: Path):
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    broken = [{"bytes": b"no image", "path": None}] * len(TEXTS)
    source = saved(datasets.Dataset.from_dict({"image": broken, "text": TEXTS}, features), tmp_path / "saved")
    run({"web": source})
    assert texts_of(tmp_path / "corpus", "web") == TEXTS


@pytest.mark.parametrize("kind", [None, "numpy"])
def test_a_format_saved_for_another_column_does_no_harm(run, tmp_path: Path, kind: str | None):
    dataset = datasets.Dataset.from_dict({"id": list(range(len(TEXTS))), "text": TEXTS})
    dataset.set_format(kind, columns=["id"])
    run({"web": saved(dataset, tmp_path / "saved")})
    assert texts_of(tmp_path / "corpus", "web") == TEXTS


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_a_filtered_and_shuffled_dataset_is_read_in_its_order(run, tmp_path: Path, piece_megabytes: float):
    dataset = datasets.Dataset.from_dict({"text": TEXTS}).shuffle(seed=3).select(range(7, 90))
    assert dataset._indices is not None
    run({"web": saved(dataset, tmp_path / "saved")}, piece_megabytes=piece_megabytes)
    assert texts_of(tmp_path / "corpus", "web") == dataset["text"][:]


def test_a_large_column_beside_the_text_makes_no_small_pieces(tmp_path: Path):
    dataset = datasets.Dataset.from_dict({"text": TEXTS, "blob": [b"x" * 10_000] * len(TEXTS)})
    assert len(domain_units(saved(dataset, tmp_path / "saved"), 1 << 20)) == 1


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_nested_fields_are_read_from_every_format(run, tmp_path: Path, piece_megabytes: float):
    rows = [{"meta": {"text": text, "n": {"id": "deep " + text}}, "meta.id": "literal " + text} for text in TEXTS[:50]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    dataset = saved(datasets.Dataset(table), tmp_path / "saved")
    for field, before in (("meta.text", ""), ("meta.n.id", "deep "), ("meta.id", "literal ")):
        files = {name: DomainInput((str(tmp_path / f"a.{name}"),), field=field) for name in ("jsonl", "parquet")}
        files["saved"] = DomainInput(dataset.paths, "huggingface", field)
        run(files, output=field, piece_megabytes=piece_megabytes)
        for name in files:
            assert texts_of(tmp_path / field, name) == [before + text for text in TEXTS[:50]]


def test_a_nested_field_that_is_missing_or_null_is_an_error(run, tmp_path: Path):
    rows = [{"meta": {"text": "fine"}}, {"meta": None}, {"meta": {"text": None}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run({"web": DomainInput((str(tmp_path / "*.[pj]*"),), field="meta.text")}, on_error="skip")
    assert errors(tmp_path / "corpus") == [
        (2, "field 'meta.text' holds null, expected text"),
        (3, "field 'meta.text' holds null, expected text"),
        (2, "field 'meta.text' is missing; the object has: meta"),
        (3, "field 'meta.text' holds null, expected text"),
    ]
    with pytest.raises(CorpusError, match=r"no column 'meta\.no'; it has: meta"):
        run({"web": DomainInput((str(tmp_path / "a.parquet"),), field="meta.no")}, output="none")


def damage_row_groups(path: Path, groups: list[int]) -> None:
    """Overwrite the pages of the text column in some row groups."""
    metadata = pyarrow.parquet.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in groups:
        column = metadata.row_group(group).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)


@pytest.mark.parametrize("piece_megabytes", [64, 0.02, 0.001])
@pytest.mark.parametrize("workers", [1, 2])
def test_damage_costs_its_row_group_whatever_the_size_of_pieces(
    run, tmp_path: Path, piece_megabytes: float, workers: int
):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), path, row_group_size=50)
    damage_row_groups(path, [1, 4])
    run({"web": path}, on_error="skip", piece_megabytes=piece_megabytes, workers=workers)
    assert texts_of(tmp_path / "corpus", "web") == TEXTS[:50] + TEXTS[100:200] + TEXTS[250:]
    (first, reason), (second, _) = errors(tmp_path / "corpus")
    assert (first, second) == (51, 201)
    assert reason.startswith("rows 51 to 100, of row group 1, are unreadable: ")
    with pytest.raises(CorpusError, match=r"a\.parquet:(51|201): rows .* are unreadable"):
        run({"web": path}, output="stop", piece_megabytes=piece_megabytes, workers=workers)


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_a_damaged_footer_and_a_missing_column_are_one_problem_of_the_file(run, tmp_path: Path, piece_megabytes: float):
    table = pyarrow.table({"text": TEXTS})
    for name, column in (("good", "text"), ("footer", "text"), ("other", "body")):
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table.rename_columns([column]), path, row_group_size=50)
    (tmp_path / "footer.parquet").write_bytes((tmp_path / "footer.parquet").read_bytes()[:-9] + b"\xff" * 9)
    run({"web": tmp_path / "*.parquet"}, on_error="skip", piece_megabytes=piece_megabytes)
    assert texts_of(tmp_path / "corpus", "web") == TEXTS
    (footer, column) = errors(tmp_path / "corpus")
    assert footer[0] is None
    assert footer[1].startswith("unreadable from here on: ")
    assert column == (None, "no column 'text'; it has: body")


def test_flipped_bits_are_found_where_pages_have_checksums(run, tmp_path: Path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": TEXTS}), path, use_dictionary=False, compression="none", write_page_checksum=True
    )
    path.write_bytes(path.read_bytes().replace(b"table document 7:", b"tAble document 7:"))
    with pytest.raises(CorpusError, match=r"a\.parquet:1: rows 1 to 300, of row group 0, are unreadable"):
        run({"web": path})

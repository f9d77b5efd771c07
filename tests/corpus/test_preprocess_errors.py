"""What cannot be read stops the work or is counted; it is never passed over in silence."""

import bz2
import errno
import gzip
import json
import lzma
import os
import random
import resource
from pathlib import Path

import pyarrow.parquet
import pytest
import zstandard
from corpus_helpers import all_bytes, run_tool, sentences, texts_of, write_jsonl

from autoscale_ds.corpus import pieces, preprocessing
from autoscale_ds.corpus.compression import byte_blocks
from autoscale_ds.corpus.disk import told_when_writing_fails
from autoscale_ds.corpus.documents import printable
from autoscale_ds.corpus.inputs import DomainInput, domain_units
from autoscale_ds.corpus.reading import read_unit
from autoscale_ds.errors import ConfigError, CorpusError

GOOD = [json.dumps({"text": text}).encode() for text in sentences(30, "good")]
BAD_LINES = {
    "not valid JSON": b'{"text": "cut off',
    "field 'text' is missing; the object has: body": b'{"body": "elsewhere"}',
    "field 'text' holds null, expected text": b'{"text": null}',
    "the line holds list, expected an object": b'["text"]',
    "invalid UTF-8 at byte 10 of the line \\(0xff\\)": b'{"text": "\xff"}',
    "the text holds the lone surrogate U\\+D800": b'{"text": "\\ud800"}',
}


def damaged_file(path: Path, bad: bytes, line: int) -> Path:
    lines = list(GOOD)
    lines.insert(line - 1, bad)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.parametrize("reason", BAD_LINES)
@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_the_first_bad_line_stops_with_file_line_and_reason(run, tmp_path: Path, reason: str, piece_megabytes: float):
    path = damaged_file(tmp_path / "a.jsonl", BAD_LINES[reason], 23)
    with pytest.raises(CorpusError, match=rf"a\.jsonl:23: {reason}"):
        run({"domain": path}, piece_megabytes=piece_megabytes)
    assert not (tmp_path / "corpus" / "corpus.json").exists()


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
def test_skipped_lines_are_counted_and_listed(run, tmp_path: Path, piece_megabytes: float):
    for index, bad in enumerate(BAD_LINES.values()):
        damaged_file(tmp_path / f"{index}.jsonl", bad, 5 + index)
    summary = run({"domain": tmp_path / "*.jsonl"}, on_error="skip", piece_megabytes=piece_megabytes)
    errors = [json.loads(line) for line in (tmp_path / "corpus" / "errors.jsonl").read_text().splitlines()]
    assert summary.counts["domain"].errors == len(BAD_LINES) == len(errors)
    assert [(Path(error["file"]).name, error["line"]) for error in errors] == [
        (f"{index}.jsonl", 5 + index) for index in range(len(BAD_LINES))
    ]
    assert texts_of(tmp_path / "corpus", "domain") == sentences(30, "good") * len(BAD_LINES)


def test_a_run_stopped_by_a_bad_line_goes_on_with_skip_and_keeps_stopping_without(run, tmp_path: Path):
    path = damaged_file(tmp_path / "a.jsonl", b"{", 30)
    for _ in range(2):
        with pytest.raises(CorpusError, match=":30:"):
            run({"domain": path})
    assert run({"domain": path}, on_error="skip").counts["domain"].errors == 1


def test_pieces_that_skipped_errors_do_not_pass_when_errors_shall_stop(run, tmp_path: Path):
    path = damaged_file(tmp_path / "a.jsonl", b"{", 3)
    with pytest.raises(CorpusError, match="are to be held out"):
        run({"domain": path}, on_error="skip", validation_documents=1000)
    with pytest.raises(CorpusError, match=":3: not valid JSON"):
        run({"domain": path}, on_error="stop")


def small_blocks(data: bytes) -> bytes:
    return bz2.compress(data, compresslevel=1)  # what is lost is a block, of 900 kB at the highest level


COMPRESS = {"gz": gzip.compress, "zst": zstandard.compress, "xz": lzma.compress, "bz2": small_blocks}
INCOMPRESSIBLE = [random.Random(i).randbytes(300).hex() for i in range(2000)]


@pytest.mark.parametrize("piece_megabytes", [64, 0.001])
@pytest.mark.parametrize("ending", COMPRESS)
def test_a_truncated_file_is_an_error_and_what_came_before_is_kept(
    run, tmp_path: Path, ending: str, piece_megabytes: float
):
    whole = COMPRESS[ending](write_jsonl(tmp_path / "a.jsonl", INCOMPRESSIBLE).read_bytes())
    path = tmp_path / f"a.jsonl.{ending}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match=rf"a\.jsonl\.{ending}:\d+: unreadable from here on: .* cut off"):
        run({"domain": path}, piece_megabytes=piece_megabytes)
    run({"domain": path}, on_error="skip", piece_megabytes=piece_megabytes)
    kept = texts_of(tmp_path / "corpus", "domain")
    assert kept == INCOMPRESSIBLE[: len(kept)]
    assert 500 < len(kept) < 1400
    assert json.loads((tmp_path / "corpus" / "errors.jsonl").read_text())["line"] == len(kept) + 1


@pytest.mark.parametrize("ending", ["", *COMPRESS])
def test_damage_costs_the_same_whatever_the_size_of_pieces_and_the_workers(run, tmp_path: Path, ending: str):
    lines = write_jsonl(tmp_path / "a.jsonl", INCOMPRESSIBLE).read_bytes().replace(b'{"text": "7', b'{"text: "7')
    data = bytearray(COMPRESS[ending](lines) if ending else lines)
    data[len(data) * 3 // 5 : len(data) * 3 // 5 + 100] = b"\xff" * 100
    path = tmp_path / f"b.jsonl.{ending}".rstrip(".")
    path.write_bytes(data)
    results = {}
    for index, (size, workers) in enumerate([(64, 1), (64, 2), (0.5, 1), (0.05, 2), (0.003, 2)]):
        summary = run({"a": path}, output=str(index), on_error="skip", piece_megabytes=size, workers=workers)
        folder = tmp_path / str(index)
        results[index] = (
            summary.counts,
            {name: data for name, data in all_bytes(folder).items() if name != "preprocessing.json"},
        )
        assert summary.counts["a"].errors > 30
    assert all(result == results[0] for result in results.values())


def test_a_byte_order_mark_inside_a_file_is_an_error_wherever_pieces_begin(run, tmp_path: Path):
    line = b'{"text": "12345"}\n'
    (tmp_path / "a.jsonl").write_bytes(b"".join([line, b"\xef\xbb\xbf" + line] * 200))
    for size in (64, 0.001, 0.0013):
        assert (
            run({"a": tmp_path / "a.jsonl"}, output=str(size), on_error="skip", piece_megabytes=size).counts["a"].errors
            == 200
        )


def test_a_file_without_the_column_and_null_rows_are_errors(run, tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", None, "three"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet:2: field 'text' holds null"):
        run({"domain": tmp_path / "a.parquet"})
    with pytest.raises(CorpusError, match="no column 'body'; it has: text"):
        run({"domain": DomainInput(paths=(str(tmp_path / "a.parquet"),), field="body")})
    run({"domain": tmp_path / "a.parquet"}, on_error="skip")
    assert texts_of(tmp_path / "corpus", "domain") == ["one", "three"]


def test_a_text_file_that_is_no_utf8_is_an_error_at_its_line(run, tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"fine\nstill fine\nlatin \xe9\n")
    with pytest.raises(CorpusError, match=r"a\.txt:3: invalid UTF-8"):
        run({"domain": tmp_path / "a.txt"})


def test_short_documents_are_dropped_by_characters_not_bytes_and_counted(run, tmp_path: Path):
    summary = run({"domain": write_jsonl(tmp_path / "a.jsonl", ["éééé", "abcde", "漢字漢字漢", ""])}, min_characters=5)
    assert summary.counts["domain"].short == 2
    assert texts_of(tmp_path / "corpus", "domain") == ["abcde", "漢字漢字漢"]


def test_a_domain_without_a_document_is_refused(run, tmp_path: Path):
    with pytest.raises(CorpusError, match="domain empty: no document is left; of 2 read, 2 were too short"):
        run({"empty": write_jsonl(tmp_path / "a.jsonl", ["", ""])})


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path, tokenizer_folder: Path):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(2000, "disk"))
    command = ("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"a={path}", "--workers", 2)
    full = run_tool(*command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "cannot write" in full.stderr
    assert "make room and rerun the same command" in full.stderr
    assert not list((tmp_path / "out").rglob("*.partial*"))
    assert run_tool(*command).returncode == 0
    assert len(texts_of(tmp_path / "out", "a")) == 2000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"validation_fraction": 0.1, "validation_documents": 3}, "choose one"),
        ({"shard_tokens": 0}, "shard_tokens is 0, expected at least 1"),
        ({"workers": 0}, "workers is 0, expected at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(run, tmp_path: Path, settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        run({"domain": write_jsonl(tmp_path / "a.jsonl", ["text"])}, **settings)


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "with space"])
def test_a_domain_name_that_is_no_folder_name_is_refused(run, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="domain name"):
        run({name: write_jsonl(tmp_path / "a.jsonl", ["text"])})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokenizer", "gpt2"], "give the path of a tokenizer.json: --tokenizer FOLDER"),
        (["domains.a={paths: [nobody/nothing], format: huggingface}"], "give a folder written by save_to_disk"),
    ],
)
def test_an_unreachable_hub_says_how_to_do_without(tmp_path: Path, arguments: list[str], message: str):
    path = write_jsonl(tmp_path / "a.jsonl", ["text"])
    domain = ["--domain", f"a={path}"] if "--tokenizer" in arguments else []
    result = run_tool("--output", tmp_path / "out", *domain, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.parquet"])
@pytest.mark.parametrize("change", ["cut at a line's end", "longer", "same size"])
def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path, name: str, change: str):
    path, lines = tmp_path / name, write_jsonl(tmp_path / "lines", sentences(4000, "changing")).read_bytes()
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"text": sentences(4000, "changing")}), path, row_group_size=500)
    else:
        path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    for unit in domain_units(DomainInput((str(path),)), 100_000 if name == "a.jsonl" else 1 << 30):
        batches = read_unit(unit)
        next(batches)
        data = path.read_bytes()
        shorter = data[: data.index(b"\n", len(data) // 4) + 1]
        path.write_bytes({"longer": data + b"x", "same size": data}.get(change, shorter))
        with pytest.raises(CorpusError, match=rf"{name} changed while it was read"):
            for _ in batches:
                pass
        path.write_bytes(data)
        os.utime(path, ns=(int(unit.spans[0].changed),) * 2)


def test_a_file_that_grows_is_an_error_under_skip_too(run, tmp_path: Path, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(50, "growing"))
    original = pieces.read_unit

    def read_and_grow(unit):
        for batch in original(unit):
            with open(path, "ab") as file:
                file.write(b'{"text": "later"}\n')
            yield batch

    monkeypatch.setattr(pieces, "read_unit", read_and_grow)
    with pytest.raises(CorpusError, match=r"a\.jsonl changed while it was read"):
        run({"a": path}, on_error="skip")
    monkeypatch.undo()
    assert run({"a": path}).counts["a"].read == 51


@pytest.mark.parametrize("ending", ["gz", "zst", "xz", "bz2"])
@pytest.mark.parametrize("content", [b"", bytes(100_000)])
def test_a_compressed_file_that_holds_nothing_is_a_problem(run, tmp_path: Path, ending: str, content: bytes):
    (tmp_path / f"a.jsonl.{ending}").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"a\.jsonl\.{ending}:1: unreadable from here on: "):
        run({"domain": tmp_path / f"a.jsonl.{ending}"})


@pytest.mark.parametrize("ending", ["gz", "zst", "xz", "bz2"])
def test_a_repetitive_file_is_decompressed_block_by_block(tmp_path: Path, ending: str):
    text = (json.dumps({"text": "again " * 400}).encode() + b"\n") * 25_000  # 60 MB
    path = tmp_path / f"a.jsonl.{ending}"
    compressed = {
        "gz": gzip.compress,
        "zst": zstandard.compress,
        "xz": lzma.compress,
        "bz2": lambda text: bz2.compress(text, 1),  # large blocks of repetitive text take half a minute
    }[ending](text)
    path.write_bytes(compressed)
    with path.open("rb") as file:
        sizes = [len(block) for block in byte_blocks(file, path.name, path.stat().st_size)]
    assert sum(sizes) == len(text)
    assert max(sizes) < 50 << 20


def test_a_named_pipe_is_refused(run, tmp_path: Path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(CorpusError, match=r"a\.jsonl is no regular file"):
        run({"domain": tmp_path / "a.jsonl"})


def test_a_link_to_nothing_stops_or_is_left_out_and_said(run, tmp_path: Path):
    (tmp_path / "raw").mkdir()
    write_jsonl(tmp_path / "raw" / "a.jsonl", sentences(5, "good"))
    (tmp_path / "raw" / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(CorpusError, match=r"b\.jsonl: a link to nothing \(.*gone\.jsonl\); --on-error skip leaves"):
        run({"domain": tmp_path / "raw"})
    for paths in (tmp_path / "raw", tmp_path / "raw" / "*.jsonl"):
        notices: list[str] = []
        units = domain_units(DomainInput((str(paths),)), 1 << 20, notice=notices.append, skip_broken=True)
        assert [Path(span.path).name for unit in units for span in unit.spans] == ["a.jsonl"]
        assert ["b.jsonl was left out" in line and "link to nothing" in line for line in notices] == [True]
    run({"domain": tmp_path / "raw"}, on_error="skip")
    assert texts_of(tmp_path / "corpus", "domain") == sentences(5, "good")
    with pytest.raises(CorpusError, match="a link to nothing"):  # it was named itself
        run({"domain": tmp_path / "raw" / "b.jsonl"}, on_error="skip")


@pytest.mark.parametrize("name", ["corpus.json", "preprocessing.json", "errors.jsonl"])
def test_a_folder_where_a_file_is_written_is_refused_and_stays(run, tmp_path: Path, name: str):
    (tmp_path / "corpus" / name).mkdir(parents=True)
    with pytest.raises(CorpusError, match=f"{name} is a folder where preprocessing writes a file"):
        run({"domain": write_jsonl(tmp_path / "a.jsonl", sentences(3, "good"))})
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == [name]


def test_a_finished_corpus_on_a_read_only_disk_is_found_complete(run, tmp_path: Path, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(5, "good"))
    run({"domain": path})
    monkeypatch.setattr(preprocessing.os, "access", lambda path, mode: False)
    monkeypatch.setattr(preprocessing, "exclusive", lambda path: pytest.fail("took the lock of a read-only folder"))
    run({"domain": path})
    with pytest.raises(CorpusError, match="choose another --output, or --overwrite it"):
        run({"domain": path}, seed=5)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EROFS, "make the folder writable, or choose another --output"), (errno.ENOSPC, "make room and rerun")],
)
def test_what_to_do_depends_on_why_nothing_can_be_written(tmp_path: Path, number: int, message: str):
    with pytest.raises(CorpusError, match=message), told_when_writing_fails(tmp_path):
        raise OSError(number, os.strerror(number))


def test_names_are_shown_without_what_a_terminal_obeys():
    assert printable("a\x1b[2Jb\nc\u202ed\udce9é") == r"a\x1b[2Jb\nc\u202ed\udce9é"

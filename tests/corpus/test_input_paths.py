"""Which files paths, folders and globs mean: each once, through links, and a line about what was left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from corpus_helpers import all_bytes, run_tool, sentences, texts_of, write_jsonl

from autoscale_ds.corpus.inputs import DomainInput, corpus_units, domain_units
from autoscale_ds.errors import CorpusError


@pytest.fixture
def raw(tmp_path: Path, monkeypatch) -> Path:
    """Four files, two of them in a folder; paths are relative to where they lie."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw" / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c", "deep/d"):
        write_jsonl(tmp_path / "raw" / f"{name}.jsonl", [f"document {name}"])
    return Path("raw")


EVERY = ["raw/a.jsonl", "raw/b.jsonl", "raw/deep/c.jsonl", "raw/deep/d.jsonl"]


def found(*paths: str, **options) -> tuple[list[str], list[str]]:
    """Paths of the files read, and notices."""
    notices: list[str] = []
    output = options.pop("output", None)
    units = domain_units(DomainInput(paths=paths, **options), 1 << 20, output, notices.append)
    return [span.path for unit in units for span in unit.spans], notices


@pytest.mark.parametrize("pattern", ["raw", "raw/", "raw/**/*.jsonl", "raw/**", "r*w/**/*.jsonl", "**/*.jsonl"])
def test_a_folder_and_a_glob_find_the_same_files(raw: Path, pattern: str):
    files, notices = found(pattern)
    assert files == EVERY
    assert notices == []


def test_a_glob_of_the_whole_file_system_starts_at_its_root(raw: Path):
    assert found(f"{raw.resolve()}/**/c.jsonl")[0] == [f"{raw.resolve()}/deep/c.jsonl"]


@pytest.mark.parametrize("pattern", ["raw", "raw/**/*.jsonl"])
def test_a_linked_folder_is_read_by_folder_and_by_glob(raw: Path, tmp_path: Path, pattern: str):
    (tmp_path / "elsewhere").mkdir()
    write_jsonl(tmp_path / "elsewhere" / "e.jsonl", ["document e"])
    (raw / "linked").symlink_to(tmp_path / "elsewhere")
    assert found(pattern) == ([*EVERY, "raw/linked/e.jsonl"], [])


def test_two_spellings_of_a_file_are_read_once_and_said(raw: Path):
    os.link(raw / "a.jsonl", raw / "hard.jsonl")
    (raw / "soft.jsonl").symlink_to("b.jsonl")
    files, notices = found("raw/a.jsonl", "raw/./a.jsonl", "raw")
    assert files == EVERY
    assert notices == ["3 paths lead to files already read (first: raw/./a.jsonl)"]


def test_patterns_that_overlap_are_nothing_to_tell(raw: Path):
    assert found("raw/a.jsonl", "raw/*.jsonl", "raw") == (EVERY, [])


@pytest.mark.parametrize("pattern", ["raw", "raw/**/*.jsonl"])
def test_a_loop_of_links_ends_and_is_said(raw: Path, pattern: str):
    (raw / "deep" / "up").symlink_to("..")
    assert found(pattern) == (EVERY, ["a loop of links at raw/deep/up was not followed"])
    (raw / "deep" / "self").symlink_to(".")
    (raw / "out").symlink_to("..")
    assert found(pattern) == (EVERY, ["3 loops of links were not followed (first: raw/out)"])


def test_two_links_to_one_folder_are_read_once(raw: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    write_jsonl(tmp_path / "elsewhere" / "e.jsonl", ["document e"])
    for name in ("x", "y"):
        (raw / name).symlink_to("../elsewhere")
    assert found("raw") == ([*EVERY, "raw/x/e.jsonl"], ["raw/y leads to what is read already"])


def test_a_file_in_two_domains_is_read_by_both_and_said(raw: Path):
    notices: list[str] = []
    domains = {"web": DomainInput(paths=("raw",)), "deep": DomainInput(paths=("raw/deep/*.jsonl",))}
    units = corpus_units(domains, 1 << 20, None, notices.append)
    assert [len(unit.spans) for parts in units.values() for unit in parts] == [4, 2]
    assert notices == ["deep: 2 files are read by web too (first: raw/deep/c.jsonl)"]


def test_a_folder_stands_for_its_data_and_the_rest_is_said(raw: Path):
    for name in ("README.md", "LICENSE", "dataset_info.json", "deep/README.txt", "_SUCCESS", "_log.jsonl", "x.bin"):
        (raw / name).write_text("no document")
    (raw / ".cache").mkdir()
    files, notices = found("raw")
    assert files == EVERY
    assert notices == [
        "3 names that begin with _ or . were left out (first: raw/.cache)",
        "4 files that tell about the data beside them were left out (first: raw/LICENSE)",
        "raw/x.bin was left out: its name tells no format",
    ]


def test_a_readme_beside_text_alone_is_a_document(tmp_path: Path):
    (tmp_path / "README.md").write_text("a document")
    (tmp_path / "b.txt").write_text("another")
    assert [Path(path).name for path in found(str(tmp_path))[0]] == ["README.md", "b.txt"]


def test_what_is_named_or_matched_is_read_whatever_its_name(raw: Path):
    for name in ("README.md", "_part.jsonl"):
        (raw / name).write_text('"x"')
    assert found("raw/README.md", "raw/_part.jsonl")[0] == ["raw/README.md", "raw/_part.jsonl"]
    assert found("raw/[R_]*")[0] == ["raw/README.md", "raw/_part.jsonl"]
    (raw / "_SUCCESS").touch()
    with pytest.raises(CorpusError, match="raw/_SUCCESS: its name tells no format"):
        found("raw/*")
    assert "raw/_SUCCESS" in found("raw", format="jsonl")[0]


def test_a_folder_without_data_says_what_it_holds(tmp_path: Path):
    (tmp_path / "x.bin").touch()
    with pytest.raises(CorpusError, match=r"nothing of .* is left to read: .*x\.bin was left out"):
        found(str(tmp_path))
    (tmp_path / "data-0.arrow").touch()
    with pytest.raises(CorpusError, match="give format: huggingface"):
        found(str(tmp_path))


def test_a_pipe_in_a_folder_is_left_out(raw: Path):
    os.mkfifo(raw / "pipe.jsonl")
    assert found("raw") == (EVERY, ["raw/pipe.jsonl was left out: it is no regular file"])


def test_a_broken_link_is_an_error(raw: Path):
    (raw / "gone.jsonl").symlink_to("nowhere")
    with pytest.raises(CorpusError, match=r"cannot read raw/gone\.jsonl: a link to nothing"):
        found("raw")


@pytest.mark.parametrize("output", ["raw/out", "raw"])
def test_a_corpus_inside_its_input_folder_is_not_read(raw: Path, tmp_path: Path, tokenizer_folder: Path, output: str):
    write_jsonl(raw / "bad.jsonl", sentences(5, "bad"))
    with (raw / "bad.jsonl").open("a") as file:
        file.write("{\n")  # errors.jsonl will be there too
    command = ("--tokenizer", tokenizer_folder, "--domain", "web=raw", "--on-error", "skip", "--workers", 1)
    assert run_tool("--output", "apart", *command).returncode == 0
    first = run_tool("--output", output, *command)
    assert first.returncode == 0, first.stderr
    assert len(texts_of(tmp_path / output, "web")) == len(texts_of(tmp_path / "apart", "web")) == 9
    second = run_tool("--output", output, *command)
    assert "was complete already" in second.stdout
    assert "notice: web: " in second.stderr
    assert "files that preprocessing made were left out" in second.stderr
    assert run_tool("--output", output, "--overwrite", *command).returncode == 0
    for name in ("web/train-00000.bin", "errors.jsonl"):
        assert (tmp_path / output / name).read_bytes() == all_bytes(tmp_path / "apart")[name]


def test_another_spelling_of_the_output_folder_is_recognised(raw: Path):
    (raw / "out").mkdir()
    (raw / "out" / "corpus.json").touch()
    (raw / "alias").symlink_to("out")
    files, notices = found("raw/**/*.json*", output="raw/alias")
    assert files == EVERY
    assert notices == ["raw/out/corpus.json was left out: preprocessing made it"] or len(notices) == 2


def test_names_that_are_not_utf8_are_read_and_told(tmp_path: Path, tokenizer_folder: Path):
    folder = os.fsencode(tmp_path / "raw")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.jsonl", "wb") as file:
        file.write(b'{"text": "fine"}\n{"\\ud800": 1, "a\\nb": 2}\n')
    with open(folder + b"/caf\xe9.bin", "wb"):
        pass
    command = ("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={tmp_path}/raw")
    stopped = run_tool(*command)
    assert stopped.returncode == 2
    assert "Traceback" not in stopped.stderr
    assert "caf\\udce9.jsonl:2: field 'text' is missing; the object has: \\ud800, a\\nb" in stopped.stderr
    skipped = run_tool(*command, "--on-error", "skip")
    assert skipped.returncode == 0, skipped.stderr
    assert "caf\\udce9.bin was left out" in skipped.stderr
    assert "\\\\udce9.jsonl" in (tmp_path / "out" / "errors.jsonl").read_text(encoding="utf-8")
    assert texts_of(tmp_path / "out", "web") == ["fine"]


def test_a_path_that_is_not_utf8_can_be_named(tmp_path: Path, tokenizer_folder: Path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    write_jsonl(Path(path), ["fine"])
    command = ("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={path}")
    for said in (f": {tmp_path / 'out'}", "was complete already"):
        result = run_tool(*command)
        assert result.returncode == 0, result.stderr
        assert said in result.stdout
    os.remove(path)
    gone = run_tool(*command)
    assert gone.returncode == 2
    assert gone.stderr.count("\n") == 1
    assert "no file matches" in gone.stderr

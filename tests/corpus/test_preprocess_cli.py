"""The command line: settings from a file and from options, one-line mistakes, an interrupt that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from corpus_helpers import REPOSITORY, TOOL, all_bytes, run_tool, sentences, texts_of, write_jsonl


@pytest.fixture
def web(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "web.jsonl", sentences(60, "web"))


def test_a_configuration_file_is_overridden_by_keys_and_by_options(web: Path, tmp_path: Path, tokenizer_folder: Path):
    (tmp_path / "corpus.yaml").write_text(
        f"domains:\n  web: {{paths: '{web}', field: text}}\n"  # one path need not be a list
        f"tokenizer: {tokenizer_folder}\nmin_characters: 5\nvalidation_documents: 3\nseed: 1\n"
    )
    books = write_jsonl(tmp_path / "books.jsonl", sentences(40, "book"))
    result = run_tool(
        *("--config", tmp_path / "corpus.yaml", "--output", tmp_path / "out", "--domain", f"books={books}"),
        *("--validation-documents", 7, "seed=2", "shard_tokens=1e6"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    wanted = {"min_characters": 5, "validation_documents": 7, "seed": 2, "shard_tokens": 1_000_000}
    assert {name: report["settings"][name] for name in wanted} == wanted
    assert [len(texts_of(tmp_path / "out", name, "validation")) for name in ("web", "books")] == [7, 7]
    assert report["inputs"]["web"]["bytes"] == web.stat().st_size


def test_overrides_go_over_options_and_reach_into_a_domain_of_an_option(tmp_path: Path, tokenizer_folder: Path):
    (tmp_path / "w.jsonl").write_text("".join(json.dumps({"text": "no", "body": t}) + "\n" for t in sentences(9, "b")))
    result = run_tool(
        *("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={tmp_path / 'w.jsonl'}"),
        *("--seed", 3, "domains.web.field=body", "seed=4"),
    )
    assert result.returncode == 0, result.stderr
    assert texts_of(tmp_path / "out", "web") == sentences(9, "b")
    assert json.loads((tmp_path / "out" / "preprocessing.json").read_text())["settings"]["seed"] == 4


def test_an_option_replaces_the_paths_of_a_domain_and_keeps_its_other_keys(tmp_path: Path, tokenizer_folder: Path):
    (tmp_path / "w.jsonl").write_text(json.dumps({"text": "no", "body": "yes"}) + "\n")
    (tmp_path / "c.yaml").write_text("domains:\n  no: {paths: [nothing.jsonl], field: body}\n")
    result = run_tool(
        *("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--config", tmp_path / "c.yaml"),
        *("--domain", f"no={tmp_path / 'w.jsonl'}"),
    )
    assert result.returncode == 0, result.stderr
    assert texts_of(tmp_path / "out", "no") == ["yes"]


def test_brackets_of_a_path_are_printed(web: Path, tmp_path: Path, tokenizer_folder: Path):
    for name in ("out[v2]", "a[/b]c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        result = run_tool("--output", tmp_path / name, "--tokenizer", tokenizer_folder, "--domain", f"web={web}")
        assert result.returncode == 0, result.stderr
        assert f": {tmp_path / name}\n" in result.stdout


def test_the_summary_accounts_for_every_document(web: Path, tmp_path: Path, tokenizer_folder: Path):
    with web.open("a") as file:
        file.write('{"text": "x"}\n{"text": 5}\n' + web.read_text().splitlines()[0] + "\n")
    result = run_tool(
        *("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={web}"),
        *("--on-error", "skip", "--min-characters", 5, "--deduplicate", "domain"),
    )
    assert result.returncode == 0, result.stderr
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("web"))
    assert row[1:5] == ["60", "1", "1", "1"]  # documents, short, copies, errors
    assert f"1 errors are listed in {tmp_path / 'out'}/errors.jsonl" in result.stdout


def test_a_long_summary_shows_the_largest_domains_and_sums_the_others(tmp_path: Path, tokenizer_folder: Path):
    domains = []
    for index in range(103):
        path = write_jsonl(tmp_path / f"d{index:03d}.jsonl", sentences(2 if index < 3 else 5, "word"))
        domains += ["--domain", f"{path.stem}={path}"]
    result = run_tool("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, *domains)
    assert result.returncode == 0, result.stderr
    names = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("d") and line[1].isdigit()]
    assert names == [f"d{index:03d}" for index in range(3, 103)]
    documents = [
        int(line.split()[-7]) for line in result.stdout.splitlines() if line.startswith(("3 smaller", "total"))
    ]
    assert documents == [6, 506]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domain", "web=nothing.jsonl"], "give --output FOLDER"),
        (["--output", "", "--domain", "web=a.jsonl"], "give --output FOLDER"),
        (["--output", "out"], "no domain given"),
        (["--output", "out", "--domain", "web"], "not of the form NAME=PATH"),
        (["--output", "out", "--domain", "web=a.jsonl", "shard_token=3"], "did you mean shard_tokens?"),
        (["--output", "out", "--domain", "web=a.jsonl", "shard_tokens=many"], "expected a whole number"),
        (["--output", "out", "--domain", "web=a.jsonl", "--config", "none.yaml"], "cannot read the configuration"),
        (["--adopt", "web=a"], "--adopt needs --output"),
        (["--adopt", "web=a", "--output", "o", "--seed", "1"], "--seed has no effect with --adopt"),
        (["--adopt", "web=a", "--output", "o", "seed=1"], "seed=1 has no effect with --adopt"),
        (["--output", "o", "--domain", "web=a.jsonl", "domains.web.feild=b"], "domains.web.feild; did you mean field?"),
        (
            ["--output", "o", "--domain", "web=a.jsonl", "domains.wbe.field=b"],
            "'wbe', which has no paths; did you mean",
        ),
        (["--output", "o", "--domain", "web=a.jsonl", "domains=3"], "domains is 3, expected keys and values"),
        (["--seed", 2**127], "--seed: '170141183460469231731687303715884105728' given, expected a whole number"),
        (["--output", "o", "--domain", "web=a.jsonl", f"seed={2**127}"], "seed is 1701411834604692317316873037158841"),
        (["--output", "o", "--domain", "web=a.jsonl", "piece_megabytes=.nan"], "piece_megabytes is nan, expected"),
        (["--output", "o", "--domain", "web=a.jsonl", "train_megabytes=.inf"], "train_megabytes is inf, expected"),
        (["--workers", "1e12"], "--workers: '1e12' given, expected a whole number of at least 1 and at most 4,096"),
        (["--validation-fraction", "nan"], "--validation-fraction: 'nan' given, expected a finite number at least 0"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str):
    result = run_tool(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_ctrl_c_loses_nothing_finished(run, tmp_path: Path, tokenizer_folder: Path):
    path = write_jsonl(tmp_path / "a.jsonl", sentences(10_000, "interrupted"))
    run({"a": path}, output="whole", piece_megabytes=0.002)
    command = [*TOOL, "--output", str(tmp_path / "out"), "--tokenizer", str(tokenizer_folder), "--domain", f"a={path}"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "piece_megabytes=0.002"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to it, and this suite may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pieces = tmp_path / "out" / ".work" / "pieces"
    while process.poll() is None and len(list(pieces.glob("*.json"))) < 5:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "interrupted; nothing finished was lost, the same command continues\n"
    finished = {path: path.stat().st_mtime_ns for path in pieces.glob("*.json")}
    assert len(finished) >= 5
    run({"a": path}, output="out", piece_megabytes=0.002)
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "whole")


def test_all_of_a_target_is_held_out(web: Path, tmp_path: Path, tokenizer_folder: Path):
    exams = write_jsonl(tmp_path / "exams.jsonl", sentences(30, "exam"))
    options = ("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={web}")
    target = ("--target", f"exams={exams}")
    result = run_tool(*options, *target, "--validation-documents", 7)
    assert result.returncode == 0, result.stderr
    assert "exams (target)" in result.stdout
    assert texts_of(tmp_path / "out", "exams", "validation") == sentences(30, "exam")
    assert texts_of(tmp_path / "out", "exams") == []
    assert len(texts_of(tmp_path / "out", "web", "validation")) == 7
    alone = run_tool("--output", tmp_path / "alone", *options[2:], "--validation-documents", 7)
    assert alone.returncode == 0
    for name in ("train-00000.bin", "validation-00000.bin"):
        assert (tmp_path / "alone" / "web" / name).read_bytes() == (tmp_path / "out" / "web" / name).read_bytes()

    again = run_tool(*options, *target, "--validation-documents", 7)
    assert "was complete already" in again.stdout
    without = run_tool(*options, "--validation-documents", 7)
    assert (without.returncode, "targets were exams, now none" in without.stderr) == (2, True)
    both = run_tool(*options, "--target", f"web={exams}")
    assert (both.returncode, "web is a domain and a target" in both.stderr) == (2, True)

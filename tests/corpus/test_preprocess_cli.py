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
        f"domains:\n  web: {{paths: ['{web}'], field: text}}\n"
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domain", "web=nothing.jsonl"], "output is missing"),
        (["--output", "out"], "no domain given"),
        (["--output", "out", "--domain", "web"], "not of the form NAME=PATH"),
        (["--output", "out", "--domain", "web=a.jsonl", "shard_token=3"], "did you mean shard_tokens?"),
        (["--output", "out", "--domain", "web=a.jsonl", "shard_tokens=many"], "expected a whole number"),
        (["--output", "out", "--domain", "web=a.jsonl", "--config", "none.yaml"], "cannot read the configuration"),
        (["--adopt", "web=a"], "--adopt needs --output"),
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

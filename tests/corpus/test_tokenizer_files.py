"""The end of documents does not depend on what happens to lie in the hub's cache: its two files come together."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from corpus_helpers import REPOSITORY, run_tool, write_jsonl

from autoscale_ds.corpus import Manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does to a download: file, revision and checksum."""

    files: ClassVar[dict[str, bytes]]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body: bool):
        name = self.path.rpartition("/")[2]
        body = self.files.get(name)
        self.send_response(200 if body is not None else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body or b"")))
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if with_body and body is not None:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tokenizer_folder: Path) -> Iterator[tuple[type[Hub], str]]:
    """A hub with a tokenizer of two tokens that could end a document; its configuration names the second."""
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": len(spec["model"]["vocab"]), "content": "<|stop|>"})
    files = {"tokenizer.json": json.dumps(spec).encode(), "tokenizer_config.json": b'{"eos_token": "<|stop|>"}'}
    handler = type("ThisHub", (Hub,), {"files": files})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def preprocess(tmp_path: Path, monkeypatch):
    """Preprocess with a tokenizer of the hub and a cache of its own; without an address, the hub cannot be reached."""
    path = write_jsonl(tmp_path / "a.jsonl", ["one text", "another"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))

    def run(output: str, address: str | None, *options: str) -> subprocess.CompletedProcess:
        arguments = ["--output", tmp_path / output, "--tokenizer", "org/name", "--domain", f"web={path}", *options]
        if address is None:
            return run_tool(*arguments)
        tool = [sys.executable, str(REPOSITORY / "tools" / "preprocess_domains.py"), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        return subprocess.run(tool, capture_output=True, text=True, env=environment, timeout=120)

    return run


def end_of(folder: Path) -> int:
    return Manifest.load(folder).tokenizer.end_of_document


def test_both_files_are_fetched_recorded_and_found_in_the_cache(hub, preprocess, tmp_path: Path):
    handler, address = hub
    assert (done := preprocess("first", address)).returncode == 0, done.stderr
    assert preprocess("second", None).returncode == 0
    stop = json.loads(handler.files["tokenizer.json"])["added_tokens"][-1]["id"]
    assert end_of(tmp_path / "first") == end_of(tmp_path / "second") == stop
    report = json.loads((tmp_path / "first" / "preprocessing.json").read_text())
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in handler.files.items()}
    assert report["tokenizer_files"] == digests


def test_a_cache_with_one_of_them_is_filled_or_refused(hub, preprocess, tmp_path: Path):
    _, address = hub
    assert preprocess("first", address).returncode == 0
    stop = end_of(tmp_path / "first")
    for path in (tmp_path / "cache").rglob("tokenizer_config.json"):
        path.unlink()
    alone = preprocess("second", None)
    assert alone.returncode == 2
    assert "in the hub's cache without its tokenizer_config.json" in alone.stderr
    assert preprocess("third", None, "--end-of-document", "<|endoftext|>").returncode == 0
    assert end_of(tmp_path / "third") != stop
    assert preprocess("fourth", address).returncode == 0
    assert end_of(tmp_path / "fourth") == stop


def test_the_hubs_word_that_there_is_no_configuration_is_remembered(hub, preprocess, tmp_path: Path):
    handler, address = hub
    del handler.files["tokenizer_config.json"]
    assert (done := preprocess("first", address)).returncode == 0, done.stderr
    assert (done := preprocess("second", None)).returncode == 0, done.stderr
    assert end_of(tmp_path / "first") == end_of(tmp_path / "second") == 0  # <|endoftext|>, by its name


def test_another_end_is_another_corpus(tokenizer_folder: Path, tmp_path: Path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    spec = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": len(spec["model"]["vocab"]), "content": "<|stop|>"})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    arguments = ["--output", tmp_path / "out", "--tokenizer", folder]
    arguments += ["--domain", f"web={write_jsonl(tmp_path / 'a.jsonl', ['one text', 'another'])}"]
    assert run_tool(*arguments).returncode == 0
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|stop|>"}')
    again = run_tool(*arguments)
    assert again.returncode == 2
    assert "documents would end with '<|stop|>' now" in again.stderr

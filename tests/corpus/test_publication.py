"""The corpus a folder holds stays until the new one is complete, and only files that preprocessing made are removed."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import pytest
from corpus_helpers import all_bytes, run_tool, sentences, write_jsonl

from autoscale_ds.corpus import Corpus, publication
from autoscale_ds.corpus.disk import exclusive
from autoscale_ds.errors import AutoScaleError, ConfigError, CorpusError


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Path]:
    return {word: write_jsonl(tmp_path / f"{word}.jsonl", sentences(60, word)) for word in ("red", "green")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": {"red": "no/such/*.jsonl"}}, "no file matches"),
        ({"tokenizer": "no/tokenizer.json"}, "no tokenizer at"),
        ({"train_tokenizer": 300, "domains": {"red": "no/such/*.jsonl"}}, "no file matches"),
        ({"validation_documents": 10**6}, "are to be held out"),
        ({"domains": {"red": "bad.jsonl"}}, "not valid JSON"),
    ],
)
def test_a_mistake_under_overwrite_leaves_the_old_corpus_whole(
    run, raw: dict[str, Path], tmp_path: Path, change: dict, message: str, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{bad\n")
    run(raw, validation_fraction=0.1)
    before = all_bytes(tmp_path / "corpus")
    domains = {name: Path(path) for name, path in change.pop("domains", raw).items()}
    with pytest.raises(AutoScaleError, match=message):
        run(domains, overwrite=True, **change)
    after = {name: data for name, data in all_bytes(tmp_path / "corpus").items() if not name.startswith(".work")}
    assert after == before


def test_the_old_corpus_s_own_tokenizer_may_make_the_new_one(run, raw: dict[str, Path], tmp_path: Path):
    run(raw)
    run({"red": raw["red"]}, tokenizer=str(tmp_path / "corpus" / "tokenizer.json"), overwrite=True)
    assert Corpus(tmp_path / "corpus").domains == ["red"]
    assert not (tmp_path / "corpus" / "green").exists()


def test_cut_short_while_it_takes_its_place_the_next_start_carries_it_through(
    run, raw: dict[str, Path], tmp_path: Path, monkeypatch
):
    run(raw, output="fresh", shard_tokens=2000)
    run({"red": raw["red"]}, output="old", shard_tokens=500, validation_fraction=0.2)
    fresh = all_bytes(tmp_path / "fresh")
    move = shutil.move
    for moves in itertools.count():
        shutil.copytree(tmp_path / "old", tmp_path / "corpus")
        (tmp_path / "corpus" / "notes.txt").write_text("mine")
        calls = []

        def stop_after(source: Path, target: Path, calls=calls, moves=moves) -> None:
            calls.append(target)
            if len(calls) > moves:
                raise KeyboardInterrupt
            move(source, target)

        monkeypatch.setattr(publication.shutil, "move", stop_after)
        with contextlib.suppress(KeyboardInterrupt):
            run(raw, shard_tokens=2000, overwrite=True)
        monkeypatch.setattr(publication.shutil, "move", move)
        run(raw, shard_tokens=2000)  # not --overwrite: what was begun is that very corpus
        (tmp_path / "corpus" / "notes.txt").unlink()
        assert all_bytes(tmp_path / "corpus") == fresh
        shutil.rmtree(tmp_path / "corpus")
        if len(calls) <= moves:
            break
    assert moves == len(fresh)


def test_adopted_shards_are_never_removed(run, raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path):
    run({"web": raw["green"]}, output="theirs")
    theirs = all_bytes(tmp_path / "theirs")
    run({"red": raw["red"]})
    out = ("--output", tmp_path / "corpus", "--tokenizer", tokenizer_folder)
    adopt = (*out, "--adopt", f"web={tmp_path / 'theirs/web/train-00000'}")
    refused = run_tool(*adopt)
    assert refused.returncode == 2
    assert "or --overwrite its corpus.json" in refused.stderr
    assert run_tool(*adopt, "--overwrite").returncode == 0
    assert (tmp_path / "corpus/red/train-00000.bin").exists()
    with pytest.raises(CorpusError, match=r"corpus\.json was not written by the run"):
        run({"red": raw["red"]})
    run({"green": raw["green"]}, overwrite=True)
    assert Corpus(tmp_path / "corpus").domains == ["green"]
    assert not (tmp_path / "corpus" / "red").exists(), "that one is known from preprocessing.json"
    assert all_bytes(tmp_path / "theirs") == theirs


def test_adopted_from_within_the_folder_by_a_name_like_ours_they_stay_too(run, raw: dict[str, Path], tmp_path: Path):
    run({"web": raw["green"]}, output="theirs")
    shutil.copytree(tmp_path / "theirs/web", tmp_path / "corpus/parts/web")
    tokenizer = tmp_path / "theirs"
    adopt = ("--adopt", f"web={tmp_path / 'corpus/parts/web/train-00000'}")
    assert run_tool("--output", tmp_path / "corpus", "--tokenizer", tokenizer, *adopt).returncode == 0
    run({"web": raw["red"]}, overwrite=True, tokenizer=str(tokenizer))
    assert (tmp_path / "corpus/parts/web/train-00000.bin").exists()


def test_a_file_in_the_way_that_nobody_knows_is_not_replaced(run, raw: dict[str, Path], tmp_path: Path):
    (tmp_path / "corpus" / "red").mkdir(parents=True)
    (tmp_path / "corpus/red/train-00000.bin").write_bytes(b"mine")
    with pytest.raises(CorpusError, match=r"train-00000\.bin is in the way: neither"):
        run(raw)
    assert (tmp_path / "corpus/red/train-00000.bin").read_bytes() == b"mine"
    (tmp_path / "corpus/red/train-00000.bin").unlink()
    run(raw)  # goes on
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"tokenizer\.json is in the way"):
        run(raw, output="other")


@pytest.mark.parametrize("damage", ["corpus.json", "red/train-00000.bin", "red/train-00000.idx"])
def test_a_damaged_corpus_can_be_overwritten(run, raw: dict[str, Path], tmp_path: Path, damage: str):
    run(raw)
    whole = all_bytes(tmp_path / "corpus")
    (tmp_path / "corpus" / damage).write_bytes(b"xx")
    run(raw, overwrite=True)
    assert all_bytes(tmp_path / "corpus") == whole


def test_the_old_corpus_goes_first_if_there_is_no_room(run, raw: dict[str, Path], tmp_path: Path, monkeypatch):
    run(raw, output="fresh")
    run(raw, shard_tokens=500)
    seen = []
    monkeypatch.setattr(
        "autoscale_ds.corpus.packing.ShardMaker.make",
        lambda self, task: seen.append(list((tmp_path / "corpus").glob("*/*.bin"))) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        run(raw, overwrite=True, remove_first=True)
    assert seen[0] == []
    monkeypatch.undo()
    run(raw)
    assert all_bytes(tmp_path / "corpus") == all_bytes(tmp_path / "fresh")


def test_old_reports_without_checksums_are_understood(run, raw: dict[str, Path], tmp_path: Path):
    run(raw)
    report = tmp_path / "corpus" / "preprocessing.json"
    old = json.loads(report.read_text())
    del old["shards"]
    report.write_text(json.dumps({**old, "version": 1}))
    assert run(raw).already_complete
    run({"red": raw["red"]}, overwrite=True)
    assert not (tmp_path / "corpus" / "green").exists()


def test_files_with_our_names_that_we_did_not_make_stay(run, raw: dict[str, Path], tmp_path: Path):
    folder, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (folder / ".work").symlink_to(elsewhere)
    for name in ("errors.jsonl", "preprocessing.json"):
        (folder / name).write_text('{"mine": 1}')
        with pytest.raises(CorpusError, match=f"{name} is in the way"):
            run(raw)
        assert (folder / name).read_text() == '{"mine": 1}'
        (folder / name).unlink()
    run(raw)
    run(raw, overwrite=True, seed=1)
    assert (elsewhere / "mine").read_text() == "mine"


def test_adoption_is_refused_while_another_run_works_in_the_folder(
    run, raw: dict[str, Path], tmp_path: Path, tokenizer_folder: Path
):
    run(raw, output="other")
    shard = next((tmp_path / "other").glob("*/train-00000.bin")).with_suffix("")
    arguments = ("--output", tmp_path / "corpus", "--tokenizer", tokenizer_folder, "--adopt", f"web={shard}")
    with exclusive(tmp_path / "corpus" / ".work" / "lock"):
        refused = run_tool(*arguments)
    assert refused.returncode == 2
    assert "another run is at work in" in refused.stderr
    assert run_tool(*arguments).returncode == 0


@pytest.mark.parametrize("name", ["corpus.json", "errors.jsonl", "d" * 201])
def test_a_domain_that_no_folder_can_be_named_after_is_refused_at_once(run, raw: dict[str, Path], name: str):
    with pytest.raises(ConfigError, match=r"domain name .*; choose another"):
        run({name: next(iter(raw.values()))})

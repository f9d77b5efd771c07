"""Real sweeps: workers that are killed, stopped or fail, and the table that comes out all the same."""

import json
import os
import random
import shutil
import signal
import time

import pyarrow.parquet
import pytest
from forked import run_forked
from sweeps import ROOT, TOKENS_PER_STEP, start_worker, sweep_tool, write_configs

from autoscale_ds.corpus import Corpus, CorpusIdentity
from autoscale_ds.mixture import RunTable
from autoscale_ds.sweep.plan import SweepPlan
from autoscale_ds.sweep.progress import survey
from autoscale_ds.sweep.results import phase_of

pytestmark = pytest.mark.job
STEPS = 40


def make_sweep(tmp_path, corpus, name, *options, **schedule):
    config, ds = write_configs(tmp_path / "config", corpus, **schedule)
    tokens = ["--tokens", STEPS * TOKENS_PER_STEP, "--evaluations", 2]
    sweep_tool("plan", tmp_path / name, "--config", config, "--deepspeed_config", ds, *tokens, *options)
    return tmp_path / name


def table(sweep):
    sweep_tool("collect", sweep)
    return pyarrow.parquet.read_table(sweep / "runs.parquet").to_pylist()


def wait_until(condition, what, timeout=200):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def steps_done(sweep):
    """Steps logged of all runs so far."""
    return sum(path.read_bytes().count(b'{"kind": "train"') for path in (sweep / "runs").glob("*/metrics.jsonl"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_corpus):
    """The table of seven runs by one worker that nobody disturbed."""
    sweep = make_sweep(tmp_path_factory.mktemp("undisturbed"), small_corpus, "s")
    sweep_tool("work", sweep)
    return table(sweep)


def test_a_sweep_whose_workers_are_killed_ends_with_the_table_of_an_undisturbed_one(
    tmp_path, small_corpus, undisturbed
):
    sweep = make_sweep(tmp_path, small_corpus, "s")
    chance = random.Random(0)
    workers = [start_worker(sweep, tmp_path / "log0"), start_worker(sweep, tmp_path / "log1")]
    for number, share in enumerate((0.1, 0.4, 0.7)):
        mark = int(share * 7 * STEPS) + chance.randrange(STEPS // 4)
        wait_until(lambda mark=mark: steps_done(sweep) >= mark, "the workers do not get on")
        victim = workers.pop(chance.randrange(2))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        workers.append(start_worker(sweep, tmp_path / f"log{number + 2}"))
    assert [worker.wait(300) for worker in workers] == [0, 0]

    assert table(sweep) == undisturbed
    plan = SweepPlan.read(sweep)
    assert {state.state for state in survey(sweep, plan)} == {"done"}
    assert list((sweep / "claims").iterdir()) == []
    assert list(sweep.glob("runs/*/checkpoints")) == []
    # nothing ran twice: each step of each run is logged once
    for folder in (sweep / "runs").iterdir():
        logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        steps = [record["step"] for record in logged if record["kind"] == "train"]
        assert steps == sorted(set(steps))


def test_the_table_has_what_the_laws_need(undisturbed, tmp_path):
    assert len(undisturbed) == 7  # 2 m + 1, a cosine's middle is no point
    base, low = undisturbed[0], undisturbed[1]
    assert (base["run"], base["design"], base["phase"], base["seed"]) == ("10.24k/base@0", "10.24k/base", "final", 0)
    assert base["tokens"] == STEPS * TOKENS_PER_STEP
    assert base["flops"] == pytest.approx(6 * base["parameters"] * base["tokens"], rel=0.2)
    assert low["weight/web"] * low["tokens"] == pytest.approx(base["weight/web"] * base["tokens"] / 3, rel=0.03)
    assert low["loss/web"] > base["loss/web"]
    assert len({base["tokenizer"], base["text/web"], base["text/code"], base["text/books"]}) == 4
    assert low["unique/web"] == base["unique/web"] > 0


def test_a_matched_run_reads_its_share_alone_and_its_row_says_how_much(tmp_path, small_corpus, undisturbed):
    options = ["--mixture", "uniform", "--match-repetition", 4 * STEPS * TOKENS_PER_STEP, "data.log_samples=true"]
    sweep = make_sweep(tmp_path, small_corpus, "s", *options)
    sweep_tool("work", sweep, "--quiet")
    (row,) = table(sweep)
    folder = sweep / "runs" / "10.24k.uniform@0"
    lines = (folder / "samples/rank-00000.txt").read_text()
    rows = [line.split() for line in lines.splitlines()]
    for name in ("web", "code", "books"):
        windows = {int(window) for _, _, domain, _, window in rows if domain == name}
        unique = round(undisturbed[0][f"unique/{name}"] / 32 / 4)
        assert row[f"unique/{name}"] == unique * 32
        assert len(windows) == min(unique, sum(domain == name for _, _, domain, _, _ in rows))
    replayed = run_forked([str(ROOT / "tools/replay_stream.py"), str(folder), "--steps", "0:"], dict(os.environ))
    assert replayed.stdout == lines


def test_a_stopped_worker_saves_and_another_goes_on_from_there(tmp_path, small_corpus, undisturbed):
    sweep = make_sweep(tmp_path, small_corpus, "s")
    worker = start_worker(sweep, tmp_path / "log")
    wait_until(lambda: steps_done(sweep) > STEPS // 2, "the worker does not get on")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 75
    shown = sweep_tool("status", sweep).stdout
    assert "stopped" in shown
    broken = sweep_tool("work", sweep, "--workers", 2, code=2, accelerator="abacus")  # they end while they import
    assert "the workers ended with 7 runs left" in broken.stderr
    assert "abacus" in broken.stderr
    sweep_tool("work", sweep, "--workers", 2)
    assert table(sweep) == undisturbed


def test_losses_of_targets_are_columns_of_the_table(tmp_path, corpus_of):
    corpus = corpus_of({"web": 9000, "code": 5000}, targets=("exams",))
    sweep = make_sweep(tmp_path, corpus, "s", "--mixture", "uniform")
    sweep_tool("work", sweep, "--quiet")
    (row,) = table(sweep)
    assert {name for name in row if name.startswith("loss/")} == {"loss/web", "loss/code", "loss/exams"}
    assert 0 < row["loss/exams"] < row["loss/code"]  # its text is like that of web
    assert {name for name in row if name.startswith("weight/")} == {"weight/web", "weight/code"}


def test_one_constant_run_gives_several_points_marked_as_such(tmp_path, small_corpus):
    schedule = {"kind": "constant_with_cooldown", "cooldown_tokens": 10 * TOKENS_PER_STEP}
    sweep = make_sweep(tmp_path, small_corpus, "s", "--mixture", "uniform", "--evaluations", 4, **schedule)
    sweep_tool("work", sweep)
    rows = table(sweep)
    assert [(row["tokens"] / TOKENS_PER_STEP, row["phase"]) for row in rows] == [
        (10, "constant"),
        (20, "constant"),
        (30, "constant"),
        (40, "final"),
    ]
    assert RunTable.read(sweep / "runs.parquet").tokens.tolist() == [40 * TOKENS_PER_STEP]
    assert len(RunTable.read(sweep / "runs.parquet", phase="constant")) == 3


def test_a_run_that_fails_is_said_and_left_out_and_can_be_tried_again(tmp_path, small_corpus):
    sweep = make_sweep(tmp_path, small_corpus, "s", "--mixture", "uniform", "--mixture", "proportional")
    folder = sweep / "runs" / "10.24k.uniform@0"
    folder.mkdir(parents=True)
    (folder / "skipped_steps.json").write_text("{}")  # a run folder somebody damaged
    (folder / "mixture").mkdir()
    (folder / "mixture/journal.jsonl").write_text("nonsense\n")
    said = sweep_tool("work", sweep, code=1).stderr
    assert "failed: 10.24k/uniform@0" in said
    assert "--retry-failed" in said
    assert len(table(sweep)) == 1
    (folder / "mixture/journal.jsonl").unlink()
    (folder / "skipped_steps.json").unlink()
    sweep_tool("work", sweep, "--retry-failed")
    assert len(table(sweep)) == 2


def test_a_point_in_the_middle_of_a_cosine_is_no_point():
    class Run:
        class schedule:
            kind, warmup_tokens, cooldown_tokens = "cosine", 10, 0

    assert phase_of(Run, 50, 100) is None
    assert phase_of(Run, 100, 100) == "final"
    Run.schedule.kind, Run.schedule.cooldown_tokens = "constant_with_cooldown", 30
    assert [phase_of(Run, t, 100) for t in (0, 5, 10, 70, 71, 100)] == [
        None,
        None,
        "constant",
        "constant",
        None,
        "final",
    ]


def test_a_sweep_knows_its_corpus(tmp_path, corpus_of):
    sizes = {"web": 4000, "code": 3000}
    corpus, other = corpus_of(sizes), corpus_of(sizes, seeds={"code": 1})
    sweep = make_sweep(tmp_path, corpus, "s", "--mixture", "uniform")
    sweep_tool("work", sweep)
    (row,) = table(sweep)
    metadata = pyarrow.parquet.read_schema(sweep / "runs.parquet").metadata[b"autoscale_ds.corpus"]
    assert row["corpus"] == CorpusIdentity.from_json(json.loads(metadata)).digest == Corpus(corpus).identity.digest

    kept = corpus.rename(corpus.with_name("kept"))
    shutil.copytree(other, corpus)  # rebuilt in its place, one domain with other text
    for name, options in (("plan", ["--mixture", "proportional", "--tokens", "10240"]), ("work", [])):
        refused = sweep_tool(name, sweep, *options, code=2)
        assert "was planned with: other text in code; put that one back" in refused.stderr
    moved = ["--corpus", kept]
    sweep_tool("plan", sweep, "--mixture", "proportional", "--tokens", "10240", *moved)
    sweep_tool("work", sweep)  # where the plan says now
    assert len(table(sweep)) == 2
    sweep_tool("work", sweep, "--corpus", other, code=2)

    result = sweep / "runs" / SweepPlan.read(sweep).runs[0].folder / "result.json"
    result.write_text(result.read_text().replace(row["corpus"], "0123456789abcdef"))
    assert "is left out: it was trained on another corpus (0123456789abcdef" in sweep_tool("collect", sweep).stderr
    assert len(table(sweep)) == 1

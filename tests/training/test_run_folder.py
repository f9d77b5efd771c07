"""The run folder: who owns it, and starts that are refused or have nothing to do."""

import shutil
import signal
import socket
import time

import pytest
from jobs import Job, losses, read_metrics, settings

from autoscale_ds import config
from autoscale_ds.errors import AutoScaleError, CheckpointError, ConfigError
from autoscale_ds.files import write_json
from autoscale_ds.training.config import FaultConfig, RunConfig
from autoscale_ds.training.faults import FaultGuard
from autoscale_ds.training.run_folder import RunFolder, load_run_config


def test_a_finished_run_started_again_does_nothing_and_ends_well(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    before = (trainer.folder.path / "metrics.jsonl").read_text()
    assert make_trainer().fit() == 0
    assert (trainer.folder.path / "metrics.jsonl").read_text() == before


def test_two_jobs_on_one_run_folder_are_one_too_many(tmp_path):
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.acquire()
    with pytest.raises(ConfigError, match=r"belongs to a job that is running .process \d+ on"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixture.weights": "WEIGHTS", "mixture.poll_seconds": 0}, "'papers'"),  # before the model is built
        ({"start_from": "nowhere"}, "nowhere is no run folder"),  # after it
    ],
)
def test_a_first_start_that_is_refused_leaves_nothing(make_trainer, tmp_path, changes, message):
    (tmp_path / "weights.json").write_text('{"weights": {"web": 0.5, "papers": 0.5}}')
    if "mixture.weights" in changes:
        changes = {**changes, "mixture.weights": str(tmp_path / "weights.json")}
    with pytest.raises(AutoScaleError, match=message):
        make_trainer(folder="runs/first", **changes).fit()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.json"]
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "notes").touch()  # somebody else's
    with pytest.raises(AutoScaleError, match=message):
        make_trainer(folder="runs/first", **changes).fit()
    assert [path.name for path in (tmp_path / "runs" / "first").iterdir()] == ["notes"]


@pytest.mark.parametrize("damage", ["empty", "cut", "cut after a line", "no text", "another value"])
def test_a_damaged_file_of_the_last_start_is_named_with_what_to_do(one_rank, tmp_path, damage):
    folder = RunFolder(tmp_path)
    folder.record(config.build(RunConfig, settings(tmp_path, "corpus")), {"zero_optimization": {"stage": 1}})
    skipped = tmp_path / "skipped_steps.json"
    write_json(skipped, [3, 17])
    for path in (folder.config, tmp_path / "ds_config.json", skipped):
        raw = path.read_bytes()
        lines = raw.splitlines(keepends=True)
        damaged = {
            "empty": b"",
            "cut": raw[: len(raw) // 2],
            "cut after a line": b"".join(lines[:-1]),
            "no text": b"\xff" + raw,
            "another value": b'"text"\n',
        }
        path.write_bytes(damaged[damage])
    for read, path in (
        (folder.last_config, folder.config),
        (lambda: load_run_config(tmp_path), folder.config),
        (lambda: folder.corpus, folder.config),
        (folder.last_ds_config, tmp_path / "ds_config.json"),
        (lambda: FaultGuard(tmp_path, FaultConfig(), one_rank[0]), skipped),
    ):
        with pytest.raises(ConfigError, match=rf"^{path} is damaged.+; (remove it|put the|write into it).*$"):
            read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "seed is 9, but the run .* was started with 3"),
        ({"model.layers": 3}, "model.layers is 3, but the run .* was started with null"),
        ({"mixture.weights": "uniform"}, "mixture.weights is no longer .* tools/swap_weights.py"),
    ],
)
def test_a_restart_that_would_be_another_run_is_refused(make_trainer, change, message):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    with pytest.raises(ConfigError, match=message):
        make_trainer(**change).fit()


def test_a_run_may_go_on_with_its_model_computed_in_another_way(make_trainer):
    trainer = make_trainer(budget_tokens=10 * 256)
    assert trainer.fit() == 0
    trainer.close()
    again = make_trainer(budget_tokens=12 * 256, **{"model.activation_checkpointing": True})
    assert again.fit() == 0
    assert list(losses(again.folder.path)) == list(range(1, 13))


def test_a_journal_that_does_not_continue_the_checkpoints_copy_is_refused(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    journal = trainer.folder.journal
    journal.write_text(journal.read_text().replace("given", "forged"))
    with pytest.raises(CheckpointError, match="does not continue the checkpoint's copy"):
        make_trainer(budget_tokens=40 * 256).fit()


def test_a_domain_that_runs_out_ends_the_run_in_good_order(make_trainer):
    trainer = make_trainer(budget_tokens=500 * 256, **{"data.max_epochs": {"books": 1}})
    assert trainer.fit() == 0
    last = read_metrics(trainer.folder.path, "train")[-1]["step"]
    assert last < 500
    assert (trainer.folder.checkpoints / f"step-{last:08d}").is_dir()
    assert read_metrics(trainer.folder.path, "validation")[-1]["step"] == last


@pytest.mark.job
def test_a_mistake_is_one_line_and_exit_code_2(small_corpus, tmp_path):
    tree = settings(tmp_path / "run", small_corpus, **{"model.preset": "gpt5"})
    job = Job(tmp_path / "a", tree)
    assert job.wait() == [2]
    (line,) = [line for line in job.logs[0].read_text().splitlines() if line.startswith("error:")]
    assert "model.preset is 'gpt5', expected one of gpt2" in line
    assert "Traceback" not in job.logs[0].read_text()
    shutil.rmtree(tmp_path / "a")


def test_a_budget_below_what_is_done_is_said_and_nothing_is_planned_below_zero(make_trainer, caplog):
    caplog.set_level("INFO")
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    caplog.clear()
    assert make_trainer(budget_tokens=20 * 256).fit() == 0
    assert "step 30 is done, which is more than the budget_tokens of 20 steps: nothing is left to train" in caplog.text
    assert " -" not in "".join(line for line in caplog.text.splitlines() if " tokens " in line)


def test_a_warm_up_longer_than_the_budget_is_warned_of(make_trainer, caplog):
    caplog.set_level("INFO")
    make_trainer(**{"schedule.warmup_tokens": 40 * 256})
    assert "schedule.warmup_tokens 10,240 is more than the budget: the learning rate ends at 75% of its" in caplog.text


def test_a_stop_that_comes_before_the_first_step_ends_with_the_requeue_code(make_trainer):
    trainer = make_trainer()
    trainer.stop.requested = True
    assert trainer.fit() == 75
    assert list(trainer.folder.checkpoints.glob("step-*")) == []


@pytest.mark.job
@pytest.mark.parametrize("seconds", [0.7, 4.0])  # while Python imports; while the rank waits for the one that is dead
def test_a_signal_while_a_job_starts_ends_it_with_the_requeue_code(small_corpus, tmp_path, seconds):
    job = Job(tmp_path / "a", settings(tmp_path / "run", small_corpus), ranks=2)
    job.processes[0].kill()
    time.sleep(seconds)
    job.signal(signal.SIGTERM, rank=1)
    assert job.wait(timeout=30) == [-signal.SIGKILL, 75]
    assert "stopped while starting" in job.logs[1].read_text()


def test_a_port_in_use_is_one_line(small_corpus, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        job = Job(tmp_path / "job", settings(tmp_path / "run", small_corpus), port=taken.getsockname()[1])
        assert job.wait() == [2]
    said = job.logs[0].read_text()
    assert "of 127.0.0.1 is in use, by another job perhaps; give another" in said
    assert "Traceback" not in said


def test_the_record_of_a_model_that_never_trained_does_not_survive_it(make_trainer):
    trainer = make_trainer(budget_tokens=10 * 256)
    loop = trainer.restored()
    loop.begin()
    loop._record("validation", {"loss": 99.0, "mean_perplexity": 99.0, "domain_loss": {"web": 99.0}})
    loop.close()
    trainer.close()
    again = make_trainer(budget_tokens=10 * 256, **{"model.layers": 3})
    assert again.fit() == 0
    records = [record for record in read_metrics(again.folder.path, "validation") if record["step"] == 0]
    assert [record["loss"] < 5 for record in records] == [True]

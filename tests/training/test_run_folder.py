import json
import os
import shutil
import signal
import socket
import threading
import time
from pickle import UnpicklingError

import pytest
import torch
from jobs import Job, losses, read_metrics, settings, tool

from autoscale_ds.errors import CheckpointError, ConfigError
from autoscale_ds.training.engine import saved_weights
from autoscale_ds.training.run_folder import RunFolder


def damage(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[: len(data) // 2] = bytes(len(data) // 2)
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "missing", "overwritten with zeros"])
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before_and_says_so(make_trainer, caplog, how):
    trainer = make_trainer(folder="whole")
    assert trainer.fit() == 0
    run = trainer.folder.path
    trainer.folder.release()
    damage(run / "checkpoints/step-00000030/mp_rank_00_model_states.pt", how)
    again = make_trainer(folder="whole", budget_tokens=34 * 256)
    assert again.fit() == 0
    assert "step-00000030 cannot be used" in caplog.text
    assert read_metrics(run, "train")[-1]["step"] == 34


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_page_of_zeros_in_any_file_of_a_checkpoint_is_noticed(make_trainer, caplog, stage):
    ds = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": stage}}
    trainer = make_trainer(ds, budget_tokens=10 * 256)
    assert trainer.fit() == 0
    trainer.close()
    files = sorted((trainer.folder.checkpoints / "step-00000010").glob("*.pt"))
    assert len(files) == (1 if stage == 0 else 2)
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes(4096) + whole[middle + 4096 :])
        caplog.clear()
        again = make_trainer(ds, budget_tokens=10 * 256)
        again._restore()
        assert again.step == 5
        assert "step-00000010 cannot be used" in caplog.text
        again._records.close()
        again.close()
        if len(whole) > 200_000:  # there the page holds numbers, and only its checksum tells
            unchecked = make_trainer(ds, budget_tokens=10 * 256, **{"checkpoints.verify": False})
            unchecked._restore()
            assert unchecked.step == 10
            unchecked._records.close()
            unchecked.close()
        path.write_bytes(whole)


def test_latest_pointing_nowhere_leads_nobody_astray(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    (trainer.folder.checkpoints / "latest").write_text("step-99999999\n")
    again = make_trainer(budget_tokens=34 * 256)
    assert again.fit() == 0
    assert list(losses(again.folder.path)) == list(range(1, 35))


class Hostile:
    """Unpickled, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_checkpoint_that_holds_more_than_data_is_not_opened(make_trainer, caplog, tmp_path, stage):
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}}
    trainer = make_trainer(ds)
    assert trainer.fit() == 0
    trainer.folder.release()
    newest, mark = trainer.folder.checkpoints / "step-00000030", tmp_path / "it ran"
    file = next(newest.glob("*optim_states.pt" if stage else "*model_states.pt"))
    torch.save({"module": Hostile(mark)}, file)
    state = json.loads((newest / "run.json").read_text())
    state["files"][file.name] = file.stat().st_size
    (newest / "run.json").write_text(json.dumps(state))
    with pytest.raises((CheckpointError, UnpicklingError)):
        saved_weights(newest, state["layout"], trainer.model_spec)
    assert make_trainer(ds, budget_tokens=34 * 256).fit() == 0
    assert "step-00000030 cannot be used" in caplog.text
    assert not mark.exists()


def test_a_run_in_bf16_is_continued_from_its_checkpoint(make_trainer, caplog):
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}, "bf16": {"enabled": True}}
    trainer = make_trainer(ds)
    assert trainer.fit() == 0
    trainer.folder.release()
    caplog.set_level("INFO", logger="autoscale_ds")
    assert make_trainer(ds, budget_tokens=34 * 256).fit() == 0
    assert "resuming from" in caplog.text
    assert "step-00000030" in caplog.text


def test_a_run_whose_checkpoints_are_all_broken_stops_instead_of_starting_anew(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    for folder in trainer.folder.checkpoints.glob("step-*"):
        damage(folder / "run.json", "missing")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used"):
        make_trainer().fit()


def test_only_the_newest_checkpoints_are_kept(make_trainer):
    trainer = make_trainer(**{"checkpoints.keep": 2})
    assert trainer.fit() == 0
    names = sorted(path.name for path in trainer.folder.checkpoints.glob("*step*"))
    assert names == ["step-00000025", "step-00000030"]
    assert (trainer.folder.checkpoints / "latest").read_text() == "step-00000030\n"


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


def test_bad_proposals_are_refused_with_their_reason_while_training_goes_on(make_trainer):
    trainer = make_trainer(budget_tokens=60 * 256)
    inbox = trainer.folder.inbox
    (inbox.folder / "broken.json").write_text('{"weights": {,}}')
    inbox.put({"web": 0.5, "code": 0.5, "wiki": 0.0}, "test", "", None)
    inbox.put({"web": 0.2, "code": 0.2, "books": 0.6}, "test", "the good one", 0)
    inbox.put({"web": 0.3, "code": 0.1, "books": 0.6}, "test", "too late", 0)
    os.utime(inbox.folder / "broken.json", (time.time() - 60,) * 2)
    assert trainer.fit() == 0
    (swap,) = read_metrics(trainer.folder.path, "swap")
    assert (swap["reason"], swap["effective_step"]) == ("the good one", 0)
    reasons = sorted(path.read_text() for path in inbox.rejected.glob("*.reason"))
    assert [reason.split(":")[0].split(";")[0].strip() for reason in reasons] == [
        "broken JSON at line 1, column 14",
        "it is older than the current weights",
        "unknown domain 'wiki'",
    ]
    assert len(losses(trainer.folder.path)) == 60


def test_thousands_of_bad_proposals_hold_nothing_up(make_trainer):
    trainer = make_trainer(budget_tokens=60 * 256)
    inbox = trainer.folder.inbox
    for number in range(2000):
        (inbox.folder / f"junk-{number:04d}.json").write_text("[]")
    assert trainer.fit() == 0
    assert len(losses(trainer.folder.path)) == 60
    refused = len(list(inbox.rejected.glob("*.reason")))
    assert refused == 2000  # fifty a step
    assert refused + len(list(inbox.folder.iterdir())) == 2000


def test_a_proposal_that_can_be_neither_read_nor_moved_is_left_alone(make_trainer, caplog):
    if os.geteuid() != 0:
        pytest.skip("only root can take on another user's rights")
    trainer = make_trainer()
    trainer._restore()
    inbox, swap = trainer.folder.inbox, trainer._swap
    foreign = inbox.folder / "foreign.json"
    foreign.write_text("{}")
    foreign.chmod(0)
    for parent in foreign.parents:
        if "pytest" in str(parent):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        assert swap.waiting()
        assert [swap.take_up(), swap.take_up()] == [[], []]
        assert not swap.waiting()
    finally:
        os.seteuid(0)
        trainer._records.close()
    assert caplog.text.count("foreign.json cannot be handled and is left alone") == 1
    assert foreign.exists()


def test_the_swap_tool_waits_for_the_event_or_the_refusal(make_trainer):
    trainer = make_trainer(
        budget_tokens=3000 * 256, **{"checkpoints.every_steps": None, "evaluation.every_steps": None}
    )
    answers = {}

    def propose():
        while not read_metrics(trainer.folder.path, "train"):
            time.sleep(0.05)
        answers["good"] = tool("swap_weights.py", trainer.folder.path, "--set", "web=0.1", "--rescale", "--wait")
        bad = trainer.folder.inbox.put({"web": 1.0, "code": 0.0, "books": 0.0}, "user", "", 0)
        while trainer.folder.inbox.rejection(bad) is None:
            time.sleep(0.05)
        trainer._stop.requested = True

    helper = threading.Thread(target=propose)
    helper.start()
    assert trainer.fit() == 75
    helper.join()
    assert answers["good"].returncode == 0
    assert "web    0.500000 -> 0.100000" in answers["good"].stdout
    assert "version 1, effective from step" in answers["good"].stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "books=0.9"], "sum to 1.7, expected 1 within 1e-06; give the other domains too, or --rescale"),
        (["--set", "boks=0.9"], "unknown domain 'boks'"),
        (["--set", "books"], "not of the form DOMAIN=WEIGHT"),
        (["--set", "books=-1", "--rescale"], "'books' is -1"),
        (["--weights", "none.json"], "cannot read none.json"),
    ],
)
def test_the_swap_tool_refuses_nonsense_in_one_line(make_trainer, arguments, message):
    trainer = make_trainer()
    trainer._restore()
    trainer._records.close()
    done = tool("swap_weights.py", trainer.folder.path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert trainer.folder.inbox.pending() == []


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


def test_a_checkpoint_that_a_killed_job_left_unfinished_is_removed_at_the_next_start(make_trainer):
    trainer = make_trainer()
    leftover = trainer.folder.checkpoints / ".step-00000005.partial"
    leftover.mkdir()
    (leftover / "mp_rank_00_model_states.pt").write_bytes(b"half")
    trainer.folder.release()
    assert make_trainer().fit() == 0
    assert not leftover.exists()


def test_waiting_for_a_swap_of_a_run_without_a_job_ends_at_once(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    began = time.monotonic()
    done = tool("swap_weights.py", trainer.folder.path, "--set", "web=0.1", "--rescale", "--wait")
    assert done.returncode == 2
    assert "no job runs in" in done.stderr
    assert "is taken up when the run goes on" in done.stderr
    assert time.monotonic() - began < 60  # the tool's own limit is 600 s
    assert len(trainer.folder.inbox.pending()) == 1


def test_a_budget_below_what_is_done_is_said_and_nothing_is_planned_below_zero(make_trainer, caplog):
    caplog.set_level("INFO")
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    caplog.clear()
    assert make_trainer(budget_tokens=20 * 256).fit() == 0
    assert "step 30 of 20 is done: nothing is left to train; give a larger budget_tokens to go on" in caplog.text
    assert " -" not in "".join(line for line in caplog.text.splitlines() if " tokens " in line)


def test_a_warm_up_longer_than_the_budget_is_warned_of(make_trainer, caplog):
    caplog.set_level("INFO")
    make_trainer(**{"schedule.warmup_tokens": 40 * 256})
    assert "schedule.warmup_tokens 10,240 is more than the budget: the learning rate ends at 75% of its" in caplog.text


def test_a_stop_that_comes_before_the_first_step_ends_with_the_requeue_code(make_trainer):
    trainer = make_trainer()
    trainer._stop.requested = True
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


def test_a_checkpoint_of_another_version_is_refused_and_no_older_one_is_taken(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    path = trainer.folder.checkpoints / "step-00000030" / "run.json"
    path.write_text(path.read_text().replace('"version": 1,', '"version": 2,', 1))
    with pytest.raises(CheckpointError, match="has version 2, this program reads version 1"):
        make_trainer().fit()


def test_a_checkpoint_with_values_of_wrong_types_falls_back_to_the_one_before(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    path = trainer.folder.checkpoints / "step-00000030" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "stream": "x"}))
    again = make_trainer()
    assert again.fit() == 0
    assert list(losses(again.folder.path)) == list(range(1, 31))


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
    trainer._restore()
    trainer._record("validation", {"loss": 99.0, "mean_perplexity": 99.0, "domain_loss": {"web": 99.0}})
    trainer._records.close()
    trainer.close()
    again = make_trainer(budget_tokens=10 * 256, **{"model.layers": 3})
    assert again.fit() == 0
    records = [record for record in read_metrics(again.folder.path, "validation") if record["step"] == 0]
    assert [record["loss"] < 5 for record in records] == [True]

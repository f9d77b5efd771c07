"""The promise of the whole project, with real processes and real kills."""

import json
import os
import re
import shutil
import signal

import pytest
from jobs import Job, consumed, losses, read_metrics, settings, tool

from autoscale_ds.stream.journal import read_events

pytestmark = pytest.mark.job
STEPS = 120


@pytest.fixture(scope="module")
def interrupted(small_corpus, tmp_path_factory):
    """Two ranks; weights swapped on the way; one rank killed with SIGKILL; the same command again."""
    folder = tmp_path_factory.mktemp("interrupted")
    tree = settings(
        folder / "run",
        small_corpus,
        budget_tokens=STEPS * 8 * 32,
        **{"data.workers": 1, "data.prefetch": 2, "evaluation.every_steps": 40, "checkpoints.every_steps": 15},
    )
    first = Job(folder / "first", tree, ranks=2)
    first.until_step(3)
    swap = tool("swap_weights.py", folder / "run", "--set", "books=0.6", "--rescale", "--reason", "test", "--wait")
    assert swap.returncode == 0, swap.stderr
    (event,) = (record for record in first.metrics("swap"))
    first.until_step(max(event["effective_step"], 20) + 5)
    first.signal(signal.SIGKILL, rank=1)
    codes = first.wait(60)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    killed_at = first.metrics("train")[-1]["step"]
    assert killed_at < STEPS, "the job ended before it was killed"
    second = Job(folder / "second", tree, ranks=2).finish()
    return tree, folder / "run", swap.stdout, killed_at, second


@pytest.fixture(scope="module")
def undisturbed(interrupted, small_corpus, tmp_path_factory):
    """The same run, never killed: the journal it is given beforehand makes the swap happen at the same step."""
    tree, run, *_ = interrupted
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "run" / "mixture").mkdir(parents=True)
    shutil.copy(run / "mixture" / "journal.jsonl", folder / "run" / "mixture")
    Job(folder / "job", {**tree, "run": str(folder / "run")}, ranks=2).finish()
    return folder / "run"


def test_the_loss_sequence_equals_that_of_the_undisturbed_run(interrupted, undisturbed):
    found, expected = losses(interrupted[1]), losses(undisturbed)
    assert list(found) == list(range(1, STEPS + 1))
    assert found == expected  # bit for bit
    validation = [
        [(record["step"], record["domain_loss"]) for record in read_metrics(run, "validation")]
        for run in (interrupted[1], undisturbed)
    ]
    assert validation[0] == validation[1]
    assert [step for step, _ in validation[0]] == [0, 40, 80, 120]


def test_the_samples_consumed_equal_those_of_the_undisturbed_run(interrupted, undisturbed):
    assert consumed(interrupted[1]) == consumed(undisturbed)
    assert len(consumed(undisturbed)) == STEPS * 8


def test_replaying_seed_and_journal_gives_the_samples_that_were_consumed(interrupted):
    replay = tool("replay_stream.py", interrupted[1], "--steps", f"0:{STEPS}")
    assert replay.returncode == 0, replay.stderr
    assert replay.stdout.splitlines() == consumed(interrupted[1])


def test_the_job_resumed_from_the_last_whole_checkpoint_and_said_so(interrupted):
    (resumed,) = re.findall(r"resuming from .*step-(\d+)", interrupted[4].logs[0].read_text())
    assert int(resumed) % 15 == 0
    # Killed while it saved, the checkpoint of the last multiple of 15 does not exist; then it is the one before.
    assert interrupted[3] - 30 < int(resumed) <= interrupted[3]


def test_the_swap_takes_effect_exactly_at_the_declared_step(interrupted):
    _, run, printed, _, _ = interrupted
    before, after = read_events(run / "mixture" / "journal.jsonl")
    assert f"effective from step {after.effective_step}" in printed
    assert "books  0.200000 -> 0.600000" in printed
    assert after.weights["web"] == pytest.approx(0.4 * 0.5 / 0.8)
    lags = dict.fromkeys(before.weights, 0.0)
    for line_step in range(STEPS):
        asked = before.weights if line_step < after.effective_step else after.weights
        lines = [line.split() for line in consumed(run)[line_step * 8 : line_step * 8 + 8]]
        for name, weight in asked.items():
            lags[name] += 8 * weight - sum(fields[2] == name for fields in lines)
        assert max(map(abs, lags.values())) < 1.5  # by the wrong weights it would drift by 3.2 a step


def test_new_weights_wait_for_no_more_than_what_was_read_ahead(interrupted):
    """Seen after some step s, they rule from step s + prefetch on: within prefetch + 1 steps."""
    records = [json.loads(line) for line in (interrupted[1] / "metrics.jsonl").read_text().splitlines()]
    (swap,) = (record for record in records if record["kind"] == "swap")
    assert swap["effective_step"] - swap["step"] <= 2 + 1


def test_weights_and_realised_shares_are_logged(interrupted):
    last = read_metrics(interrupted[1], "train")[-1]
    assert last["weights"]["books"] == pytest.approx(0.6)
    assert sum(last["realised"].values()) == pytest.approx(1)


def test_a_signal_saves_and_ends_with_the_requeue_code_and_the_same_command_continues(small_corpus, tmp_path):
    """One rank by plain python: SIGTERM saves; the same command then ends like an undisturbed run."""
    tree = settings(tmp_path / "run", small_corpus, **{"checkpoints.every_steps": None, "budget_tokens": 200 * 256})
    job = Job(tmp_path / "a", tree)
    job.until_step(5)
    job.signal(signal.SIGTERM)
    assert job.wait() == [75]
    assert "saved; the same command continues" in job.logs[0].read_text()
    stopped_at = int((tmp_path / "run/checkpoints/latest").read_text().split("-")[1])
    assert 5 <= stopped_at < 200
    Job(tmp_path / "b", tree).finish()
    whole = {**tree, "run": str(tmp_path / "whole")}
    Job(tmp_path / "c", whole).finish()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert consumed(tmp_path / "run") == consumed(tmp_path / "whole")
    assert os.path.exists(tmp_path / "whole/checkpoints/step-00000200/run.json")

"""Faults injected into real jobs of two ranks: afterwards nothing is lost but steps since the last checkpoint."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from jobs import Job, consumed, losses, read_metrics, settings, tool

from autoscale_ds.stream.journal import read_events

pytestmark = pytest.mark.job
STEPS = 60


def wait_for(condition, job, timeout=120):
    """Poll as fast as the machine allows."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert job.processes[0].poll() is None, job.logs[0].read_text()[-3000:]
        assert time.monotonic() < deadline, "it never happened"


def undisturbed(folder, tree, disturbed):
    """Return the folder of the same run without faults: the journal it is given makes the same swaps."""
    (folder / "run" / "mixture").mkdir(parents=True)
    shutil.copy(disturbed / "mixture" / "journal.jsonl", folder / "run" / "mixture")
    Job(folder / "job", {**tree, "run": str(folder / "run")}, ranks=2).finish()
    return folder / "run"


def partial_saves(run):
    return list((run / "checkpoints").glob(".step-*.partial"))


@pytest.fixture(scope="module")
def killed(small_corpus, tmp_path_factory):
    """A run whose second rank is killed in the middle of a save, and whose first one in the middle of a swap."""
    folder = tmp_path_factory.mktemp("killed")
    run = folder / "run"
    tree = settings(run, small_corpus, budget_tokens=STEPS * 8 * 32, **{"evaluation.every_steps": None})
    for attempt in range(5):
        saving = Job(folder / f"saving{attempt}", tree, ranks=2)
        wait_for(lambda: partial_saves(run), saving)
        saving.signal(signal.SIGKILL, rank=1)
        codes = saving.wait(60)
        if partial_saves(run):  # else the save was over before the signal arrived
            break
    assert partial_saves(run)
    swapping = Job(folder / "swapping", tree, ranks=2)
    swapping.until_step(max(swapping.last_step(), 0) + 2)
    tool("swap_weights.py", run, "--set", "books=0.6", "--rescale")
    wait_for(lambda: len(read_events(run / "mixture" / "journal.jsonl")) == 2, swapping)
    swapping.signal(signal.SIGKILL, rank=0)
    swapping.wait(60)
    last = Job(folder / "last", tree, ranks=2).finish()
    return tree, run, saving, codes, last


def test_a_run_killed_while_saving_and_while_swapping_equals_the_undisturbed_run(killed, tmp_path):
    tree, run, *_ = killed
    whole = undisturbed(tmp_path, tree, run)
    assert losses(run) == losses(whole)
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert consumed(run) == consumed(whole)
    assert len(read_events(run / "mixture" / "journal.jsonl")) == 2
    assert not list((run / "mixture" / "inbox").iterdir())
    assert not partial_saves(run)


def test_the_rank_that_survives_says_in_one_line_that_another_has_ended(killed):
    _, _, saving, codes, _ = killed
    assert codes == [1, -signal.SIGKILL]
    said = saving.logs[0].read_text()
    assert "another rank of this job has ended" in said
    assert "Traceback" not in said


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, 24 MB large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    """Leave no room on a file system; return what takes it."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 65536) == 65536:
                pass
        except OSError:
            pass
    return ballast


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(small_disk, small_corpus, tmp_path):
    changes = {"evaluation.every_steps": None, "checkpoints.every_steps": 20, "checkpoints.keep": 1}
    tree = settings(small_disk / "run", small_corpus, budget_tokens=300 * 8 * 32, **changes)
    job = Job(tmp_path / "job", tree, ranks=2)
    job.until_step(25)
    ballast = fill(small_disk)
    wait_for(lambda: "training goes on" in job.logs[0].read_text(), job)
    ballast.unlink()
    assert job.wait() == [0, 0], job.logs[0].read_text()[-3000:]
    said = job.logs[0].read_text()
    assert "could not be saved: rank " in said
    assert "kept in memory until it can" in said
    run = small_disk / "run"
    assert list(losses(run)) == list(range(1, 301))
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["latest", "step-00000300"]
    whole = undisturbed(tmp_path / "whole", tree, run)
    assert losses(run) == losses(whole)
    assert consumed(run) == consumed(whole)


def test_a_rank_that_holds_up_the_others_is_named_and_the_job_ends(small_corpus, tmp_path):
    tree = settings(tmp_path / "run", small_corpus, budget_tokens=3000 * 8 * 32, **{"faults.stall_seconds": 4})
    job = Job(tmp_path / "job", tree, ranks=2)
    job.until_step(20)
    job.signal(signal.SIGSTOP, rank=1)
    stopped = job.processes[1].pid
    assert job.processes[0].wait(90) == 1
    job.kill()
    said = job.logs[0].read_text()
    assert f"stalled: rank 1 (host {os.uname().nodename}, process {stopped}) is at step" in said
    assert "the others have waited" in said
    note = json.loads((tmp_path / "run/beats/rank-00001.json").read_text())
    assert note["doing"] in said
    again = Job(tmp_path / "again", {**tree, "budget_tokens": 100 * 8 * 32}, ranks=2).finish()
    assert "resuming from" in again.logs[0].read_text()
    assert [r["step"] for r in read_metrics(tmp_path / "run", "train")][:100] == list(range(1, 101))

"""Claims: one owner a run, whatever processes do, and none for the dead."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from autoscale_ds.errors import ConfigError
from autoscale_ds.sweep import claims as module
from autoscale_ds.sweep.claims import MAX_ATTEMPTS, Claims

HOLD = """
import sys, time
from autoscale_ds.sweep.claims import Claims
claim = Claims(sys.argv[1]).take("run")
print(claim is not None, flush=True)
time.sleep(600)
"""
RACE = """
import sys
from autoscale_ds.sweep.claims import Claims
claims = Claims(sys.argv[1])
sys.stdin.readline()
held = [name for name in map(str, range(300)) if (claim := claims.take(name)) and globals().setdefault(name, claim)]
print(" ".join(held), flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(folder):
    """Another process that holds the claim on ``run``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_run_has_one_owner_until_it_is_released(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    claim = first.take("run")
    assert second.take("run") is None
    assert second.owner("run") == first.worker
    claim.release()
    assert second.owner("run") is None
    assert second.take("run") is not None


def test_of_processes_that_race_for_runs_each_gets_its_own(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    held = [racer.stdout.readline().split() for racer in racers]
    for racer in racers:
        racer.communicate("end\n")
    everything = [name for names in held for name in names]
    assert sorted(everything, key=int) == [str(i) for i in range(300)]


def test_the_run_of_a_killed_worker_is_free_at_once_on_its_machine(tmp_path):
    claims = Claims(tmp_path)
    with holder(tmp_path) as process:
        assert claims.take("run") is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        claim = claims.take("run")
    assert claim is not None
    assert claim.path.name == "run.001"


def test_a_stopped_process_keeps_its_run(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        assert Claims(tmp_path, lease_seconds=0.0).take("run") is None


def test_a_worker_elsewhere_is_dead_when_its_lease_has_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_boot_id", lambda: "another machine")
    claim = Claims(tmp_path).take("run")
    monkeypatch.undo()
    here = Claims(tmp_path, lease_seconds=100.0)
    assert here.take("run") is None
    old = time.time() - 101
    os.utime(claim.path, (old, old))
    claim_here = here.take("run")
    assert claim_here is not None
    assert claim.renew() is False  # the first owner learns that it was replaced
    claim.release()
    assert claim_here.path.exists()  # and does not take the claim away from the second


def test_renewing_keeps_a_claim_elsewhere_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_boot_id", lambda: "another machine")
    claim = Claims(tmp_path).take("run")
    monkeypatch.undo()
    os.utime(claim.path, (1, 1))
    assert claim.renew() is True
    assert Claims(tmp_path, lease_seconds=100.0).take("run") is None


def test_a_run_that_kills_every_worker_is_given_up_until_it_is_forgotten(tmp_path):
    claims = Claims(tmp_path)
    for attempt in range(MAX_ATTEMPTS):
        path = claims.folder / f"run.{attempt:03d}"
        path.write_text(json.dumps({"worker": "w", "boot": module._boot_id()}))  # nobody holds its lock
    assert claims.take("run") is None
    assert claims.given_up("run")
    claims.forget("run")
    assert claims.take("run") is not None


def test_runs_whose_names_look_like_patterns_or_prefixes_are_kept_apart(tmp_path):
    claims = Claims(tmp_path)
    held = [claims.take(name) for name in ("a", "a.b", "[a]", "*")]
    assert None not in held
    assert [claims.owner(name) for name in ("a", "a.b", "[a]", "*", "a*")] == [claims.worker] * 4 + [None]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="needs to write there"):
        Claims(tmp_path)

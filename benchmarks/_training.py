"""Training jobs for the benchmarks: a corpus of random tokens, a configuration, one real run of launch/train.py."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from autoscale_ds.corpus import IndexedWriter, Manifest, ShardInfo, TokenizerInfo
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.models import ModelSpec
from autoscale_ds.stream.proposals import Inbox
from autoscale_ds.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]


def write_random_corpus(folder: Path, num_domains: int, tokens_per_domain: int, vocabulary: int) -> Path:
    """Write domains of random tokens in documents of 500, training split only."""
    folder.mkdir(parents=True)
    domains = {}
    for index in range(num_domains):
        name = f"d{index}"
        lengths = np.full(tokens_per_domain // 500, 500)
        tokens = np.random.default_rng(index).integers(0, vocabulary, int(lengths.sum())).astype("<u2")
        with IndexedWriter(folder / name, np.dtype("<u2")) as writer:
            writer.add_documents(tokens, lengths)
        domains[name] = {"train": (ShardInfo(name, len(tokens), len(lengths), 0, "", ""),)}
    Manifest(TokenizerInfo("random", vocabulary, 0), domains).save(folder)
    return folder


def random_model(spec: ModelSpec, device: torch.device) -> nn.Module:
    """Return a model with random weights drawn on the device: at once, where the run's own are drawn on the CPU."""
    with device:
        model = spec.build()
    for matrix in (parameter for parameter in model.parameters() if parameter.ndim > 1):
        nn.init.normal_(matrix, std=0.02)
    return model


def start(
    tree: dict[str, Any], ds: dict[str, Any], folder: Path, ranks: int = 1, threads: int | None = None
) -> subprocess.Popen:
    """Start ``launch/train.py``: plain on one rank, through torchrun on several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(json.dumps(ds))
    command = [*launcher(ranks), str(ROOT / "launch/train.py"), "--quiet", "--config", str(folder / "run.yaml")]
    command += ["--deepspeed_config", str(folder / "ds.json")]
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment(ranks, threads))


def launcher(ranks: int) -> list[str]:
    """Return the command that starts a script on so many ranks of this machine."""
    if ranks == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={free_port()}"]


def environment(ranks: int, threads: int | None = None) -> dict[str, str]:
    """Return the environment of a job: not that of one we are in; cores shared out, or ``threads`` a rank."""
    found = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    if threads is not None or ranks > 1:
        found["OMP_NUM_THREADS"] = str(threads or max((os.cpu_count() or ranks) // ranks, 1))
    return found


def run_script(script: Path, arguments: list[str], ranks: int = 1, threads: int | None = None, **variables: str) -> str:
    """Run a script of this folder on some ranks and return what it printed; end the benchmark when it fails."""
    command = [*launcher(ranks), str(script), *arguments]
    env = environment(ranks, threads) | variables
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise JobFailed(f"{script.name} failed:\n{done.stderr[-3000:]}")
    return done.stdout


class JobFailed(SystemExit):
    """A job of a benchmark failed; ends the script with the end of its log, unless somebody knows better."""


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a job; stop the benchmark with its log when it fails."""
    if process.wait():
        raise JobFailed(f"the training job failed:\n{(folder / 'log').read_text(encoding='utf-8')[-3000:]}")


def measure_trainer(
    tree: dict[str, Any],
    ds: dict[str, Any],
    folder: Path,
    warm_up: int,
    ranks: int = 1,
    threads: int | None = None,
) -> float:
    """Return tokens/s of a run of launch/train.py that only trains: the median step after the warm-up."""
    only_trains = {
        "run": str(folder / "run"),
        "evaluation": {"every_steps": None},
        "checkpoints": {"every_steps": None},
        "logging": {"every_steps": 1},
    }
    job, metrics = start({**tree, **only_trains}, ds, folder, ranks, threads), folder / "run" / "metrics.jsonl"
    steps = tree["budget_tokens"] // tree["data"]["global_batch"] // tree["data"]["sequence_length"]
    while job.poll() is None and (ranks > 1 or len(_train_records(metrics)) < steps):
        time.sleep(0.2)
    if job.poll() is None:  # about to save: 12 GB of GPT-2 Large that nobody wants
        job.kill()
        job.wait()
    else:
        finish(job, folder)
    records = _train_records(metrics)
    tokens = tree["data"]["global_batch"] * tree["data"]["sequence_length"]
    return tokens / statistics.median(record["step_seconds"] for record in records[warm_up:])


def _train_records(metrics: Path) -> list[dict[str, Any]]:
    return read_metrics(metrics, "train") if metrics.exists() else []


def run_with_swaps(
    tree: dict[str, Any], ds: dict[str, Any], folder: Path, warm_up: int, every: int, domains: list[str]
) -> list[dict[str, Any]]:
    """Train, proposing random weights every ``every`` steps; return the run's metrics records."""
    job = start(tree, ds, folder)
    run = Path(tree["run"])
    metrics, inbox, proposed = run / "metrics.jsonl", Inbox(run), 0
    while job.poll() is None:
        records = _train_records(metrics)
        if records and records[-1]["step"] >= warm_up + every * proposed:
            amounts = np.random.default_rng(proposed).dirichlet(np.ones(len(domains)))
            weights = DomainWeights.normalised(dict(zip(domains, amounts.tolist(), strict=True)))
            inbox.put(weights, "benchmark", f"swap {proposed}", None)
            proposed += 1
        time.sleep(0.01)
    finish(job, folder)
    return read_metrics(metrics)


def swap_times(records: list[dict[str, Any]], warm_up: int) -> tuple[list[float], list[float]]:
    """Return the seconds of steps that had to take up new weights, and of all others.

    A swap is taken up after the step it is logged at; its time falls into the step that follows.
    """
    around = {record["step"] + 1 for record in records if record["kind"] == "swap"}
    seconds = {r["step"]: r["step_seconds"] for r in records if r["kind"] == "train" and r["step"] > warm_up}
    with_swap = [value for step, value in seconds.items() if step in around]
    return with_swap, [value for step, value in seconds.items() if step not in around]

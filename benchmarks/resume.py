"""The promise, kept on real text: a run swapped, killed and resumed equals an undisturbed one.

    python tools/preprocess_domains.py --output corpora/seven --tokenizer ../shared/data/gpt2_bpe \
        --validation-fraction 0.01 --domain web=... --domain books=...
    python benchmarks/resume.py corpora/seven       prints a table, writes benchmarks/results/resume.json

Run A: two CPU ranks, ZeRO-1; new weights half-way; one rank killed with SIGKILL while training; the same command again.
Run B: the same run, given A's journal beforehand and left alone. Compared: every loss of every step and domain, and
every sample of every slot.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any

from autoscale_ds.corpus import Corpus
from autoscale_ds.training.metrics import read_metrics
from benchmarks._machine import describe, write_result
from benchmarks._training import ROOT, finish, start

T, GLOBAL_BATCH, RANKS = 256, 16, 2
DS = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 1}}


def settings(run: Path, corpus: Path, steps: int) -> dict[str, Any]:
    """Return the configuration of both runs."""
    return {
        "run": str(run),
        "budget_tokens": steps * T * GLOBAL_BATCH,
        "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": GLOBAL_BATCH, "log_samples": True},
        "model": {"preset": "micro"},
        "optimizer": {"learning_rate": 1e-3},
        "schedule": {"warmup_tokens": 20 * T * GLOBAL_BATCH},
        "evaluation": {"every_steps": steps // 3, "windows_per_domain": 16},
        "checkpoints": {"every_steps": 20},
        "logging": {"every_steps": 1},
    }


def wait_for_step(job: subprocess.Popen, run: Path, step: int) -> None:
    """Return when the run has logged ``step``."""
    while not (done := _steps(run)) or done[-1] < step:
        if job.poll() is not None:
            raise SystemExit(f"the job ended at step {done[-1] if done else 0} before it reached {step}")
        time.sleep(0.05)


def interrupted(folder: Path, corpus: Path, steps: int) -> dict[str, Any]:
    """Do run A and return where it was swapped, killed and resumed."""
    run, tree = folder / "a", settings(folder / "a", corpus, steps)
    job = start(tree, DS, folder / "job", RANKS)
    wait_for_step(job, run, steps // 2)
    swap = [sys.executable, str(ROOT / "tools/swap_weights.py"), str(run), "--set", "books=0.4", "--rescale", "--wait"]
    print(subprocess.run(swap, check=True, capture_output=True, text=True).stdout)
    wait_for_step(job, run, steps * 2 // 3)
    _kill_one_rank(job)
    job.wait()
    killed_at, resumed_from = _steps(run)[-1], (run / "checkpoints/latest").read_text(encoding="utf-8").strip()
    print(f"one rank killed after step {killed_at}; resuming from {resumed_from}")
    finish(start(tree, DS, folder / "job", RANKS), folder / "job")
    (event,) = read_metrics(run / "metrics.jsonl", "swap")
    return {"swap_step": event["effective_step"], "killed_after_step": killed_at, "resumed_from": resumed_from}


def undisturbed(folder: Path, corpus: Path, steps: int) -> None:
    """Do run B."""
    (folder / "b/mixture").mkdir(parents=True)
    shutil.copy(folder / "a/mixture/journal.jsonl", folder / "b/mixture")
    finish(start(settings(folder / "b", corpus, steps), DS, folder / "job", RANKS), folder / "job")


def losses(run: Path) -> list[tuple[int, float, dict[str, float]]]:
    """Return step, loss and losses by domain of every training and validation record."""
    records = [r for r in read_metrics(run / "metrics.jsonl") if r["kind"] != "swap"]
    return [(r["step"], r["loss"], r["domain_loss"]) for r in records]


def samples(run: Path) -> list[tuple[Any, ...]]:
    """Return (step, slot) and what was read there, of all ranks."""
    lines = [line.split() for path in sorted((run / "samples").iterdir()) for line in path.read_text().splitlines()]
    return sorted((int(step), int(slot), *rest) for step, slot, *rest in lines)


def _steps(run: Path) -> list[int]:
    metrics = run / "metrics.jsonl"
    return [record["step"] for record in read_metrics(metrics, "train")] if metrics.exists() else []


def _kill_one_rank(job: subprocess.Popen) -> None:
    """Kill the last process of the job that runs train.py; the launcher is another."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text(encoding="ascii").split()
    subprocess.run(["kill", f"-{int(signal.SIGKILL)}", children[-1]], check=True)


def main() -> None:
    """Do both runs, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="a corpus folder with a domain named books")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, corpus = Path(temporary), arguments.corpus.resolve()
        result = interrupted(folder, corpus, arguments.steps)
        undisturbed(folder, corpus, arguments.steps)
        a, b = losses(folder / "a"), losses(folder / "b")
        same_samples = samples(folder / "a") == samples(folder / "b")
        validation = read_metrics(folder / "a/metrics.jsonl", "validation")
    difference = max(abs(x[1] - y[1]) for x, y in zip(a, b, strict=True))
    opened = Corpus(corpus)
    result |= {
        "machine": describe("torch", "deepspeed"),
        "tokens": {name: sum(shard.tokens for shard in opened.shards(name)) for name in opened.domains},
        "steps": arguments.steps,
        "records_compared": len(a),
        "losses_identical": a == b,
        "largest_loss_difference": difference,
        "samples_identical": same_samples,
        "validation": [{key: r[key] for key in ("step", "loss", "perplexity", "bits_per_byte")} for r in validation],
    }
    print(f"{len(a)} records: losses identical: {a == b}, largest difference {difference:g}")
    print(f"{arguments.steps * GLOBAL_BATCH} samples identical: {same_samples}")
    print(f"\n{'validation loss':<18}" + "".join(f"{'step ' + str(r['step']):>11}" for r in validation))
    for name in validation[0]["domain_loss"]:
        print(f"{name:<18}" + "".join(f"{r['domain_loss'][name]:>11.4f}" for r in validation))
    print(f"written: {write_result('resume', result)}")
    if not (same_samples and a == b):
        raise SystemExit("the runs differ")


if __name__ == "__main__":
    main()

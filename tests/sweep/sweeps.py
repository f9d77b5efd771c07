"""Small sweeps for tests, through launch/sweep.py as its users run it."""

import json
import os
from pathlib import Path

import numpy as np
import yaml
from forked import ForkedProcess, run_forked

from autoscale_ds.files import write_json
from autoscale_ds.sweep.plan import SweepPlan, run_folder

ROOT = Path(__file__).parents[2]
TOKENS_PER_STEP = 8 * 32


def write_configs(folder, corpus, **schedule):
    """Write a run configuration of the nano model and a DeepSpeed file; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "run": "SWEEP",
        "budget_tokens": 40 * TOKENS_PER_STEP,
        "data": {"corpus": str(corpus), "sequence_length": 32, "global_batch": 8},
        "model": {"preset": "nano"},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_tokens": 4 * TOKENS_PER_STEP, **schedule},
        "evaluation": {"windows_per_domain": 4},
        "checkpoints": {"every_steps": 7, "keep": 2},
        "logging": {"every_steps": 1, "tensorboard": False},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(
        json.dumps({"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 1}})
    )
    return folder / "run.yaml", folder / "ds.json"


def answer(sweep, losses_of, noise=0.0, only=None):
    """Write what a world gives, ``losses_of(weights, tokens)``, for every planned run that has no result."""
    plan, rng = SweepPlan.read(sweep), np.random.default_rng(0)
    for run in plan.runs[:only]:
        folder = run_folder(sweep, run)
        if (folder / "result.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        losses = {
            name: value + noise * rng.standard_normal() for name, value in losses_of(run.weights, run.tokens).items()
        }
        points = [{"tokens": run.tokens, "phase": "final", "loss": losses}]
        result = {"run": run.run, "parameters": 1e5, "flops_per_token": 6e5, "seconds": 1.0, "points": points}
        write_json(folder / "result.json", {**result, "unique": dict.fromkeys(run.weights, 1e6)})


def command(name, *arguments):
    return [str(ROOT / "launch/sweep.py"), name, *map(str, arguments)]


def sweep_tool(name, *arguments, code=0, accelerator="cpu"):
    """Run one command of launch/sweep.py to its end and return it."""
    env = os.environ | {"DS_ACCELERATOR": accelerator, "OMP_NUM_THREADS": "1"}
    done = run_forked(command(name, *arguments), env, timeout=400)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def start_worker(sweep, log):
    """Start one worker process."""
    env = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return ForkedProcess(command("work", sweep, "--quiet"), env, log)

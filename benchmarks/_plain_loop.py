"""The peer of the training benchmarks: a plain PyTorch loop over the same model, alone or under DDP.

It knows nothing of domains, checkpoints, swaps or logs, and gets its batches as tensors ready in memory. In bf16 it
uses autocast, as nanoGPT does. Run as ``_plain_loop.py SETTINGS.json``, by torchrun for several ranks; the last line
of rank 0 is a list of seconds a step.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib
import dataclasses
import json
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autoscale_ds import cli
from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.training.engine import parameter_groups
from benchmarks._training import random_model, run_script


@dataclass(frozen=True)
class PlainRun:
    """What the loop trains.

    Attributes
    ----------
    shape : dict
        Arguments of ``GPT2Config``.
    micro, accumulation, steps : int
        Samples a forward pass, forward passes a step, steps; on every rank.
    device : str
        ``cpu`` or ``cuda``.
    bf16, compile : bool
    """

    shape: dict[str, Any]
    micro: int
    accumulation: int
    steps: int
    device: str = "cpu"
    bf16: bool = False
    compile: bool = False

    def tokens_per_step(self, ranks: int = 1) -> int:
        """Return tokens a step over all ranks."""
        return int(self.micro * self.accumulation * self.shape["context"]) * ranks


def measure(run: PlainRun, folder: Path, warm_up: int, ranks: int = 1, threads: int | None = None) -> float:
    """Return tokens/s of a run in processes of its own: the median step after the warm-up."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(dataclasses.asdict(run)))
    printed = run_script(Path(__file__), [str(folder / "settings.json")], ranks, threads)
    return run.tokens_per_step(ranks) / statistics.median(json.loads(printed.splitlines()[-1])[warm_up:])


def train(run: PlainRun) -> list[float]:
    """Train and return the seconds of every step."""
    device = torch.device(run.device)
    config = GPT2Config(**run.shape)
    model: nn.Module = random_model(config, device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, 0.01), lr=2e-4, betas=(0.9, 0.95), fused=device.type == "cuda"
    )
    parameters = list(model.parameters())
    if run.compile:
        config.compile_layers(model)
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if distributed:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        model = nn.parallel.DistributedDataParallel(model)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=run.bf16)
    tokens = torch.randint(config.vocabulary, (run.micro * run.accumulation, config.context + 1)).to(device)
    seconds = []
    for _ in range(run.steps):
        began = time.perf_counter()
        parts = tokens.split(run.micro)
        for index, micro in enumerate(parts):
            last = index == len(parts) - 1
            waits = model.no_sync() if distributed and not last else contextlib.nullcontext()  # type: ignore[operator]
            with waits:
                with autocast:
                    loss = model(micro[:, :-1], micro[:, 1:]).mean()
                (loss / run.accumulation).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    if distributed:
        dist.destroy_process_group()
    return seconds


def main() -> None:
    """Train by the settings given and print."""
    found = train(PlainRun(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found))


if __name__ == "__main__":
    cli.run(main, tear_down=False)

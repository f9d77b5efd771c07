"""Seconds that a step spends on losses by domain: adding per-token losses up, one reduction, one wait for the device.

usage: _domain_loss_job.py DEVICE MICRO SEQUENCE_LENGTH ACCUMULATION DOMAINS
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import statistics
import time

import torch

from autoscale_ds import cli
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.engine import TokenLosses, start_distributed, stop_distributed
from autoscale_ds.training.losses import LossTally


def main() -> None:
    """Measure the median of many steps and print it."""
    micro, length, accumulation, num_domains = map(int, sys.argv[2:])
    device = start_distributed(ranks_from_environment())
    if device.type != sys.argv[1]:
        raise SystemExit(f"the device is {device.type}, expected {sys.argv[1]}")
    tally = LossTally(num_domains, device)
    losses = TokenLosses(torch.rand(micro, length, device=device), None)
    domains = torch.randint(num_domains, (micro,), device=device)
    seconds = []
    for _ in range(100):
        began = time.perf_counter()
        for _ in range(accumulation):
            tally.add(losses, domains)
        tally.reduce(stop=False, swap_due=False)  # ends by copying the sums to the host
        seconds.append(time.perf_counter() - began)
    stop_distributed()
    print(statistics.median(seconds[10:]))


if __name__ == "__main__":
    cli.run(main, tear_down=False)

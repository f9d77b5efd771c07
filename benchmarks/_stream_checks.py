"""Checks of planned samples that share no code with the planner; a failed one ends the benchmark."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict

import numpy as np

from autoscale_ds.stream.permutation import key_from
from autoscale_ds.stream.planner import MixturePlanner, StepPlan

SMALL = 2_000  # windows: a domain of which whole epochs are looked at


def check(holds: bool, what: str) -> None:
    """End the benchmark unless a claim holds."""
    if not holds:
        raise SystemExit(f"FAILED: {what}")


def digest(plans: list[StepPlan]) -> str:
    """Return a fingerprint of plans, slot by slot."""
    found = hashlib.sha256()
    for plan in plans:
        found.update(b"".join(part.tobytes() for part in (plan.domains, plan.epochs, plan.windows)))
    return found.hexdigest()


def reference_window(seed: int, name: str, ordinal: int, num_windows: int) -> tuple[int, int]:
    """Return epoch and window of a domain's n-th sample, in Python's unlimited integers reduced to 64 bits."""
    full, golden, multiplier, stride = 2**64, 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F
    epoch, point = divmod(ordinal, num_windows)
    key = (int(key_from(seed, "domain", name)) + epoch * golden) % full
    for _ in range(2):
        key = (key ^ key >> 32) * multiplier % full
    key ^= key >> 32

    def fold(half: int, its_key: int) -> int:
        word = (half ^ its_key) * multiplier % full
        return (word ^ word >> 32) * multiplier % full >> 32

    a = math.isqrt(num_windows - 1) + 1
    b = -(-num_windows // a)
    while True:
        left, right = divmod(point, b)
        for pair in range(3):
            left = (left + fold(right, (key + pair * stride) % full)) % a
            right = (right + fold(left, (key + pair * stride + golden) % full)) % b
        point = left * b + right
        if point < num_windows:
            return epoch, point


def check_windows(planner: MixturePlanner, before: np.ndarray, plans: list[StepPlan]) -> dict[str, int]:
    """Compare the samples of consecutive steps with the reference, and look for whole epochs of small domains.

    ``before`` is how many samples each domain had given when the first of the steps began. Samples of a domain and
    step come shuffled, so they are compared as sets: ordinal by ordinal from the reference.
    """
    seen: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for plan in plans:
        for row in zip(plan.domains.tolist(), plan.epochs.tolist(), plan.windows.tolist(), strict=True):
            seen[row[0]].append(row)
    compared = epochs = 0
    for domain, rows in seen.items():
        name, first = planner.names[domain], int(before[domain])
        size = planner.spec.num_windows[name]
        visits = {(epoch, window) for _, epoch, window in rows}
        check(len(visits) == len(rows), f"{name} gives no window twice in an epoch")
        if domain % 50 == 0:  # the reference takes 10 microseconds a sample
            expected = {reference_window(planner.spec.seed, name, first + i, size) for i in range(len(rows))}
            check(visits == expected, f"{name} gives the windows that exact arithmetic gives")
            compared += len(rows)
        if size <= SMALL:
            whole = range(-(-first // size), (first + len(rows)) // size)  # epochs begun and ended in these steps
            for epoch in whole:
                found = sorted(window for its_epoch, window in visits if its_epoch == epoch)
                check(found == list(range(size)), f"{name} gives every window of epoch {epoch} once")
            epochs += len(whole)
    return {"samples_compared": compared, "whole_epochs": epochs}

"""Runs made from known curves: a table of scores whose truth is known."""

from __future__ import annotations

import csv

import numpy as np

from autoscale_ds.scores import ScoreTable

SIZES = (1e8, 2e8, 4e8, 8e8)
LENGTHS = (10.0, 20.0, 50.0, 100.0)
LARGE = 3.2e9
# Of each task: level of bits, their amounts by size and by tokens, and the score's low end, steepness and middle.
TASKS = {
    "easy": (0.4, 0.35, 0.3, 0.25, 5.0, 0.9),
    "hard": (0.6, 0.3, 0.4, 0.25, 4.0, 1.0),
    "pairs": (0.5, 0.3, 0.2, 0.5, 4.0, 0.9),
}


def bits(task: str, parameters, tokens):
    level, size, length, *_ = TASKS[task]
    return level + size * (np.asarray(parameters) / 1e9) ** -0.35 + length * (np.asarray(tokens) / 1e10) ** -0.3


def score(task: str, bits):
    *_, low, steepness, middle = TASKS[task]
    return low + (0.97 - low) / (1 + np.exp(steepness * (bits - middle)))


def ladder(sizes=SIZES, lengths=LENGTHS, *, bits_noise=0.008, score_noise=0.006, seed=0, lost=False) -> ScoreTable:
    """Runs of every size and length with 15 checkpoints; with ``lost``, also a task whose score follows nothing."""
    rng = np.random.default_rng(seed)
    runs, parameters, tokens, of_run = [], [], [], []
    for size in sizes:
        for length in lengths:
            runs += [f"{size:g}x{length:g}"] * 15
            parameters += [size] * 15
            tokens += list(size * length * np.arange(1, 16) / 15)
            of_run += [rng.standard_normal(2)] * 15
    size, length, shared = np.array(parameters), np.array(tokens), np.array(of_run)
    columns = []
    for task in TASKS:
        x = bits(task, size, length) * np.exp(bits_noise * shared[:, 0])
        columns.append((x, score(task, x) + score_noise * (shared[:, 1] + rng.standard_normal(len(x))) / 2**0.5))
    tasks = tuple(TASKS)
    if lost:
        columns.append((columns[0][0], 0.5 + 0.05 * rng.standard_normal(len(size))))
        tasks += ("lost",)
    x, y = (np.stack([column[i] for column in columns], axis=1) for i in (0, 1))
    return ScoreTable(tuple(runs), size, length, tasks, x, np.clip(y, 0.0, 1.0))


def write(table: ScoreTable, path) -> None:
    """Write the table as CSV."""
    names = [f"{kind}/{task}" for kind in ("bits", "score") for task in table.tasks]
    with open(path, "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["run", "parameters", "tokens", *names])
        for row in zip(table.runs, table.parameters, table.tokens, table.bits, table.scores, strict=True):
            run, parameters, tokens, bits, scores = row
            lines.writerow([run, parameters, tokens, *bits, *scores])

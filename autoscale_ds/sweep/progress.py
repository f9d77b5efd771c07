"""How far a sweep is: every run's state, and when the rest will be done."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from autoscale_ds.files import read_json
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.sweep.claims import Claims
from autoscale_ds.sweep.plan import PlannedRun, SweepPlan, run_folder
from autoscale_ds.sweep.results import FAILED_FILE, RESULT_FILE

State = Literal["done", "running", "stopped", "waiting", "failed"]
# The end of metrics.jsonl that surely holds a whole record, also with hundreds of domains.
TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class RunState:
    """State of one run.

    Attributes
    ----------
    run : PlannedRun
        The run this is the state of.
    state : str
        ``stopped`` was begun and has no living owner; ``failed`` will not be tried again by itself.
    tokens : float
        Trained so far.
    tokens_per_second : float
        Of its last logged step; 0 unless running.
    note : str
        Its owner, or why it failed.
    """

    run: PlannedRun
    state: State
    tokens: float
    tokens_per_second: float = 0.0
    note: str = ""


def survey(sweep: str | Path, plan: SweepPlan) -> list[RunState]:
    """Return the state of every planned run, in the plan's order."""
    claims = Claims(sweep)
    return [_state(Path(sweep), run, claims) for run in plan.runs]


def seconds_left(states: Sequence[RunState]) -> float | None:
    """Return how long the rest will take at the present speed of all workers; None when no worker is running."""
    speed = sum(each.tokens_per_second for each in states)
    left = sum(each.run.tokens - each.tokens for each in states if each.state != "failed")
    return left / speed if speed > 0 else None


def in_one_line(states: Sequence[RunState]) -> str:
    """Return counts by state, speed and time left in words."""
    counts = Counter(state.state for state in states)
    text = ", ".join(f"{counts[name]} {name}" for name in get_args(State) if counts[name])
    speed, left = sum(each.tokens_per_second for each in states), seconds_left(states)
    return text + (f"  {speed:,.0f} tokens/s, {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours.

    >>> [duration(45), duration(700), duration(12000)]
    ['45 s', '12 min', '3 h 20 min']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def forget_failures(sweep: str | Path, plan: SweepPlan) -> None:
    """Remove the marks of failed runs, so that workers try them again."""
    claims = Claims(sweep)
    for state in survey(sweep, plan):
        if state.state == "failed":
            (run_folder(sweep, state.run) / FAILED_FILE).unlink(missing_ok=True)
            claims.forget(state.run.folder)


def _state(sweep: Path, run: PlannedRun, claims: Claims) -> RunState:
    folder = run_folder(sweep, run)
    if (folder / RESULT_FILE).exists():
        return RunState(run, "done", run.tokens)
    if (folder / FAILED_FILE).exists():
        failure = read_json(folder / FAILED_FILE, dict, "remove it, then the run is tried again")
        return RunState(run, "failed", 0.0, note=str(failure.get("reason")))
    last = _last_train_record(RunPaths(folder).metrics)
    tokens = min(float(last.get("tokens", 0.0)), run.tokens)
    owner = claims.owner(run.folder)
    if owner is not None:
        return RunState(run, "running", tokens, float(last.get("tokens_per_second") or 0.0), owner)
    if claims.given_up(run.folder):
        return RunState(run, "failed", tokens, note="every worker that tried it died; look at SWEEP/logs")
    return RunState(run, "stopped" if last else "waiting", tokens)


def _last_train_record(metrics: Path) -> dict[str, Any]:
    """Return the newest whole train record, empty when there is none; reads the file's end only."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        if line.startswith(b'{"kind": "train"'):
            return dict(json.loads(line))
    return {}

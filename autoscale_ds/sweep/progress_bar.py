"""The progress of a whole sweep on a terminal, whoever trains its runs."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from autoscale_ds.sweep.plan import SweepPlan
from autoscale_ds.sweep.progress import in_one_line, survey


class SweepBar:
    """One bar over all tokens of the sweep, whoever trains them, with the time left."""

    def __init__(self, sweep: Path, console: Console, quiet: bool) -> None:
        self._sweep = sweep
        self._console = console
        self._last = 0.0
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=quiet,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._quiet = quiet

    def refresh(self) -> None:
        """Look at the sweep again, at most every two seconds (a minute where there is no terminal)."""
        pause = 2.0 if self._console.is_terminal else 60.0
        if self._quiet or time.monotonic() - self._last < pause:
            return
        self._last = time.monotonic()
        states = survey(self._sweep, SweepPlan.read(self._sweep))
        total, done = sum(s.run.tokens for s in states), sum(s.tokens for s in states)
        self._bar.update(self._task, completed=done / total, description=in_one_line(states))
        if not self._console.is_terminal:
            self._console.print(f"{done / total:6.1%}  {in_one_line(states)}")

    def __enter__(self) -> SweepBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._last = 0.0
        self.refresh()
        self._bar.stop()

"""Builds the page: tells sweeps from runs, collects their sections, and writes the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from autoscale_ds.errors import ReportError
from autoscale_ds.report import group_page, page, run_page, style, sweep_page
from autoscale_ds.report.groups import group_runs
from autoscale_ds.report.page import Html
from autoscale_ds.report.reading import Run, read_run
from autoscale_ds.report.style import Image
from autoscale_ds.report.sweep_reading import is_sweep, read_sweep

Sections = list[tuple[str, Html]]
# More arguments are not repeated under the heading; the tables name them.
MOST_PATHS = 3


def build(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    title: str | None = None,
    *,
    named: Mapping[str, Sequence[str | Path]] | None = None,
    target: float | None = None,
    corpus: str | Path | None = None,
) -> Path:
    """Write the figures and the page about runs and sweeps, and return the path of the page.

    Parameters
    ----------
    paths : sequence of path
        Run folders, sweep folders and run tables. Runs are compared when there are several.
    out : path, optional
        Folder to write; ``report`` inside the only argument by default, else ``report`` here.
    named : mapping of str to sequence of path, optional
        Groups of runs by name, compared before those of ``paths``; a run in both counts here only.
    target : float, optional
        Mean perplexity to reach when runs are compared; the final one of the first group by default.
    corpus : path, optional
        Where the corpus of the runs lies now, if not where they were told.

    Raises
    ------
    AutoScaleError
        For an argument that is neither run nor sweep, or a folder that cannot be written.
    """
    style.require()
    named = named or {}
    every = [*(path for group in named.values() for path in group), *paths]
    if not every:
        raise ReportError("nothing to report; name at least one run folder, sweep folder or run table")
    if target is not None and not 0 < target < math.inf:
        raise ReportError(f"the target perplexity is {target:g}, expected a positive number")
    sweeps = [path for path in paths if is_sweep(path)]
    runs = [path for path in paths if path not in sweeps]
    reports = [_sweep(path, i, len(sweeps)) for i, path in enumerate(sweeps)]
    reports += [_runs(runs, named, target, corpus)] if runs or named else []
    parts = [section for sections, _, _ in reports for section in sections]
    images = [image for _, drawn, _ in reports for image in drawn]
    heading = "; ".join(name for *_, name in reports)
    where = ", ".join(map(str, every)) if len(every) <= MOST_PATHS else f"{len(every)} folders"
    html = page.page(title or heading, where, parts, _footer())
    return page.write(out or _default_folder(every), html, images)


def _sweep(path: str | Path, index: int, count: int) -> tuple[Sections, list[Image], str]:
    """Return sections, figures and a heading of a sweep; names tell it from the other sweeps of the page."""
    sweep = read_sweep(path)
    heading = f"Sweep {sweep.path.resolve().stem}"
    sections, images = sweep_page.sections(sweep)
    if count == 1:
        return sections, images, heading
    named = [(f"{heading}: {title}", html) for title, html in sections]
    return named, [replace(image, name=f"sweep{index + 1}_{image.name}") for image in images], heading


def _runs(
    paths: Sequence[str | Path],
    named: Mapping[str, Sequence[str | Path]],
    target: float | None,
    corpus: str | Path | None,
) -> tuple[Sections, list[Image], str]:
    """Return sections, figures and a heading: of one run in detail, of several side by side."""
    groups = {name: [read_run(path, corpus) for path in members] for name, members in named.items()}
    taken = {run.path.resolve() for members in groups.values() for run in members}
    runs: dict[Path, Run] = {Path(path).resolve(): read_run(path, corpus) for path in paths}
    others = [run for path, run in runs.items() if path not in taken]
    if not groups and len(others) == 1:
        return *run_page.sections(others[0]), f"Run {others[0].name}"
    grouped = group_runs(others, groups)
    count = sum(len(group.runs) for group in grouped)
    return *group_page.sections(
        grouped, target
    ), f"{count} runs in {len(grouped)} group{'s' if len(grouped) > 1 else ''}"


def _default_folder(paths: Sequence[str | Path]) -> Path:
    return Path(paths[0]) / "report" if len(paths) == 1 and Path(paths[0]).is_dir() else Path("report")


def _footer() -> str:
    now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
    return f"Written {now} by tools/report.py of autoscale_ds; everything shown is in this one file."

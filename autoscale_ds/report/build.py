"""From folders to a page: what each one is, which sections it gets, where the page goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from autoscale_ds.errors import ReportError
from autoscale_ds.report import page, run_page, style
from autoscale_ds.report.reading import read_run


def build(paths: Sequence[str | Path], out: str | Path | None = None, title: str | None = None) -> Path:
    """Write the figures and the page about run folders, and return the path of the page.

    Parameters
    ----------
    paths : sequence of path
        Run folders.
    out : path, optional
        Folder to write; ``report`` inside the only argument by default, else ``report`` here.

    Raises
    ------
    AutoScaleError
        For an argument that is no run, or a folder that cannot be written.
    """
    style.require()
    if not paths:
        raise ReportError("no run given; name at least one run folder")
    run = read_run(paths[0])
    parts, images = run_page.sections(run)
    html = page.page(title or f"Run {run.name}", str(run.path), parts, _footer())
    return page.write(out or _default_folder(paths), html, images)


def _default_folder(paths: Sequence[str | Path]) -> Path:
    return Path(paths[0]) / "report" if len(paths) == 1 and Path(paths[0]).is_dir() else Path("report")


def _footer() -> str:
    now = datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds")
    return f"Written {now} by tools/report.py of autoscale_ds; everything shown is in this one file."

"""What a run writes about itself: ``metrics.jsonl``, and the same to TensorBoard and the run's loggers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autoscale_ds.errors import ReportError
from autoscale_ds.files import PatientFile, finite, write_atomic
from autoscale_ds.training.loggers.background import BackgroundLogger, close_all
from autoscale_ds.training.losses import StepReport
from autoscale_ds.training.record_kinds import kind_of, scalars

log = logging.getLogger(__name__)
VERSION = 1
FORMAT = {"kind": "format", "step": 0, "version": VERSION}
"""First line of every new ``metrics.jsonl``."""

# Dense bf16 peak, FLOP/s, by a part of the device's name (vendor data sheets).
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


class MetricsWriter:
    """Appends one JSON line a record; of one run, on rank 0.

    Parameters
    ----------
    path : Path
        ``metrics.jsonl``. Records of steps after ``resume_step`` are dropped, since those steps are done again;
        swaps are kept.
    resume_step : int
        Steps already done.
    tensorboard : Path or None
        Folder for TensorBoard events.
    loggers : sequence of BackgroundLogger
        Given every record too.
    """

    def __init__(
        self, path: Path, resume_step: int, tensorboard: Path | None, loggers: Sequence[BackgroundLogger] = ()
    ) -> None:
        _drop_after(path, resume_step)
        is_new = not path.exists() or not path.stat().st_size
        self._file = PatientFile(path)
        if is_new:
            self._file.write(json.dumps(FORMAT) + "\n")
        self._board = _open_board(tensorboard, resume_step) if tensorboard else None
        self._loggers = loggers
        for logger in loggers:
            logger.begin(iter(read_metrics(path)))  # an iterator, so that sent records are freed

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one record; ``step`` and ``kind`` are its first two keys."""
        self._file.write(json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in scalars(record).items():
                self._board.add_scalar(name, value, record["step"])
        for logger in self._loggers:
            logger.write(record)

    def close(self, finished: bool = False) -> None:
        """Flush and close; ``finished`` says that the run has reached its end."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        close_all(self._loggers, finished)


class Interval:
    """The steps since the last log line, added up.

    ``state`` and the constructor's argument carry it through a checkpoint, so that a resumed run logs the same lines.

    Parameters
    ----------
    names : sequence of str
        Domains, as reports index them.
    state : mapping, optional
        What ``state`` returned; domains that it does not know begin at zero.
    """

    def __init__(self, names: Sequence[str], state: Mapping[str, Any] | None = None) -> None:
        self._names = names
        sums, counts = ((state or {}).get(key, {}) for key in ("sums", "counts"))
        self.sums: list[float] = [sums.get(name, 0.0) for name in names]
        self.counts: list[float] = [counts.get(name, 0.0) for name in names]
        self.seconds = 0.0
        self.steps = 0

    def add(self, report: StepReport, seconds: float) -> None:
        """Add one step and the wall time it took."""
        self.sums = [a + b for a, b in zip(self.sums, report.sums, strict=True)]
        self.counts = [a + b for a, b in zip(self.counts, report.counts, strict=True)]
        self.seconds += seconds
        self.steps += 1

    def state(self) -> dict[str, dict[str, float]]:
        """Return what the next log line needs of the past, by domain."""
        return {
            "sums": dict(zip(self._names, self.sums, strict=True)),
            "counts": dict(zip(self._names, self.counts, strict=True)),
        }

    def figures(self) -> dict[str, Any]:
        """Return mean loss, loss by domain, and each domain's realised share of the tokens."""
        by_domain = list(zip(self._names, self.sums, self.counts, strict=True))
        total = sum(self.counts) or math.nan
        return {
            "loss": sum(self.sums) / total,
            "domain_loss": {name: loss / count for name, loss, count in by_domain if count},
            "realised": {name: count / total for name, _, count in by_domain},
        }


def read_metrics(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the records of a ``metrics.jsonl``, of one kind if given; a torn last line is left out.

    Raises
    ------
    ReportError
        When the file says that it is of another version. Files from before versions were counted say nothing.
    """
    # A line torn inside a character is no text; it is the last one and left out.
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    records = [record for _, record in _parsed(path, text)]
    for record in records:
        if record["kind"] == FORMAT["kind"] and record.get("version") != VERSION:
            raise ReportError(f"{path} has version {record.get('version')!r}, this program reads version {VERSION}")
    return [r for r in records if r["kind"] != FORMAT["kind"] and (kind is None or r["kind"] == kind)]


def sound_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a run's ``metrics.jsonl``, none where there is no file.

    Raises
    ------
    ReportError
        When a line is no record, or lacks a figure that records of its kind have.
    """
    if not path.exists():
        return []
    try:
        records = read_metrics(path)
        for record in records:
            for name in ("step", *kind_of(record).needed):
                record[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path} is damaged ({type(error).__name__} {error}); take out the line that is no record"
        ) from None
    return records


def peak_flops(device: torch.device, given: float | None) -> float | None:
    """Return the device's peak in FLOP/s; None where it is not known, and then MFU is not reported."""
    if given is not None or device.type != "cuda":
        return given
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def memory_gigabytes(device: torch.device) -> float:
    """Return the peak of this process so far: on the GPU, or resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _parsed(path: str | Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every whole line and its record; a torn last line is left out.

    Lines end with a line feed only: text in a record may hold other characters that Unicode calls line ends.
    """
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            record = json.loads(line)
            record["kind"], record["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise ReportError(
                f"{path} is damaged: line {number} is no record ({type(error).__name__} {error}); take it out"
            ) from None
        yield line, record


def _drop_after(path: Path, step: int) -> None:
    """Keep what lies before ``step``, and every swap: a rerun trains steps again, but accepts no proposal twice."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    kept = [line for line, record in _parsed(path, text) if _is_kept(record, step)]
    whole = "".join(f"{line}\n" for line in kept)
    if whole != text:
        write_atomic(path, whole)


def _is_kept(record: Mapping[str, Any], step: int) -> bool:
    return bool(record["step"] <= step or kind_of(record).survives_rewind)


def _open_board(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("tensorboard is not installed: only metrics.jsonl is written")
        return None
    return SummaryWriter(str(folder), purge_step=resume_step + 1)

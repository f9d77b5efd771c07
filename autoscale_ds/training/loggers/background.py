"""A metrics logger on a thread of its own: a server that is slow or unreachable delays no step.

A file of the run folder holds the run's id at the service and the number of the last record sent, by kind. A start
first sends the records of ``metrics.jsonl`` after those numbers (the service had failed, or was added later), then its
own.

Services cannot replace a point. So the record of a step that is done again after a resume is not sent again: the
service keeps the first one, ``metrics.jsonl`` and TensorBoard the last one. They differ only where the run does not
continue bit for bit: after a changed setting, a step that was left out, or in another layout.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoscale_ds.files import read_json, write_json
from autoscale_ds.training.loggers.base import LoggedRun, MetricsLogger
from autoscale_ds.training.record_kinds import Record, kind_of, scalars

log = logging.getLogger(__name__)
CLOSE_SECONDS = 30.0
"""How long the end of a run waits for all its loggers together."""
# Bounds the memory that waiting records take: one of a hundred domains is about 20 kB as Python objects.
_MOST_WAITING = 1000


class Sent:
    """What an earlier start sent, in a file of the run folder.

    The number of a record is written before the record is passed to the logger: after a crash the service may lack the
    record, but never has it twice.

    Attributes
    ----------
    run_id : str or None
        The run's id at the service.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run_id: str | None = None
        self._last: dict[str, int] = {}
        if path.exists():
            advice = "remove it: all of the run is then sent again, as a new run"
            content = read_json(path, dict, advice)
            self.run_id, self._last = content["id"], content["sent"]

    def opened(self, run_id: str) -> None:
        """Write the run's id at the service."""
        self.run_id = run_id
        self._save()

    def has(self, record: Record) -> bool:
        """Return whether a record of this kind and number, or of a later one, was sent."""
        return bool(record[kind_of(record).numbered_by] <= self._last.get(record["kind"], -1))

    def add(self, record: Record) -> None:
        """Write the number of a record."""
        self._last[record["kind"]] = record[kind_of(record).numbered_by]
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        write_json(self._path, {"id": self.run_id, "sent": self._last}, durable=False)


class BackgroundLogger:
    """Passes the records of one start to a logger; on rank 0.

    The first exception is logged as a warning; then nothing more is sent until the next start.

    Parameters
    ----------
    name : str
        For messages.
    logger : MetricsLogger
        Used by the thread alone.
    run : LoggedRun
        Passed to ``logger.open``.
    sent_path : Path
        File of the run's id and of what was sent, see ``Sent``.
    """

    def __init__(self, name: str, logger: MetricsLogger, run: LoggedRun, sent_path: Path) -> None:
        self._name = name
        self._logger = logger
        self._run = run
        self._sent_path = sent_path
        self._waiting: queue.Queue[Record | None] = queue.Queue(_MOST_WAITING)
        self._is_off = threading.Event()
        self._finished = False

    def begin(self, history: Iterator[Record]) -> None:
        """Start the thread; it first sends what the service lacks of ``history``, the records of earlier starts."""
        # A daemon: the end of the process does not wait for it.
        self._thread = threading.Thread(target=self._work, args=(history,), name=f"logger-{self._name}", daemon=True)
        self._thread.start()

    def write(self, record: Record) -> None:
        """Pass one record on; never waits."""
        self._put(record)

    def end(self, finished: bool) -> None:
        """Say that no record follows; never waits. See ``MetricsLogger.close``."""
        self._finished = finished
        self._put(None)

    def wait(self, until: float) -> None:
        """Wait for the last record to be sent, at most until ``time.monotonic()`` is ``until``."""
        if self._thread.is_alive() and not self._is_off.is_set():
            self._thread.join(max(until - time.monotonic(), 0.0))
            if self._thread.is_alive():
                self._give_up(f"still sending {CLOSE_SECONDS:.0f} s after the last record")

    def _put(self, record: Record | None) -> None:
        if not self._is_off.is_set():
            try:
                self._waiting.put_nowait(record)
            except queue.Full:
                self._give_up(f"{_MOST_WAITING:,} records wait to be sent")

    def _work(self, history: Iterator[Record]) -> None:
        try:
            sent = Sent(self._sent_path)
            sent.opened(self._logger.open(self._run, sent.run_id))
            own = iter(self._waiting.get, None)
            for record in itertools.chain(history, own):
                if self._is_off.is_set():
                    return
                if not sent.has(record):
                    sent.add(record)
                    self._send(record)
            self._logger.close(self._finished)
        except BaseException as error:  # SystemExit too: some libraries raise it
            with contextlib.suppress(Exception):
                self._logger.abandon()
            self._give_up(f"{type(error).__name__}: {error}")

    def _send(self, record: Record) -> None:
        self._logger.log(record["step"], scalars(record))
        if record["kind"] == "swap":
            self._logger.log_swap(record)

    def _give_up(self, reason: str) -> None:
        if self._is_off.is_set():
            return
        self._is_off.set()
        log.warning(
            "%s: %s; training goes on without it and metrics.jsonl has every record; the next start sends those that "
            "it was not given",
            self._name,
            " ".join(reason.split())[:500],
        )


def close_all(loggers: Sequence[BackgroundLogger], finished: bool) -> None:
    """End loggers, waiting ``CLOSE_SECONDS`` at most for all of them."""
    until = time.monotonic() + CLOSE_SECONDS
    for logger in loggers:
        logger.end(finished)
    for logger in loggers:
        logger.wait(until)

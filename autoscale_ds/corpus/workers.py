"""Work spread over processes of this machine, and over machines by MPI.

Results are the same for any number of processes and ranks.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from autoscale_ds.errors import AutoScaleError, CorpusError
from autoscale_ds.interrupts import check_interrupt

T = TypeVar("T")
_TICK_SECONDS = 1.0


class SharedSum:
    """A number that forked workers add to and their parent reads. Each has a place of its own, so nothing is locked.

    Parameters
    ----------
    workers : int
        How many processes besides this one will add to it.
    """

    def __init__(self, workers: int) -> None:
        self._parts = np.frombuffer(mmap.mmap(-1, 8 * (workers + 1)), np.int64)
        self._own = 0

    def add(self, number: int) -> None:
        """Add to this process's part."""
        self._parts[self._own] += number

    def total(self) -> int:
        """Return the sum over all processes."""
        return int(self._parts.sum())

    @contextlib.contextmanager
    def seen_by(self, worker: int) -> Iterator[None]:
        """Let a process forked inside the block add as this worker, counted from 0."""
        self._own = worker + 1
        try:
            yield
        finally:
            self._own = 0


class Pool:
    """Forked processes that apply ``function`` to tasks; with one worker, this process does it itself.

    ``function`` is inherited by the fork, with all it holds, and never pickled. Tasks are drawn when a worker is free,
    so a generator of large tasks is never far ahead. Used as a context manager, which ends the workers. ``counted`` is
    a sum that ``function`` adds to.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int, counted: SharedSum | None = None) -> None:
        self._function = function
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        for worker in range(workers if workers > 1 else 0):
            with counted.seen_by(worker) if counted is not None else contextlib.nullcontext():
                self._start()

    def map(self, tasks: Iterable[Any], waiting: Callable[[], None] = lambda: None) -> Iterator[tuple[Any, Any]]:
        """Yield (task, result) in the order of completion; raises the first error of a worker.

        ``waiting`` is called about every second while the workers are busy.
        """
        if not self._connections:
            for task in tasks:
                check_interrupt()
                yield task, self._function(task)
            return
        idle, busy = list(self._connections), dict[Any, Any]()
        for task in tasks:
            while not idle:
                yield from self._collect(idle, busy, waiting)
            connection = idle.pop()
            self._send(connection, task)
            busy[connection] = task
        while busy:
            yield from self._collect(idle, busy, waiting)

    def _collect(
        self, idle: list[Connection], busy: dict[Any, Any], waiting: Callable[[], None]
    ) -> Iterator[tuple[Any, Any]]:
        check_interrupt()
        waiting()
        for connection in wait(list(busy), timeout=_TICK_SECONDS):
            assert isinstance(connection, Connection)
            task = busy.pop(connection)
            yield task, self._receive(connection)
            idle.append(connection)

    def _send(self, connection: Connection, task: Any) -> None:
        try:
            connection.send(task)
        except OSError:
            self._report_death(connection)

    def _receive(self, connection: Connection) -> Any:
        try:
            kind, value = connection.recv()
        except (EOFError, OSError):
            self._report_death(connection)
        if kind == "error":
            raise value
        if kind == "bug":
            raise RuntimeError(f"in a worker process:\n{value}")
        return value

    def _report_death(self, connection: Connection) -> None:
        process = self._processes[self._connections.index(connection)]
        process.join(timeout=5)
        raise CorpusError(
            f"worker process {process.pid} ended with exit code {process.exitcode} (-9 usually means that memory ran "
            "out); what is finished is kept, rerun with fewer --workers"
        )

    def _start(self) -> None:
        fork = multiprocessing.get_context("fork")
        mine, theirs = fork.Pipe()
        # A worker that held the parent's ends of its siblings' pipes would keep them from noticing the parent's death.
        process = fork.Process(target=_serve, args=(theirs, [*self._connections, mine], self._function), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns of threads at a fork (of Rust libraries, here): the workers never wait for them.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            # Blocked until the worker ignores it: Ctrl-C at the first moment of its life would print a traceback.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._connections.append(mine)
        self._processes.append(process)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            connection.close()
            if kind is not None:
                process.terminate()
        for process in self._processes:
            process.join()


def _serve(connection: Connection, inherited: list[Connection], function: Callable[[Any], Any]) -> None:
    for other in inherited:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent stops the workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork, and the processes use all cores
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):  # the parent is gone, perhaps without having read the last answer
            return
        try:
            answer = ("done", function(task))
        except AutoScaleError as error:
            answer = ("error", error)
        except Exception:
            answer = ("bug", traceback.format_exc())
        try:
            connection.send(answer)
        except OSError:  # the parent is gone
            return


def usable_cores() -> int:
    """Return the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> int:
    """Return the memory this process occupies; 0 where the system does not tell (no ``/proc``)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


class Team:
    """One process that works alone: the case without MPI, and the interface of ``MPITeam``."""

    rank = 0
    size = 1

    def first(self, function: Callable[[], T]) -> T:
        """Call ``function`` on rank 0; every rank returns its result, or ends with its error."""
        return function()

    def everyone(self, function: Callable[[], T]) -> list[T]:
        """Call ``function`` on every rank; rank 0 returns all results in order of rank, others their own alone."""
        return [function()]

    def share(self, tasks: list[T]) -> list[T]:
        """Return this rank's part of the tasks; parts are disjoint and together all."""
        return tasks[self.rank :: self.size]

    def check(self) -> None:
        """Raise an error without a message if another rank has failed."""

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class MPITeam(Team):
    """The ranks of an ``mpirun``, on a shared file system.

    An ``AutoScaleError`` is printed once, by rank 0, and every rank exits with code 2. Any other error aborts all.
    """

    _FAILED = 1  # the tag of "stop, I have an error"

    def __init__(self) -> None:
        from mpi4py import MPI

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a rank is one core's worth of work
        self._comm = MPI.COMM_WORLD
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()

    def first(self, function: Callable[[], T]) -> T:
        """See Team."""
        answer: tuple[T | None, AutoScaleError | None] = (None, None)
        if self.rank == 0:
            answer = _attempt(function)
        result, error = self._comm.bcast(answer, root=0)
        self._end_on([error])
        return result

    def everyone(self, function: Callable[[], T]) -> list[T]:
        """See Team."""
        result, error = _attempt(function)
        sent = []  # kept until all have met below: a message must not be collected under way
        if error is not None and not isinstance(error, _OtherRankFailed):
            others = (rank for rank in range(self.size) if rank != self.rank)
            sent = [self._comm.isend(None, dest=other, tag=self._FAILED) for other in others]
        answers = self._comm.allgather((result, error))
        del sent
        while self._comm.iprobe(tag=self._FAILED):
            self._comm.recv(tag=self._FAILED)
        self._end_on([error for _, error in answers])
        return [value for value, _ in answers]

    def check(self) -> None:
        """Raise, to reach the end of ``everyone``, if another rank said that it failed."""
        if self._comm.iprobe(tag=self._FAILED):
            raise _OtherRankFailed

    def _end_on(self, errors: list[AutoScaleError | None]) -> None:
        real = [error for error in errors if error is not None and not isinstance(error, _OtherRankFailed)]
        if real and self.rank == 0:
            raise real[0]
        if real:
            sys.exit(2)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, (AutoScaleError, SystemExit)):
            # The other ranks are in a collective call with this one and would wait for ever: abort them.
            traceback.print_exception(kind, error, trace)
            self._comm.Abort(130 if kind is KeyboardInterrupt else 1)


class _OtherRankFailed(AutoScaleError):
    """Carries no message: the rank that failed has one."""


def current_team() -> Team:
    """Return the MPI team if this process was started by an MPI launcher with more than one rank."""
    sizes = (os.environ.get(name) for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"))
    return MPITeam() if any(size is not None and int(size) > 1 for size in sizes) else Team()


def _attempt(function: Callable[[], T]) -> tuple[T | None, AutoScaleError | None]:
    try:
        return function(), None
    except AutoScaleError as error:
        return None, error

"""Being asked to stop: at once while a job starts, between steps once it trains."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

REQUEUE_EXIT_CODE = 75  # EX_TEMPFAIL: "try again later"; batch scripts requeue the job on it
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Set by SIGTERM, SIGUSR1 or Ctrl-C; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._pipe: tuple[int, int] | None = None

    def end_while_starting(self) -> None:
        """End the process with the requeue code at the first signal, until ``install``; main thread only.

        Nothing is lost by that: training has not begun. A rank that starts may wait for others inside a library for
        minutes, where no Python handler runs. Python's C handler still writes each signal to a pipe, and a thread that
        reads it ends the process.
        """
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in _SIGNALS:
            signal.signal(number, self._remember)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._end_at_a_signal, args=(self._pipe[0],), name="signals", daemon=True).start()

    def install(self) -> None:
        """Remember signals from now on, to be acted on between steps; main thread only."""
        for number in _SIGNALS:
            signal.signal(number, self._remember)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])  # the thread reads the end of the pipe, and ends
            self._pipe = None

    def _end_at_a_signal(self, pipe: int) -> None:
        if set(os.read(pipe, 1)) & {int(number) for number in _SIGNALS}:
            os.write(2, b"stopped while starting; nothing is lost, the same command continues\n")
            os._exit(REQUEUE_EXIT_CODE)
        os.close(pipe)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

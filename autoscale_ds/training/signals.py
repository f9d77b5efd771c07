"""Being asked to stop: remembered here, acted on between steps."""

from __future__ import annotations

import signal
from types import FrameType

REQUEUE_EXIT_CODE = 75  # EX_TEMPFAIL: "try again later"; batch scripts requeue the job on it
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Set by SIGTERM, SIGUSR1 or Ctrl-C; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> None:
        """Take over the signals; main thread only."""
        for number in _SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

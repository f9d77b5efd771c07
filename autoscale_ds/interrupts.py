"""Ctrl-C that is not lost.

Python drops an exception that is raised while an object is finalised, and some libraries drop KeyboardInterrupt while
they are imported; the work then goes on for hours. The handler here remembers the interrupt besides raising it, and
long work asks at each result whether one came.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType


class Interrupt:
    """A handler of SIGINT that raises KeyboardInterrupt and remembers that it came."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember and raise."""
        self.came = True
        raise KeyboardInterrupt


def remember_interrupts() -> None:
    """Install the handler, unless the program has one of its own or this is not the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupt())


def end_on_termination() -> None:
    """Let SIGTERM end the program by SystemExit, so that it removes what it has not finished; exit code 143."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if an interrupt has come, whether or not its exception was dropped."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupt) and handler.came:
        raise KeyboardInterrupt

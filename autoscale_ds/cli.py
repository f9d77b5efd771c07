"""How every entry point ends: 0 done, 2 with one line for a user's mistake, 130 after Ctrl-C."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from autoscale_ds.errors import AutoScaleError
from autoscale_ds.interrupts import remember_interrupts


def run(main: Callable[[], int | None], *, tear_down: bool = True) -> None:
    """Call ``main`` and exit with its code; a user's mistake is one line on stderr, never a traceback.

    Parameters
    ----------
    main : callable
        The entry point; returns the exit code, or None for 0.
    tear_down : bool
        False ends the process without taking Python apart, for ranks of a job: of some hundred that had finished one
        failed there with code -6, "terminate called without an active exception". That is what C++ says when Python
        ends a thread that asks for the interpreter meanwhile, probably one of gloo's; it could not be made to happen.
    """
    remember_interrupts()
    try:
        code = main() or 0
        sys.stdout.flush()
    except AutoScaleError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, `| head` for one
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        else:
            print(f"error: {error}", file=sys.stderr)
            code = 2
    except KeyboardInterrupt:
        print("interrupted; nothing finished was lost, the same command continues", file=sys.stderr)
        code = 130
    if not tear_down:
        atexit._run_exitfuncs()  # open files, child processes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

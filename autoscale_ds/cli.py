"""What every entry point shares: its command line, checked numbers, the terminal, and how it ends.

The exit code is 0 when done, 2 with one line for a user's mistake, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import atexit
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from autoscale_ds.errors import AutoScaleError
from autoscale_ds.files import finite
from autoscale_ds.interrupts import remember_interrupts

if TYPE_CHECKING:
    from rich.console import Console

# What is said after Ctrl-C, of work that is resumed and of work that is not.
CONTINUES = "nothing finished was lost, the same command continues"
FROM_THE_START = "no file was left half written, the same command starts from the beginning"
LARGEST_WHOLE = 2**63 - 1  # counts and positions are int64 everywhere


class CommandLine(argparse.ArgumentParser):
    """An argument parser that keeps the line breaks of its texts and says a mistake in one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    @classmethod
    def of(cls, text: str | None) -> CommandLine:
        """Return a parser whose help starts with the first paragraph of a text and ends with the others."""
        summary, _, examples = (text or "").partition("\n\n")
        return cls(description=summary, epilog=examples)

    def error(self, message: str) -> NoReturn:
        """Exit with one line."""
        self.exit(2, f"error: {message.removeprefix('argument ')}; {self.prog} --help lists the options\n")


def whole(least: int = 0, most: int = LARGEST_WHOLE) -> Callable[[str], int]:
    """Return an argparse type: a whole number from ``least`` to ``most``, as 1000 or 1e3."""

    def parse(text: str) -> int:
        number = _whole(text)
        if number is None or not least <= number <= most:
            upper = "" if most == LARGEST_WHOLE else f" and at most {most:,}"
            raise argparse.ArgumentTypeError(
                f"{_short(text)} given, expected a whole number of at least {least:,}{upper}"
            )
        return number

    return parse


def real(
    *, above: float | None = None, least: float | None = None, most: float = math.inf, infinite: bool = False
) -> Callable[[str], float]:
    """Return an argparse type: a number above one bound or of at least another, and at most ``most``; never NaN.

    Parameters
    ----------
    above, least, most : float
        Bounds; ``above`` is excluded, the others are included.
    infinite : bool
        Whether ``inf`` is accepted.
    """
    bounds = [f"above {above:g}"] if above is not None else []
    bounds += [f"at least {least:g}"] if least is not None else []
    bounds += [f"at most {most:g}"] if most < math.inf else []
    expected = " ".join(["a number" if infinite else "a finite number", " and ".join(bounds)]).strip()

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        too_small = (above is not None and number <= above) or (least is not None and number < least)
        if math.isnan(number) or too_small or number > most or (math.isinf(number) and not infinite):
            raise argparse.ArgumentTypeError(f"{_short(text)} given, expected {expected}")
        return number

    return parse


def file_name(text: str) -> str:
    """Return the name of a file or folder; as an argparse type it refuses an empty one, an unset shell variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} given, expected the name of a file or folder")
    return text


positive_int = whole(1)
natural = whole(0)
positive = real(above=0.0)
share = real(least=0.0, most=1.0)


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a rich console that prints text as it is: brackets of a path are no markup, ``:name:`` no emoji.

    Parameters
    ----------
    stderr : bool
        Print there instead of on stdout.
    width : int or None
        Columns where the output is no terminal; None is rich's own choice.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    columns = None if stream.isatty() else width
    return Console(stderr=stderr, width=columns, markup=False, emoji=False, highlight=False)


@contextmanager
def counting(label: str, total: int | None, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Give a function that moves a progress bar on stderr by a number of items; no bar where that is no terminal.

    Parameters
    ----------
    total : int or None
        Items in all; None while it is not known.
    shown : bool
        False on ranks other than 0.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=screen, transient=True, disable=not (shown and screen.is_terminal)
    ) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def json_text(value: Any) -> str:
    """Return JSON, indented; NaN and infinity, which JSON does not have, as null."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def run(
    main: Callable[[], int | None],
    *,
    tear_down: bool = True,
    memory_advice: str = "use smaller inputs",
    interrupted: str = CONTINUES,
) -> None:
    """Call ``main`` and exit with its code; a user's mistake is one line on stderr, never a traceback.

    Parameters
    ----------
    main : callable
        The entry point; returns the exit code, or None for 0.
    tear_down : bool
        False ends the process without taking Python apart, for ranks of a job: of some hundred that had finished one
        failed there with code -6, "terminate called without an active exception". That is what C++ says when Python
        ends a thread that asks for the interpreter meanwhile, probably one of gloo's; it could not be made to happen.
    memory_advice : str
        What to lower when the machine's memory does not suffice.
    interrupted : str
        What is true after Ctrl-C: ``CONTINUES`` or ``FROM_THE_START``.
    """
    _escape_what_cannot_be_encoded()
    remember_interrupts()
    try:
        code = main() or 0
        sys.stdout.flush()
    except AutoScaleError as error:
        code = _fail(str(error))
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        code = _fail(f"the memory of this machine (RAM) did not suffice{detail}; {memory_advice}, or use a larger one")
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output went away, `| head` for one
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        else:
            code = _fail(str(error))
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        code = 130
    if not tear_down:
        atexit._run_exitfuncs()  # open files, child processes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _escape_what_cannot_be_encoded() -> None:
    r"""Print characters that the terminal's encoding lacks as ``\udce9`` instead of failing on them.

    The name of a file need not be UTF-8; Python keeps such bytes as lone surrogates, which no encoding has.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")

"""Documents and problems: what every reader yields.

A document that cannot be read is a ``Problem`` with file, line (row, in tables) and reason. It is never dropped in
silence: whoever asked decides whether the first one stops the work or all are counted.
"""

from __future__ import annotations

import json
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zstandard

# What reading a missing, cut-off or damaged file raises.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


@dataclass(frozen=True)
class Problem:
    """A document, or the rest of a file, that could not be read."""

    file: str
    line: int | None
    reason: str

    def __post_init__(self) -> None:
        """Make names of files, and keys of objects in reasons, printable: they can hold anything."""
        object.__setattr__(self, "file", printable(self.file))
        object.__setattr__(self, "reason", printable(self.reason))

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.reason}"


@dataclass
class Batch:
    """Documents in reading order, as UTF-8, and the problems met between them.

    Attributes
    ----------
    documents : list of bytes
    places : list of (str, int or None)
        File and line (row, in tables) of each document.
    problems : list of Problem
    lines_before : callable
        Lines of the file before those that ``places`` count, looked up when somebody needs to know.
    """

    documents: list[bytes] = field(default_factory=list)
    places: list[tuple[str, int | None]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lines_before: Callable[[], int] = int

    def add(self, document: bytes, file: str, line: int | None) -> None:
        """Append a document."""
        self.documents.append(document)
        self.places.append((file, line))

    def extend(self, other: Batch) -> None:
        """Append another batch; both count lines from the beginning of their files."""
        self.documents += other.documents
        self.places += other.places
        self.problems += other.problems

    def problem(self, index: int, reason: str) -> Problem:
        """Return the problem of a document that was read."""
        file, line = self.places[index]
        return Problem(file, None if line is None else line + self.lines_before(), reason)


class RefusedRecord(Exception):
    """The record was read, and holds no text."""


# What a terminal obeys instead of showing: control characters, line separators, and marks that turn the direction.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return text on one line that a terminal shows as it is.

    Lone surrogates, as in names that are Latin-1, become ``\udce9``. Control characters, which could move the cursor or
    turn the direction of writing, become ``\x1b``.
    """
    shown = text.encode(errors="backslashreplace").decode()
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), shown)


def encoded_text(text: Any, key: str) -> bytes:
    """Return text as UTF-8; raises RefusedRecord when it is none, UnicodeEncodeError for half a surrogate pair."""
    if not isinstance(text, str):
        raise RefusedRecord(f"field {key!r} holds {'null' if text is None else type(text).__name__}, expected text")
    return text.encode()


def reason_of(error: Exception) -> str:
    """Return the reason a record was refused, as a message for users."""
    if isinstance(error, UnicodeEncodeError):  # JSON can spell half a surrogate pair, UTF-8 cannot
        return f"the text holds the lone surrogate U+{ord(error.object[error.start]):04X}"
    if isinstance(error, UnicodeDecodeError):
        return f"invalid UTF-8 at byte {error.start} of the line ({error.object[error.start]:#04x})"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} at column {error.colno}"
    return str(error)


def unreadable_reason(error: BaseException) -> str:
    """Return the reason the rest of a file could not be read, as a message for users."""
    return f"unreadable from here on: {first_line_of(error)}"


def first_line_of(error: BaseException) -> str:
    """Return the first line of a foreign exception's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]

"""Files are read as they were when the work was planned: one that changed since is an error, never a shorter text."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import IO

from autoscale_ds.corpus.documents import printable
from autoscale_ds.corpus.inputs import Span
from autoscale_ds.errors import CorpusError


@contextlib.contextmanager
def opened(span: Span) -> Iterator[IO[bytes]]:
    """Open the file of a span; check that it is the planned one now, after the block, and when reading fails.

    Raises
    ------
    CorpusError
        If its size or its time of change differ from the plan's, or if it is gone.
    """
    try:
        file = open(span.path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise _changed(span, "it was removed") from None
    with file:
        check_unchanged(file, span)
        try:
            yield file
        except Exception:  # of any library: a file cut short is no damaged one
            check_unchanged(file, span)
            raise
        check_unchanged(file, span)


def check_paths(spans: Iterable[Span]) -> None:
    """Raise CorpusError if a path leads to another file than planned, or if one was written after it was read."""
    for span in spans:
        try:
            _compare(os.stat(span.path), span)
        except FileNotFoundError:
            raise _changed(span, "it was removed") from None
        except OSError as error:
            raise _changed(span, str(error.strerror)) from None


def check_unchanged(file: IO[bytes], span: Span) -> None:
    """Raise CorpusError if an open file is no longer what the plan says."""
    _compare(os.fstat(file.fileno()), span)


def _compare(status: os.stat_result, span: Span) -> None:
    if status.st_size != span.size:
        raise _changed(span, f"it had {span.size:,} bytes, now {status.st_size:,}")
    if str(status.st_mtime_ns) != span.changed:
        raise _changed(span, f"it still has {span.size:,} bytes, but was written again")


def _changed(span: Span, what: str) -> CorpusError:
    return CorpusError(
        f"{printable(span.path)} changed while it was read: {what}; wait until it is written, "
        "then run the same command again"
    )

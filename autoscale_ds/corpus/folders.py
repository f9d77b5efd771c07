"""Folders and globs walked through links: each folder once, so that a circle of links ends."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from autoscale_ds.corpus.documents import printable
from autoscale_ds.errors import CorpusError

# Device and inode: what makes a file, or a folder, the same under all its names.
Identity = tuple[int, int]


def identity(status: os.stat_result) -> Identity:
    """Return what all names of a file have in common."""
    return status.st_dev, status.st_ino


class Walker:
    """Walks through folders, following links.

    Parameters
    ----------
    on_loop, on_again : callable
        Receive the path of a link to a folder that contains it, and of one to a folder that was entered before.
    """

    def __init__(self, on_loop: Callable[[str], None], on_again: Callable[[str], None]) -> None:
        self._on_loop = on_loop
        self._on_again = on_again

    def walk(self, top: str, enter: Callable[[str], bool]) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder with the paths of its files, ``top`` first.

        Linked folders come last: a folder that is there by itself keeps the path it would have without links. ``enter``
        tells by its path whether a folder is wanted.
        """
        entered: set[Identity] = set()
        real: deque[tuple[str, frozenset[Identity]]] = deque()
        linked = deque([(top, frozenset[Identity]())])
        while real or linked:
            folder, above = real.popleft() if real else _with_parents(*linked.popleft())
            own = identity(os.stat(folder or "."))
            if own in above:
                self._on_loop(folder)
            elif own in entered:
                self._on_again(folder)
            else:
                entered.add(own)
                folders, files = _listing(folder)
                yield folder, files
                for path in filter(enter, folders):
                    (linked if os.path.islink(path) else real).append((path, above | {own}))

    def glob(self, pattern: str) -> Iterator[str]:
        """Match as ``glob.glob`` does with ``recursive=True``."""
        parts = pattern.split("/")
        if "**" not in parts:
            yield from glob.glob(pattern)
            return
        at = parts.index("**")
        head = "/".join(parts[:at]) or pattern[: pattern.startswith("/")]
        tail = "/".join(parts[at + 1 :])
        for top in filter(os.path.isdir, glob.glob(head)) if head else [""]:
            for folder, files in self.walk(top, _is_visible):
                if tail:
                    yield from self.glob(os.path.join(glob.escape(folder), tail))
                else:
                    yield from filter(_is_visible, files)


def _with_parents(folder: str, above: frozenset[Identity]) -> tuple[str, frozenset[Identity]]:
    """Add the folders that really contain a linked one: a link from it to any of them makes a circle."""
    return folder, above.union(identity(os.stat(parent)) for parent in Path(os.path.realpath(folder)).parents)


def _listing(folder: str) -> tuple[list[str], list[str]]:
    """Return the paths of the folders and of the files in a folder, sorted."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                (folders if entry.is_dir() else files).append(os.path.join(folder, entry.name))
    except OSError as error:
        raise CorpusError(f"cannot read the folder {printable(folder)}: {error.strerror}") from None
    return folders, files


def _is_visible(path: str) -> bool:
    return not os.path.basename(path).startswith(".")

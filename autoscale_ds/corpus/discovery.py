"""From paths, folders and globs to files: each file once, and a line about each kind of what was left out.

A file that is named, or that a glob matches, is read whatever it is called. A folder stands for the data in it: names
that begin with ``_`` or ``.``, a README beside data files, and names that tell no format are left out.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from autoscale_ds.corpus.compression import COMPRESSED
from autoscale_ds.corpus.documents import printable
from autoscale_ds.corpus.folders import Identity, Walker, identity
from autoscale_ds.corpus.publication import is_own_name
from autoscale_ds.errors import CorpusError

_FORMAT_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
}
_COMPANION = re.compile(
    r"(readme|licen[cs]e|copying|notice|changelog)([._-].*)?"
    r"|(dataset_infos?|dataset_dict|state|croissant)\.json",
    re.IGNORECASE,
)


class _Reason(NamedTuple):
    """Why paths are left out: the line about one, and about more."""

    one: str
    many: str


_AGAIN = _Reason("{first} leads to what is read already", "{count} paths lead to files already read (first: {first})")
_LOOP = _Reason(
    "a loop of links at {first} was not followed", "{count} loops of links were not followed (first: {first})"
)
_HIDDEN = _Reason(
    "{first} was left out: its name begins with _ or .",
    "{count} names that begin with _ or . were left out (first: {first})",
)
_COMPANIONS = _Reason(
    "{first} was left out: it tells about the data beside it",
    "{count} files that tell about the data beside them were left out (first: {first})",
)
_UNKNOWN = _Reason(
    "{first} was left out: its name tells no format",
    "{count} files whose names tell no format were left out (first: {first})",
)
_SPECIAL = _Reason(
    "{first} was left out: it is no regular file", "{count} files that are not regular were left out (first: {first})"
)
_BROKEN = _Reason(
    "{first} was left out: it cannot be read, or is a link to nothing",
    "{count} files that cannot be read, or are links to nothing, were left out (first: {first})",
)
_OWN = _Reason(
    "{first} was left out: preprocessing made it",
    "{count} files that preprocessing made were left out (first: {first})",
)


class Found(NamedTuple):
    """A file to read."""

    path: str
    format: str
    status: os.stat_result


def find_files(
    paths: Sequence[str],
    wanted: str,
    output: str | os.PathLike | None,
    notice: Callable[[str], None],
    *,
    skip_broken: bool = False,
) -> list[Found]:
    """Return the files of a domain, sorted within each of its paths.

    Parameters
    ----------
    paths : sequence of str
        Files, folders (everything below them) or globs (``**`` descends).
    wanted : str
        Their format; ``auto`` goes by the name of each file.
    output : path or None
        Corpus folder: what preprocessing makes there is not read, unless it is named itself.
    notice : callable
        Receives a line for each reason that something was left out for.
    skip_broken : bool
        Leave out what a folder or glob holds and nobody can read, such as a link to nothing, instead of refusing it.

    Raises
    ------
    CorpusError
        If a path matches nothing, or no format is known for a file.
    """
    search = _Search(wanted == "auto", output)
    files: dict[Identity, Found] = {}
    for pattern in map(os.path.expanduser, paths):
        matched = sorted({*search.matches(pattern)})
        if not matched:
            raise _nothing(pattern, search.lines())
        for path in matched:
            if skip_broken and path != pattern and not os.access(path, os.R_OK):
                search.leave_out(_BROKEN, path)
                continue
            status = _status(path)
            if not stat.S_ISREG(status.st_mode):
                if path == pattern:
                    raise CorpusError(f"{printable(path)} is no regular file: write what it gives to one first")
                search.leave_out(_SPECIAL, path)
            elif (first := files.get(identity(status))) is None:
                files[identity(status)] = Found(path, format_of(path, wanted), status)
            elif first.path != path:
                search.leave_out(_AGAIN, path)
    for line in search.lines():
        notice(line)
    return list(files.values())


def format_of(path: str, wanted: str) -> str:
    """Return the format of a file; raises CorpusError if its name does not tell."""
    kind = _known_format(path) if wanted == "auto" else wanted
    if kind is None:
        raise CorpusError(
            f"{printable(path)}: its name tells no format; give format: jsonl, parquet or text "
            f"(known endings: {', '.join(_FORMAT_OF_SUFFIX)}, also with {', '.join(COMPRESSED)})"
        )
    return kind


def _known_format(path: str) -> str | None:
    stem, ending = os.path.splitext(path.lower())
    return _FORMAT_OF_SUFFIX.get(os.path.splitext(stem)[1] if ending in COMPRESSED else ending)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        what = f"a link to nothing ({printable(os.readlink(path))})" if os.path.islink(path) else error.strerror
        raise CorpusError(
            f"cannot read {printable(path)}: {what}; --on-error skip leaves such files of folders and globs out"
        ) from None


def _nothing(pattern: str, left_out: Iterable[str]) -> CorpusError:
    if reasons := "; ".join(left_out):
        return CorpusError(f"nothing of {printable(pattern)} is left to read: {reasons}")
    return CorpusError(f"no file matches {printable(pattern)}; paths are relative to the current folder, {os.getcwd()}")


class _Search:
    """Expands the paths of one domain, and keeps what it leaves out."""

    def __init__(self, auto: bool, output: str | os.PathLike | None) -> None:
        self._auto = auto
        self._output = None if output is None else os.path.realpath(output)
        self._left_out: dict[_Reason, list[str]] = {}
        self._walker = Walker(
            functools.partial(self.leave_out, _LOOP), on_again=functools.partial(self.leave_out, _AGAIN)
        )

    def leave_out(self, reason: _Reason, path: str) -> None:
        self._left_out.setdefault(reason, []).append(path)

    def lines(self) -> Iterator[str]:
        for reason, paths in self._left_out.items():
            text = reason.one if len(paths) == 1 else reason.many
            yield printable(text.format(first=paths[0], count=f"{len(paths):,}"))

    def matches(self, pattern: str) -> Iterator[str]:
        """Yield the paths of files; a file that is named itself is always one."""
        if os.path.isfile(pattern):
            yield pattern
            return
        for path in [pattern] if os.path.exists(pattern) else self._walker.glob(pattern):
            if os.path.isdir(path):
                yield from self._data_of(self._files_below(path))
            elif not self._is_own(path):
                yield path

    def _files_below(self, top: str) -> list[str]:
        files = [path for _, files in self._walker.walk(top, self._is_wanted) for path in files]
        return [path for path in files if self._is_wanted(path)]

    def _is_wanted(self, path: str) -> bool:
        """Tell by the path of a file or folder below a folder that stands for its data."""
        if self._is_own(path):
            return False
        if os.path.basename(path).startswith(("_", ".") if self._auto else "."):
            self.leave_out(_HIDDEN, path)
            return False
        return True

    def _data_of(self, files: list[str]) -> Iterator[str]:
        if not self._auto:
            yield from files
            return
        companions = {path for path in files if _COMPANION.fullmatch(os.path.basename(path))}
        formats = {path: _known_format(path) for path in files}
        beside_data = any(formats[path] in ("jsonl", "parquet") for path in files if path not in companions)
        for path in files:
            if beside_data and path in companions:
                self.leave_out(_COMPANIONS, path)
            elif formats[path] is not None:
                yield path
            elif path.lower().endswith(".arrow"):
                folder = printable(os.path.dirname(path))
                raise CorpusError(f"{folder} holds Arrow files, as save_to_disk writes them: give format: huggingface")
            else:
                self.leave_out(_UNKNOWN, path)

    def _is_own(self, path: str) -> bool:
        if self._output is None:
            return False
        real = os.path.join(self._real_folder(os.path.dirname(path)), os.path.basename(path))
        own = real.startswith(self._output + "/") and is_own_name(real[len(self._output) + 1 :])
        if own:
            self.leave_out(_OWN, path)
        return own

    @functools.cached_property
    def _real_folder(self) -> Callable[[str], str]:
        return functools.cache(os.path.realpath)

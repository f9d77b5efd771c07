"""Files that appear whole or not at all, on local and shared file systems."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoscale_ds.errors import ConfigError

log = logging.getLogger(__name__)


def write_atomic(path: str | Path, data: bytes | str, durable: bool = True) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    It is flushed to disk unless ``durable`` is False: then a machine that goes down may leave it empty. A symbolic link
    stays one, its target is written; a device or a FIFO is written to.
    """
    raw = data.encode() if isinstance(data, str) else data
    if _is_stream(path):
        with open(path, "wb") as stream:
            stream.write(raw)
        return
    path = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; run folders are read by colleagues and other nodes
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any, durable: bool = True) -> None:
    r"""Write JSON atomically, indented for people; what UTF-8 cannot hold (Latin-1 names) as JSON's ``\udce9``."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode(errors="backslashreplace"), durable)


def finite(value: Any) -> Any:
    """Return a value of mappings, sequences and numbers with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_outputs(outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Refuse, before the work, output files that cannot be written or would replace a file of the same command.

    Parameters
    ----------
    outputs : mapping of str to path or None
        Option to the file it names, as ``{"--out": "law.json"}``; None where it was not given.
    inputs : iterable of paths
        Files the command reads.

    Raises
    ------
    ConfigError
        Naming the option and the file.
    """
    taken = {f"the input {path}": Path(path) for path in inputs}
    stdout = Path("/dev/stdout")
    taken |= {"what the shell redirects stdout to": stdout} if stdout.is_file() else {}
    for option, name in outputs.items():
        if name is None:
            continue
        path = Path(name)
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
        if path.is_dir():
            raise ConfigError(f"cannot write {option} {path}: it is a folder; name a file in it")
        if _is_stream(path):
            continue
        for use, other in taken.items():
            if _same_file(path, other):
                raise ConfigError(f"{option} {path} would replace {use}; write to another file")
        taken[f"what {option} writes"] = path


def _same_file(a: Path, b: Path) -> bool:
    return a.samefile(b) if a.exists() and b.exists() else a.resolve() == b.resolve()


def _is_stream(path: str | Path) -> bool:
    """Return whether a path is a device, a FIFO or a socket, which a file must not replace."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def make_folder(path: Path) -> list[Path]:
    """Make a folder with its parents; return those that were not there, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    for folder in missing:
        folder.mkdir(exist_ok=True)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders, the last first, that hold nothing."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def read_json(path: str | Path, expected: type, advice: str) -> Any:
    """Return the content of a JSON file that this program wrote.

    Parameters
    ----------
    expected : type
        ``dict`` or ``list``.
    advice : str
        What to do when it cannot be used.

    Raises
    ------
    ConfigError
        When it was cut off or holds something else. FileNotFoundError stays as it is.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged, it is not JSON ({error}); {advice}") from None
    if not isinstance(value, expected):
        raise ConfigError(f"{path} is damaged, it holds {type(value).__name__}, expected {expected.__name__}; {advice}")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of a user's file; as ``object_pairs_hook`` it raises ValueError for a key given twice."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(f"the key {twice!r} is given twice; leave one out")
    return dict(pairs)


def append_line(path: str | Path, line: str) -> None:
    """Append one line, flushed to disk: a crash leaves whole lines or one torn last line, a full disk no part of it."""
    data = line.encode() + b"\n"
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise


class PatientFile:
    """A file that is appended to for weeks: what a full disk does not take waits in memory for the next write.

    Parameters
    ----------
    path : Path
        The file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed in close()

    def write(self, text: str) -> None:
        """Append text, now or when there is room again."""
        had_to_wait = bool(self._waiting)
        self._waiting += text.encode()
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not had_to_wait:
                log.warning("%s cannot be written (%s); kept in memory until it can", self._path, error.strerror)

    def close(self) -> None:
        """Write what waits, and close."""
        self.write("")
        if self._waiting:
            log.error("%s lacks its last %d lines: no room", self._path, self._waiting.count(b"\n"))
        self._file.close()

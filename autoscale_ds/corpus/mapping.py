"""Files mapped into memory for reading, without a file descriptor each.

``mmap.mmap``, and with it ``numpy.memmap``, keeps a duplicate of the descriptor as long as the mapping lives, so a
process that opens 1,300 shards needs 1,300 descriptors where 1,024 are usual. The system call itself needs the
descriptor only while it maps; the C library's ``mmap`` is called here. (Python 3.13 has ``trackfd=False`` for this.)
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import CorpusError

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_int64)
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value
_MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
_FILE_MAX = Path("/proc/sys/fs/file-max")


def map_array(path: str | Path, dtype: np.dtype, offset: int, count: int) -> npt.NDArray:
    """Return ``count`` values of a file from byte ``offset`` on, shape (count,): a read-only view of the file.

    The mapping is given back when no array refers to it any more.

    Raises
    ------
    CorpusError
        When the file is shorter, or a limit of the process or machine binds: its value and the command that raises it.
    OSError
        When the file cannot be opened or mapped for another reason.
    """
    if count == 0:  # an empty range cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(_Mapping(path, dtype, offset, count))


def limit_reached(error: OSError) -> CorpusError | None:
    """Return the message about the limit that an error of ``open`` or ``mmap`` comes from; None for other errors."""
    if error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        ceiling = "" if hard == resource.RLIM_INFINITY else f" (at most {hard} without an administrator)"
        return CorpusError(
            f"{error.filename} cannot be opened: this process may have {soft} files open; raise that with "
            f"`ulimit -n {2 * soft}`{ceiling} and start again"
        )
    if error.errno == errno.ENFILE:
        return _system_limit(error, _FILE_MAX, "fs.file-max", "files open in all")
    if error.errno == errno.ENOMEM:
        return _system_limit(error, _MAX_MAP_COUNT, "vm.max_map_count", "mappings in one process")
    return None


def _system_limit(error: OSError, file: Path, name: str, what: str) -> CorpusError | None:
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return None
    return CorpusError(
        f"{error.filename} cannot be opened: {error.strerror}; this machine allows {value} {what} ({name}): an "
        f"administrator raises that with `sysctl -w {name}={2 * value}`. `ulimit -v` limits the address space too"
    )


class _Mapping:
    """Pages of a file; numpy reads where they lie from ``__array_interface__`` and keeps this object alive."""

    def __init__(self, path: str | Path, dtype: np.dtype, offset: int, count: int) -> None:
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset - start + count * dtype.itemsize
        address = _map_pages(str(path), start, length)
        # Not at exit: a thread may still read then, and the pages go with the process anyway.
        weakref.finalize(self, _libc.munmap, address, length).atexit = False
        self.__array_interface__ = {
            "version": 3,
            "shape": (count,),
            "typestr": dtype.str,
            "data": (address + offset - start, True),
        }


def _map_pages(path: str, start: int, length: int) -> int:
    """Map bytes ``[start, start + length)`` and return their address; the descriptor is closed again."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise limit_reached(error) or error from None
    try:
        if os.fstat(descriptor).st_size < start + length:  # reading beyond the end would kill the process (SIGBUS)
            raise CorpusError(f"{path} is shorter than {start + length} bytes: it was cut while it was opened")
        address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
        if address == _FAILED:
            code = ctypes.get_errno()
            failure = OSError(code, os.strerror(code), path)
            raise limit_reached(failure) or failure
    finally:
        os.close(descriptor)
    return int(address)

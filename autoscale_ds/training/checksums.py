"""Checksums of a checkpoint's files: made while they are written, checked beside loading."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from autoscale_ds.errors import CheckpointError

_BLOCK = 1 << 20
_THREADS = 4  # a rank; zlib works outside of Python's lock


class ChecksumWriter:
    """A file opened for writing that adds up the CRC-32 of what is written to it; enough of one for ``torch.save``."""

    def __init__(self, path: str | Path) -> None:
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by the context
        self._crc = 0

    @property
    def checksum(self) -> str:
        """Eight hexadecimal digits."""
        return f"{self._crc:08x}"

    def write(self, data: bytes) -> int:
        """Write, and count in."""
        self._crc = zlib.crc32(data, self._crc)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def __enter__(self) -> ChecksumWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def file_checksum(path: Path) -> str:
    """Return the CRC-32 of a file, eight hexadecimal digits; 2.8 GB/s on one core."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


class Verification:
    """Checks a rank's share of a checkpoint's files in threads, while the checkpoint is being loaded.

    Parameters
    ----------
    folder : Path
        Of the checkpoint.
    checksums : mapping of str to str
        By path in the folder.
    rank, world_size : int
        Every ``world_size``-th file is this rank's.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, str], rank: int, world_size: int) -> None:
        names = sorted(checksums)[rank::world_size]
        self._expected = {folder / name: checksums[name] for name in names}
        self._pool = ThreadPoolExecutor(_THREADS, "checksum")
        self._found: dict[Path, Future[str]] = {path: self._pool.submit(file_checksum, path) for path in self._expected}

    def finish(self) -> None:
        """Wait for the checks; raise CheckpointError for the first file that is not as it was written."""
        try:
            for path, expected in self._expected.items():
                found = self._found[path].result()
                if found != expected:
                    raise CheckpointError(f"{path} has CRC-32 {found}, it was written with {expected}")
        finally:
            self._pool.shutdown(cancel_futures=True)

"""Checksums of a checkpoint's files, checked beside loading.

``torch.save`` writes a zip archive with the CRC-32 of each of its records. What is kept of a file is a checksum of that
list: saving costs nothing more, and one that was changed, cut or put in the place of another is found by reading it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from autoscale_ds.errors import CheckpointError

_BLOCK = 1 << 20
_THREADS = 4  # a rank; zlib works outside of Python's lock
_ARCHIVE = "zip-"


def archive_checksum(path: str | Path) -> str:
    """Return the CRC-32 of the names, sizes and CRC-32 of a zip archive's records; reads the list alone."""
    with zipfile.ZipFile(path) as archive:
        records = sorted((record.filename, record.file_size, record.CRC) for record in archive.infolist())
    return f"{_ARCHIVE}{zlib.crc32(repr(records).encode()):08x}"


def check_file(path: Path, expected: str) -> None:
    """Read a whole file; raise CheckpointError when it is not the one that has this checksum."""
    try:
        if expected.startswith(_ARCHIVE):
            found = archive_checksum(path)
            _read_records(path)
        else:
            found = file_checksum(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if found != expected:
        raise CheckpointError(f"{path} has CRC-32 {found}, it was written with {expected}")


def _read_records(path: Path) -> None:
    """Raise BadZipFile when a record does not have its CRC-32."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            with archive.open(record) as file:
                while file.read(_BLOCK):
                    pass


def file_checksum(path: Path) -> str:
    """Return the CRC-32 of a whole file: for those that are no archives, and for all of earlier versions."""
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
        self._pool = ThreadPoolExecutor(_THREADS, "checksum")
        self._checks: list[Future[None]] = [self._pool.submit(check_file, folder / n, checksums[n]) for n in names]

    def finish(self) -> None:
        """Wait for the checks; raise CheckpointError for the first file that is not as it was written."""
        try:
            for check in self._checks:
                check.result()
        finally:
            self._pool.shutdown(cancel_futures=True)

"""Compressed files: told by their endings, decompressed block by block."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, Any

import zstandard

# Text handled at once: 2-4 MiB stays in cache through parsing, hashing and tokenising; 1 and 8 MiB are slower.
BLOCK_BYTES = 2 << 20
# Bytes of a compressed file read at once: first, and at most.
_FEWEST_RAW_BYTES, _RAW_BYTES = 1 << 10, 1 << 15
# `zstd --long=31`, the most there is. The memory of a window is taken only as far as the data fills it.
_LARGEST_WINDOW = 1 << 31
_DECODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj(),
    ".xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),  # zeros would be a file of the older format
    ".bz2": bz2.BZ2Decompressor,
}
COMPRESSED = tuple(_DECODERS)


def is_compressed(path: str) -> bool:
    """Tell by the ending, in capitals or not."""
    return path.lower().endswith(COMPRESSED)


def byte_blocks(file: IO[bytes], path: str, size: int) -> Iterator[bytes]:
    """Yield the contents of a file, decompressed by its name; of a damaged one what came before, then the error.

    Parameters
    ----------
    file : IO[bytes]
        Opened at its beginning.
    path : str
        Its name.
    size : int
        Bytes to read: a buffer of ``BLOCK_BYTES`` for each of many small files would take most of the time.
    """
    if is_compressed(path):
        yield from _decompress(file, _DECODERS[PurePath(path).suffix.lower()])
        return
    while size > 0 and (data := file.read(min(size, BLOCK_BYTES))):
        yield data
        size -= len(data)


def _decompress(file: IO[bytes], new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress the members of a file (frames, in zstd; streams, in xz and bzip2) one after the other.

    The readers of the libraries would not do: that of ``gzip`` loses what it had decompressed before damage, that of
    ``zstandard`` takes a cut-off file for a short one. No more is read at once than gives about a block of text: some
    kilobytes of a repetitive file are hundreds of megabytes.
    """
    decoder = None
    began = False
    size = _FEWEST_RAW_BYTES
    while raw := file.read(size):
        given = 0
        while raw := raw if decoder is not None or not began else raw.lstrip(b"\0"):  # zeros may follow a member
            decoder, began = decoder or new_decoder(), True
            text = decoder.decompress(raw)
            given += len(text)
            yield text
            raw = decoder.unused_data
            decoder = None if decoder.eof else decoder
        size = min(2 * size, _RAW_BYTES) if 2 * given < BLOCK_BYTES else max(size * BLOCK_BYTES // given // 2, 64)
    if decoder is not None:
        raise EOFError("the compressed file is cut off")
    if not began:
        raise EOFError("the compressed file is empty")

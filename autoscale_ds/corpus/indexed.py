r"""Token shards in Megatron's indexed format: ``PREFIX.bin`` holds tokens, ``PREFIX.idx`` says where sequences lie.

``.bin`` is little-endian tokens back to back. ``.idx`` is ``MMIDIDX\0\0``, ``<Q`` version 1, ``<B`` dtype code,
``<Q`` sequences S, ``<Q`` D + 1, int32 lengths[S] in tokens, int64 byte offsets[S], int64 document_indices[D + 1].
Megatron, NeMo and datatrove read what is written here, and what they write is read here.

Opening costs a header and two ``stat`` calls, whatever the size: the arrays of the index are mapped, not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from autoscale_ds.corpus.mapping import limit_reached, map_array
from autoscale_ds.errors import CorpusError

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPE_OF_CODE: dict[int, np.dtype] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    6: np.dtype("<f8"),
    7: np.dtype("<f4"),
    8: np.dtype("<u2"),
}
_CODE_OF_DTYPE = {dtype: code for code, dtype in _DTYPE_OF_CODE.items()}


def token_dtype(vocabulary_size: int) -> np.dtype:
    """Return the dtype Megatron uses for a vocabulary: u16 under 65,500 entries, else i32."""
    return np.dtype("<u2") if vocabulary_size < 65_500 else np.dtype("<i4")


class IndexedShard:
    """One ``.bin``/``.idx`` pair, memory-mapped and read-only.

    Attributes
    ----------
    prefix : Path
        Path without ``.bin``/``.idx``.
    tokens : ndarray, shape (num_tokens,)
        All tokens of the shard, documents back to back, each ended by its end-of-document token.
    num_sequences, num_documents, num_tokens : int
        Megatron allows several sequences a document; shards written here have one.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        bin_path, idx_path = shard_files(self.prefix)
        try:
            with open(idx_path, "rb") as file:
                header = file.read(_HEADER.size)
            bin_bytes, idx_bytes = bin_path.stat().st_size, idx_path.stat().st_size
        except OSError as error:
            raise limit_reached(error) or CorpusError(f"cannot open token shard {self.prefix}: {error}") from None
        self.dtype, self.num_sequences, num_indices = _parse_header(header, idx_path)
        self.num_documents = num_indices - 1
        expected = _HEADER.size + 12 * self.num_sequences + 8 * num_indices
        if self.num_sequences and idx_bytes == expected + self.num_sequences:
            raise CorpusError(
                f"{idx_path} is Megatron's multimodal index: it ends with the mode (int8) of each of its "
                f"{self.num_sequences} sequences, and modes cannot be read here; write the text alone, with "
                "multimodal=False in Megatron's IndexedDatasetBuilder or with tools/preprocess_domains.py"
            )
        if idx_bytes != expected:
            raise CorpusError(
                f"{idx_path} is {idx_bytes} bytes, its header promises {expected}: it is truncated; "
                "rerun tools/preprocess_domains.py"
            )
        if bin_bytes % self.dtype.itemsize:
            raise CorpusError(
                f"{bin_path}: {bin_bytes} bytes is no whole number of {self.dtype} tokens; it is truncated"
            )
        self.num_tokens = bin_bytes // self.dtype.itemsize
        self.tokens: npt.NDArray = map_array(bin_path, self.dtype, 0, self.num_tokens)
        self._idx_path = idx_path
        self._check_last_sequence(bin_path)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence, shape (num_sequences,)."""
        return map_array(self._idx_path, np.dtype("<i4"), _HEADER.size, self.num_sequences)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Byte offset of each sequence in ``.bin``, shape (num_sequences,)."""
        return map_array(self._idx_path, np.dtype("<i8"), _HEADER.size + 4 * self.num_sequences, self.num_sequences)

    @property
    def document_indices(self) -> npt.NDArray[np.int64]:
        """First sequence of each document, then num_sequences, shape (num_documents + 1,)."""
        start = _HEADER.size + 12 * self.num_sequences
        return map_array(self._idx_path, np.dtype("<i8"), start, self.num_documents + 1)

    def document(self, index: int) -> npt.NDArray:
        """Return the tokens of one document, shape (length,), end-of-document token included."""
        if not 0 <= index < self.num_documents:
            raise CorpusError(
                f"document {index} of {self.prefix}: the shard holds documents 0..{self.num_documents - 1}"
            )
        first, last = (int(value) for value in self.document_indices[index : index + 2])
        if first == last:
            return self.tokens[:0]
        start = int(self.offsets[first]) // self.dtype.itemsize
        stop = int(self.offsets[last - 1]) // self.dtype.itemsize + int(self.lengths[last - 1])
        return self.tokens[start:stop]

    def _check_last_sequence(self, bin_path: Path) -> None:
        """Refuse a foreign dialect (first sequence misplaced) and a truncated ``.bin`` (last one beyond the end)."""
        if self.num_sequences == 0:
            return
        lengths, offsets = self.lengths, self.offsets
        if self.num_sequences > 1 and int(offsets[1]) - int(offsets[0]) != int(lengths[0]) * self.dtype.itemsize:
            raise CorpusError(
                f"{self._idx_path}: sequence 1 does not follow sequence 0 at {self.dtype} tokens; this is not "
                "Megatron's index (DeepSpeed's data_sampling writes the same magic with other dtype codes); "
                "rebuild it with tools/preprocess_domains.py"
            )
        end = int(offsets[-1]) + int(lengths[-1]) * self.dtype.itemsize
        size = self.num_tokens * self.dtype.itemsize
        if end != size:
            raise CorpusError(
                f"{bin_path} is {size} bytes, its index ends at byte {end}: the shard is damaged; "
                "rerun tools/preprocess_domains.py"
            )


class IndexedWriter:
    """Write one shard, one sequence a document; the pair appears under its name only when complete.

    Both files are written beside their place, flushed to disk, and renamed, ``.bin`` first: an ``.idx`` that exists
    always has its whole ``.bin``. Used as a context manager; leaving by an exception removes what was begun.

    Attributes
    ----------
    sha256_bin, sha256_idx : str
        Digests of the two files, taken while writing; empty until ``close``.
    """

    def __init__(self, prefix: str | Path, dtype: np.dtype) -> None:
        self.prefix = Path(prefix)
        self.dtype = np.dtype(dtype)
        self.num_tokens = 0
        self.sha256_bin = self.sha256_idx = ""
        self._digest = hashlib.sha256()
        self._lengths: list[int] = []
        self._partial = self.prefix.with_name(self.prefix.name + ".partial")
        self._bin = open(shard_files(self._partial)[0], "wb")  # noqa: SIM115 - closed in close() and abort()

    def add_document(self, tokens: npt.ArrayLike) -> None:
        """Append one document, shape (length,), its end-of-document token included."""
        array = np.ascontiguousarray(tokens, dtype=self.dtype)
        self.add_documents(array, np.array([len(array)]))

    def add_documents(self, tokens: npt.NDArray, lengths: npt.NDArray[np.integer]) -> None:
        """Append many documents lying back to back in ``tokens``; ``lengths`` sums to ``len(tokens)``."""
        assert int(lengths.sum()) == len(tokens), "document lengths do not add up to the tokens given"
        raw = np.ascontiguousarray(tokens, dtype=self.dtype).view("u1").data
        self._bin.write(raw)
        self._digest.update(raw)
        self._lengths.extend(lengths.tolist())
        self.num_tokens += len(tokens)

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return len(self._lengths)

    def close(self) -> None:
        """Write the index and give both files their names."""
        lengths = np.asarray(self._lengths, dtype="<i4")
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        offsets = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]]).astype("<i8")
        documents = np.arange(len(lengths) + 1, dtype="<i8")
        partial_bin, partial_idx = shard_files(self._partial)
        header = _HEADER.pack(MAGIC, 1, _CODE_OF_DTYPE[self.dtype], len(lengths), len(documents))
        index = b"".join((header, lengths.tobytes(), offsets.tobytes(), documents.tobytes()))
        with open(partial_idx, "wb") as idx:
            idx.write(index)
            _flush(idx)
        _flush(self._bin)
        self._bin.close()
        final_bin, final_idx = shard_files(self.prefix)
        os.replace(partial_bin, final_bin)
        os.replace(partial_idx, final_idx)
        self.sha256_bin = self._digest.hexdigest()
        self.sha256_idx = hashlib.sha256(index).hexdigest()

    def abort(self) -> None:
        """Remove what was begun."""
        with contextlib.suppress(OSError):  # on a full disk, closing fails again on what is still buffered
            self._bin.close()
        for path in shard_files(self._partial):
            path.unlink(missing_ok=True)

    def __enter__(self) -> IndexedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise


def shard_files(prefix: Path) -> tuple[Path, Path]:
    """Return the paths of the ``.bin`` and ``.idx`` of a shard."""
    return prefix.with_name(prefix.name + ".bin"), prefix.with_name(prefix.name + ".idx")


def _parse_header(header: bytes, path: Path) -> tuple[np.dtype, int, int]:
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise CorpusError(f"{path} is no Megatron index: it starts with {header[:9]!r}, expected {MAGIC!r}")
    _, version, code, num_sequences, num_indices = _HEADER.unpack(header)
    if version != 1 or code not in _DTYPE_OF_CODE:
        raise CorpusError(f"{path}: index version {version} with dtype code {code}; expected version 1 and code 1-8")
    return _DTYPE_OF_CODE[code], num_sequences, num_indices


def _flush(file: object) -> None:
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]

"""Shards are mapped without a file descriptor each, and a limit that binds is named with what raises it."""

from __future__ import annotations

import errno
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_helpers import REPOSITORY

from autoscale_ds.corpus import IndexedShard, IndexedWriter, mapping
from autoscale_ds.errors import CorpusError

NUM_SHARDS = 1300

MANY = """
import os, resource, sys
from pathlib import Path
from autoscale_ds.corpus import IndexedShard, TokenStore
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
folder = Path(sys.argv[1])
store = TokenStore([IndexedShard(folder / str(i)) for i in range(int(sys.argv[2]))])
assert len(os.listdir("/proc/self/fd")) < 20
print(store.num_tokens, store.read(0, store.num_tokens).tolist() == [i % 7 for i in range(store.num_tokens)])
child = os.fork()
if child == 0:
    os._exit(0 if store.document(5).tolist() == [3, 4] else 1)
print(os.waitpid(child, 0)[1])
"""

NONE_LEFT = """
import resource, sys
from autoscale_ds import cli
from autoscale_ds.corpus import IndexedShard
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 64))
held = []
try:
    while True:
        held.append(open("/dev/null"))
except OSError:
    pass
cli.run(lambda: IndexedShard(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(7):
        with IndexedWriter(folder / str(number), np.dtype("<u2")) as writer:
            writer.add_document(np.arange(2 * number, 2 * number + 2) % 7)
    for number in range(7, NUM_SHARDS):
        for ending in (".bin", ".idx"):
            shutil.copyfile(folder / f"{number % 7}{ending}", folder / f"{number}{ending}")
    return folder


def python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}, timeout=100)


def test_more_shards_open_than_descriptors_are_allowed(shards: Path):
    result = python(MANY, shards, NUM_SHARDS)
    assert (result.stdout, result.stderr) == (f"{2 * NUM_SHARDS} True\n0\n", "")


def test_the_limit_of_open_files_is_named(shards: Path):
    result = python(NONE_LEFT, shards / "0")
    assert result.returncode == 2
    assert "this process may have 16 files open; raise that with `ulimit -n 32` (at most 64 with" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_limit_of_mappings_is_named(shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "max_map_count").write_text("65530\n")
    monkeypatch.setattr(mapping, "_MAX_MAP_COUNT", tmp_path / "max_map_count")

    def refuse(*_: object) -> int | None:
        mapping.ctypes.set_errno(errno.ENOMEM)
        return mapping._FAILED

    monkeypatch.setattr(mapping._libc, "mmap", refuse)
    with pytest.raises(CorpusError, match=r"65530 mappings in one process \(vm.max_map_count\).*max_map_count=131060"):
        IndexedShard(shards / "0")


def test_a_mapped_array_is_an_ordinary_array_that_cannot_be_written(shards: Path):
    tokens = IndexedShard(shards / "3").tokens
    assert type(tokens) is np.ndarray
    assert pickle.loads(pickle.dumps(tokens)).tolist() == tokens.tolist() == [6, 0]
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        tokens.flags.writeable = True


def test_a_mapping_ends_with_its_last_array(tmp_path: Path):
    path = tmp_path / "values.bin"
    path.write_bytes(np.arange(10_000, dtype="<i8").tobytes())
    window = mapping.map_array(path, np.dtype("<i8"), 8 * 4321, 7)[2:4]
    assert window.tolist() == [4323, 4324]
    assert str(path) in Path("/proc/self/maps").read_text()
    del window
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_file_that_is_too_short_is_refused(tmp_path: Path):
    (tmp_path / "values.bin").write_bytes(bytes(15))
    with pytest.raises(CorpusError, match="shorter than 16 bytes"):
        mapping.map_array(tmp_path / "values.bin", np.dtype("<i8"), 0, 2)

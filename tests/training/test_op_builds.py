"""Locks left by processes that were killed while compiling an op."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from autoscale_ds.training.engine.op_builds import sole_build, use_own_folder

BUILD = """
import sys, time
from pathlib import Path
from autoscale_ds.training.engine.op_builds import sole_build
folder = Path(sys.argv[1])
with sole_build(folder):
    (folder / "lock").touch()
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "lock").unlink()
"""


@contextlib.contextmanager
def builder(folder):
    command = [sys.executable, "-c", BUILD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "building\n"
        yield process


def test_the_lock_of_a_killed_builder_is_removed_by_the_next(tmp_path):
    with builder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "lock").exists()
    with sole_build(tmp_path):
        assert not (tmp_path / "lock").exists()


def test_a_builder_waits_for_one_that_is_at_work(tmp_path):
    with builder(tmp_path) as first:
        command = [sys.executable, "-c", BUILD, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second:
            first.stdin.write("end\n")
            first.stdin.flush()
            assert second.stdout.readline() == "building\n"
            assert first.wait() == 0
            second.communicate("end\n")
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_program_that_does_not_know_ours_is_left_alone(tmp_path):
    (tmp_path / "lock").touch()
    with sole_build(tmp_path):
        assert (tmp_path / "lock").exists()


def test_each_environment_builds_in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/usr/bin")
    folders = []
    for prefix in ("/envs/a", "/envs/b", "/envs/a"):
        monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
        monkeypatch.setattr(sys, "prefix", prefix)
        use_own_folder()
        folders.append(os.environ["TORCH_EXTENSIONS_DIR"])
    assert folders[0] == folders[2] != folders[1]
    assert shutil.which("ninja") == str(Path(sys.executable).parent / "ninja")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    use_own_folder()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(tmp_path)

"""Compiling DeepSpeed's C++ ops, safely for processes that start together or are killed while compiling.

torch compiles an op in a shared folder and guards it by a file ``lock`` that it removes at the end. A process killed
in between leaves the file, and every later process on the machine waits for it for ever. Here a lock of the kernel's,
which death frees, is held around the build; whoever gets it and finds that its last owner did not finish removes the
file.

An op is compiled again when its command differs from that of the build in the folder, and two environments have
different commands: sharing a folder, they would compile in turns, minutes each time. So each has one of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
# A build of someone who does not hold our lock is left alone for so long; the slowest op took 5 minutes on a busy CPU.
FOREIGN_BUILD_SECONDS = 1800.0
_BUILDING = b"building"


def build_op(name: str) -> None:
    """Compile one of DeepSpeed's ops unless this environment has it, and load it; other processes wait.

    Parameters
    ----------
    name : str
        Of DeepSpeed's builder, ``CPUAdamBuilder`` for one.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    use_own_folder()
    builder = get_accelerator().create_op_builder(name)
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    folder = Path(_get_build_directory(builder.name, verbose=False))
    with sole_build(folder):
        if not any(folder.glob("*.so")):
            log.info("compiling DeepSpeed's %s (a minute or two, once in this environment) ...", builder.name)
        builder.load(verbose=False)


def use_own_folder() -> None:
    """Let torch build in a folder of this environment, with its ninja; TORCH_EXTENSIONS_DIR counts where it is set."""
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    programs = Path(sys.executable).parent
    if (programs / "ninja").exists() and shutil.which("ninja") != str(programs / "ninja"):
        os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
    if "TORCH_EXTENSIONS_DIR" not in os.environ:
        own = hashlib.sha256(f"{sys.prefix} {sys.version} {torch.__version__}".encode()).hexdigest()[:12]
        os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(get_default_build_root()) / f"autoscale_ds-{own}")


@contextlib.contextmanager
def sole_build(folder: Path) -> Iterator[None]:
    """Hold a build folder for this process; others wait. Left-over locks of the dead are removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".owner", "a+b") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that compiles in %s ...", folder)
            fcntl.flock(owner, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: torch's own has to do
            pass
        owner.seek(0)
        _remove_stale(folder / "lock", died=owner.read() == _BUILDING)
        owner.truncate(0)
        owner.write(_BUILDING)
        owner.flush()
        yield
        owner.truncate(0)


def _remove_stale(lock: Path, died: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - os.stat(lock).st_mtime
        if died or age > FOREIGN_BUILD_SECONDS:
            log.warning("%s was left by a process that died while compiling; removed", lock)
            lock.unlink()

"""Ranks of training jobs, and tools, forked from a process that has already imported what they need.

Of the six seconds that a small job takes to its first step, five are imports of torch and DeepSpeed, the same for each
of some hundred jobs. Python's fork server imports them once. A rank is a process of its own all the same, forked before
any of its state exists: it runs ``launch/train.py`` as ``__main__``, with its own environment, signals and output. The
tests of README, clusters and launchers start the commands as people do.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

_CONTEXT = multiprocessing.get_context("forkserver")
_IMPORTED = [
    "autoscale_ds.training.trainer",
    "autoscale_ds.training.engine",
    "autoscale_ds.sweep.worker",
    "deepspeed",
    "deepspeed.module_inject",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch._dynamo.aot_compile",  # by torch.optim, when an optimizer is made
    "torch.utils.cpp_extension",
    "rich.logging",
    "rich.progress",
]


def fork_server():
    """Return the context of multiprocessing whose processes begin with the imports made."""
    _CONTEXT.set_forkserver_preload(_IMPORTED)
    with mock.patch.dict(os.environ, {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()  # the libraries read these when they are imported
    return _CONTEXT


class ForkedProcess:
    """One rank, with the methods of ``subprocess.Popen`` that tests use.

    Parameters
    ----------
    command : list of str
        A Python script and its arguments.
    env : dict
        The whole environment of the process.
    log : path
        Receives its standard output, and its errors too unless they have a file of their own.
    errors : path, optional
        Receives its standard error.
    """

    def __init__(self, command, env, log, errors=None):
        arguments = (command, env, str(log), errors and str(errors))
        self._process = fork_server().Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked rank", timeout)
        return self._process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()


def run_forked(command, env=None, timeout=120):
    """Run a script to its end, as ``subprocess.run`` with its output as text."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        process = ForkedProcess(command, dict(os.environ if env is None else env), *files)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, code, *(file.read_text() for file in files))


def _run(command, env, log, errors):
    for place, path in ((1, log), (2, errors)):
        output = 1 if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, place)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = command
    multiprocessing.current_process()._config["daemon"] = False  # a job may start processes
    runpy.run_path(command[0], run_name="__main__")

#!/usr/bin/env python3
"""A real SLURM cluster of two nodes on this machine: munged, slurmctld and two slurmd, as any user.

  python tests/cluster/slurm_cluster.py                                   a shell inside; the cluster ends with it
  python tests/cluster/slurm_cluster.py -- srun -N2 hostname              one command inside

Everything lies in one temporary folder with its own key, sockets and ports, beside any other SLURM; everything is
stopped and removed at the end, also after Ctrl-C. `work` is the default partition; a job in `urgent` preempts those
of `work`, which get SIGTERM, 60 seconds, and are queued again. Needs `apt-get install slurm-wlm munge`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
GRACE_SECONDS = 60
# What `finally` cannot do when this process is killed, the kernel does.
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM")
# Debian puts daemons where only root looks.
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# Nodes are named by loopback addresses: names that resolve on every machine, and MASTER_ADDR must.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=2000
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.2 Port={ports[2]} CPUs=2 RealMemory=2000
PartitionName=work Nodes=127.0.0.[1-2] Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} State=UP
PartitionName=urgent Nodes=127.0.0.[1-2] PriorityTier=100 PreemptMode=OFF State=UP
"""


def missing_programs() -> str | None:
    """Return why there can be no cluster here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    return f"{missing[0]} not found: apt-get install slurm-wlm munge" if missing else None


class SlurmCluster:
    """Starts the daemons; ``environment`` is what a command needs to talk to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCH_PATH}
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Return when both nodes are ready for jobs."""
        self._write_files()
        self._daemon("munged", "--foreground", "--force", *self._munge_files())
        wait_until(lambda: (self.folder / "munge.socket").exists(), "munged does not start", 20)
        self._daemon("slurmctld", "-D", "-i")
        for node in ("127.0.0.1", "127.0.0.2"):
            self._daemon("slurmd", "-D", "-N", node)
        wait_until(self._ready, f"the nodes do not get ready, see the logs in {self.folder}", 60)

    def run(self, *command: object, check: bool = True) -> str:
        """Run a command of SLURM's and return what it prints."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or not check, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def stop(self) -> None:
        """End all jobs, then the daemons, the last started first."""
        if any(daemon.poll() is None for daemon in self._daemons[1:]):
            self._end_jobs()
        for daemon in reversed(self._daemons):
            _end(daemon)

    def _end_jobs(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired, AssertionError, TimeoutError):
            self.run("scancel", "--user", _user())
            wait_until(lambda: not self.run("squeue", "--noheader"), "jobs do not end", 30)

    def _ready(self) -> bool:
        dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
        assert not dead, f"{dead[0]} ended at once, see the logs in {self.folder}"
        return self.run("sinfo", "--noheader", "-p", "work", "-o", "%t %D", check=False) == "idle 2"

    def _daemon(self, program: str, *options: str) -> None:
        path = shutil.which(program, path=SEARCH_PATH)
        with open(self.folder / f"{program}.out", "a", encoding="utf-8") as log:
            command = [*DIE_WITH_PARENT, str(path), *options]
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
            )

    def _munge_files(self) -> list[str]:
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        names |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        return [f"--{option}={self.folder / name}" for option, name in names.items()]

    def _write_files(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        text = CONFIG.format(folder=self.folder, host=host, user=_user(), ports=_free_ports(3), grace=GRACE_SECONDS)
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        (self.folder / "state").mkdir()


@contextlib.contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Run a cluster in a temporary folder; stopped and removed whatever happens."""
    # Not below pytest's long folders: the path of a socket has room for 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = SlurmCluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def wait_until(condition, what: str, timeout: float) -> None:
    """Poll until ``condition()`` holds; raise TimeoutError(what) after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _end(daemon: subprocess.Popen) -> None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main(command: Sequence[str]) -> int:
    """Run a command, or a shell, in a cluster of its own."""
    reason = missing_programs()
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    with slurm_cluster() as cluster:
        print(f"export SLURM_CONF={cluster.folder / 'slurm.conf'}", file=sys.stderr)
        return subprocess.run(list(command) or [os.environ.get("SHELL", "bash")], env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main([part for part in sys.argv[1:] if part != "--"]))

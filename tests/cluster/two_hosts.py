"""Two hosts on this machine: network namespaces with an address each and a cable (veth) between them.

Both are processes of one namespace of process ids, and the namespaces live as long as it does: when the first process
ends, however it ends, the kernel removes all of it. Needs root, for the sshd on each.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from slurm_cluster import SEARCH_PATH, wait_until

ADDRESSES = {"host-a": "10.97.0.1", "host-b": "10.97.0.2"}
HOSTS = tuple(ADDRESSES)
PROGRAMS = {"unshare": "util-linux", "ip": "iproute2", "sshd": "openssh-server", "pdsh": "pdsh"}

# Each host has its own network and name; both see the first one's files. The second is a child of the first.
SETUP = """\
set -euo pipefail
cd "$1"
hostname host-a
mount --bind ssh_config /etc/ssh/ssh_config
mount --bind hosts /etc/hosts
mkdir -p /run/sshd
unshare --net --uts sh -c 'hostname host-b; echo $$ > b.pid; exec sleep infinity' &
until [ -s b.pid ] && [ "$(nsenter --net=/proc/$!/ns/net ip -o link | wc -l)" = 1 ]; do sleep 0.1; done
ip link add eth0 type veth peer name eth0 netns $!
for host in "$$ {a}" "$! {b}"; do
  set -- $host
  nsenter --net=/proc/$1/ns/net --uts=/proc/$1/ns/uts sh -c "
    ip link set lo up; ip addr add $2/24 dev eth0; ip link set eth0 up
    exec $SSHD -D -f $PWD/sshd_config -o ListenAddress=$2 -o PidFile=none" &
done
touch ready
wait
"""


def missing() -> str | None:
    """Return why there can be no two hosts here, or None."""
    if os.getuid():
        return "network namespaces with an sshd each need root"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=SEARCH_PATH) is None:
            return f"{program} not found: apt-get install {package}"
    allowed = subprocess.run(["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], check=False)
    return "this machine does not allow network namespaces" if allowed.returncode else None


class TwoHosts:
    """``run`` starts a command on the first host; ``received`` counts what came over the cable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first: subprocess.Popen | None = None

    def start(self) -> None:
        """Return when ssh gets from the first host to both."""
        self._write_ssh_files()
        own = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--uts",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        script = SETUP.format(a=ADDRESSES["host-a"], b=ADDRESSES["host-b"])
        env = os.environ | {"PATH": SEARCH_PATH, "SSHD": str(shutil.which("sshd", path=SEARCH_PATH))}
        with open(self.folder / "hosts.log", "w", encoding="utf-8") as log:
            command = [*own, "bash", "-c", script, "bash", str(self.folder)]
            self._first = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._reachable, f"no ssh between the hosts: {self.folder / 'hosts.log'}", 30)

    def run(self, *command: object, **options) -> subprocess.CompletedProcess:
        """Run a command on the first host."""
        assert self._first is not None
        (inside,) = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
        enter = ["nsenter", "--target", inside, "--net", "--uts", "--mount", "--pid"]
        return subprocess.run(
            [*enter, *map(str, command)], capture_output=True, text=True, timeout=500, check=False, **options
        )

    def received(self) -> int:
        """Return the bytes the first host has received over the cable."""
        (link,) = json.loads(self.run("ip", "-json", "-statistics", "link", "show", "eth0").stdout)
        return int(link["stats64"]["rx"]["bytes"])

    def stop(self) -> None:
        """End the first process: the kernel ends all others and takes the namespaces away."""
        if self._first is not None:
            self._first.send_signal(signal.SIGKILL)
            self._first.wait()

    def _reachable(self) -> bool:
        assert self._first is not None
        assert self._first.poll() is None, (self.folder / "hosts.log").read_text()
        ready = (self.folder / "ready").exists()
        return ready and all(self.run("ssh", host, "true").returncode == 0 for host in HOSTS)

    def _write_ssh_files(self) -> None:
        for key in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        names = "".join(f"{address} {host}\n" for host, address in ADDRESSES.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/authorized_keys\n"
            "StrictModes no\nPermitRootLogin yes\nUsePAM no\n"
        )
        (self.folder / "ssh_config").write_text(
            f"Host *\n  IdentityFile {self.folder}/user_key\n  StrictHostKeyChecking no\n"
            "  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        )


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Keep two hosts for a while; gone afterwards, whatever happens."""
    hosts = TwoHosts(folder)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()

"""Training that really crosses a network link, started by the launchers that go by ssh or by rendezvous."""

import json
import os

import pytest
import yaml
from jobs import DS, ROOT, Job, losses, settings
from two_hosts import HOSTS, missing, two_hosts

pytestmark = [pytest.mark.cluster, pytest.mark.job, pytest.mark.timeout(1200)]
# What the ranks on both hosts need; DeepSpeed passes no other variable on but those of its environment file.
PASSED_ON = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
        yield pair


@pytest.fixture(scope="module")
def one_host(small_corpus, tmp_path_factory):
    """The losses of two ranks on this machine."""
    folder = tmp_path_factory.mktemp("one")
    Job(folder, settings(folder / "run", small_corpus), ranks=2).finish()
    return losses(folder / "run")


def write_files(folder, corpus):
    """Write what a job is started with; return its arguments."""
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(folder / "run", corpus)))
    (folder / "ds.json").write_text(json.dumps(DS))
    (folder / "hosts").write_text("".join(f"{host} slots=1\n" for host in HOSTS))
    passed_on = PASSED_ON | {name: os.environ[name] for name in ("PATH", "TORCH_EXTENSIONS_DIR") if name in os.environ}
    (folder / "ds_env").write_text("".join(f"{name}={value}\n" for name, value in passed_on.items()))
    return [ROOT / "launch/train.py", "--config", folder / "run.yaml", "--deepspeed_config", folder / "ds.json"]


def train(hosts, folder, *command):
    """Run a launcher on the first host; return the bytes that came over the cable meanwhile."""
    before = hosts.received()
    env = os.environ | PASSED_ON | {"DS_ENV_FILE": str(folder / "ds_env"), "PYTHONPATH": str(ROOT)}
    done = hosts.run(*command, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return hosts.received() - before


def check_crossing(received, run):
    """Every step exchanges the gradients of all parameters, 4 bytes each, half of them at the least from over there."""
    steps, parameters = 30, 108_352
    assert received > steps * parameters * 4 / 2, "the gradients did not cross the link"
    assert len(losses(run)) == steps


def test_deepspeed_by_ssh_trains_across_the_link_and_loses_nothing(hosts, one_host, small_corpus, tmp_path):
    job = write_files(tmp_path, small_corpus)
    launcher = ["deepspeed", "--hostfile", tmp_path / "hosts", "--master_addr", HOSTS[0]]
    check_crossing(train(hosts, tmp_path, *launcher, *job), tmp_path / "run")
    assert losses(tmp_path / "run") == one_host


def test_torchrun_with_a_rendezvous_trains_across_the_link(hosts, one_host, small_corpus, tmp_path):
    job = write_files(tmp_path, small_corpus)
    torchrun = ["torchrun", "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d"]
    command = " ".join(map(str, [*torchrun, "--rdzv-endpoint", f"{HOSTS[0]}:29400", *job]))
    exports = (tmp_path / "ds_env").read_text().replace("\n", " ")
    (tmp_path / "there.sh").write_text(f"cd {ROOT} && env {exports} PYTHONPATH={ROOT} {command}\n")
    both = f"ssh {HOSTS[1]} bash {tmp_path}/there.sh & {command} && wait $!"
    check_crossing(train(hosts, tmp_path, "bash", "-c", both), tmp_path / "run")
    assert losses(tmp_path / "run") == one_host

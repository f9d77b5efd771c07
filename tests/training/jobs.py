"""Real training jobs for tests: configurations, processes, and what they left behind."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import yaml
from forked import ForkedProcess, run_forked

from autoscale_ds.stream.journal import read_events

ROOT = Path(__file__).parents[2]
SIZES = {"web": 9000, "code": 5000, "books": 2000}
STOP_AT = 10
DS = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}}


def settings(run, corpus, **changes):
    """Return a small configuration: 30 steps of 8 x 32 tokens, everything logged; ``changes`` by dotted name."""
    tree = {
        "run": str(run),
        "budget_tokens": 30 * 8 * 32,
        "seed": 3,
        "data": {"corpus": str(corpus), "sequence_length": 32, "global_batch": 8, "log_samples": True},
        "mixture": {"weights": {"web": 0.5, "code": 0.3, "books": 0.2}, "poll_seconds": 0},
        "model": {"preset": "nano"},
        "optimizer": {"learning_rate": 3e-3},
        "schedule": {"warmup_tokens": 1280},
        "evaluation": {"every_steps": 10, "windows_per_domain": 6},
        "checkpoints": {"every_steps": 5, "keep": 3},
        "logging": {"every_steps": 1, "tensorboard": False},
    }
    for name, value in changes.items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


class RankProcesses:
    """A script on some ranks, one forked process each, with the variables that torchrun sets."""

    def __init__(self, folder, command, ranks=1, port=None):
        port = str(port or free_port())
        self.logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
        self.processes = []
        for rank in range(ranks):
            env = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
            self.processes.append(ForkedProcess(command, env, self.logs[rank]))

    def wait(self, timeout=240):
        """Return the exit codes of all ranks."""
        try:
            return [process.wait(timeout) for process in self.processes]
        finally:
            self.kill()

    def finish(self, timeout=240):
        """Wait for ranks that must succeed."""
        codes = self.wait(timeout)
        assert codes == [0] * len(codes), "\n".join(log.read_text()[-3000:] for log in self.logs)
        return self

    def signal(self, number, rank=0):
        self.processes[rank].send_signal(number)

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


class Job(RankProcesses):
    """``launch/train.py`` on some ranks; or another script, given both files and ``more``."""

    def __init__(self, folder, tree, ds=None, ranks=1, port=None, script=None, more=()):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = Path(tree["run"])
        (folder / "run.yaml").write_text(yaml.safe_dump(tree))
        (folder / "ds.json").write_text(json.dumps(ds or DS))
        command = [str(ROOT / "launch/train.py"), "--config", str(folder / "run.yaml")]
        command += ["--deepspeed_config", str(folder / "ds.json")]
        if script is not None:
            command = [str(script), str(folder / "run.yaml"), str(folder / "ds.json"), *more]
        super().__init__(folder, command, ranks, port)

    def until_step(self, step, timeout=400):
        """Wait until the run has logged ``step``."""
        deadline = time.monotonic() + timeout
        while self.last_step() < step:
            assert self.processes[0].poll() is None, self.logs[0].read_text()[-3000:]
            assert time.monotonic() < deadline, "the job does not get on"
            time.sleep(0.01)

    def last_step(self):
        """The newest step on record, -1 where there is none: a job that starts anew drops what another one wrote."""
        records = self.metrics("train")
        return records[-1]["step"] if records else -1

    def metrics(self, kind):
        return read_metrics(self.run, kind)


def read_metrics(run, kind):
    path = Path(run) / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(run):
    """Return {step: (loss, losses by domain)} of a finished run."""
    return {record["step"]: (record["loss"], record["domain_loss"]) for record in read_metrics(run, "train")}


def consumed(run):
    """Return the sample lines of all ranks in the order of step and slot."""
    lines = [line for path in (Path(run) / "samples").glob("rank-*.txt") for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: tuple(map(int, line.split()[:2])))


def tool(name, *arguments):
    """Run one of tools/ and return the finished process."""
    return run_forked([str(ROOT / "tools" / name), *map(str, arguments)])


def replayed(run, steps):
    """Return the sample lines of the first steps of a run, by its seed and journal."""
    done = tool("replay_stream.py", run, "--steps", f"0:{steps}")
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def everything(run):
    """Return the content of every file of a run folder but its lock."""
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"}


def of(lines, domain):
    """Return the sample lines of one domain."""
    return [line for line in lines if line.split()[2] == domain]


def journal(trainer):
    """Return the events of a run."""
    return read_events(trainer.folder.journal)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

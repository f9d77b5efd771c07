#!/usr/bin/env python3
"""A study of text found on this machine, from collecting it to a better model; no download, no GPU.

Examples:
  python examples/quickstart.py                              # make quickstart
  python examples/quickstart.py --minutes 15 --folder runs/longer

It measures this machine for a few seconds and chooses sizes for the time given. Then:

  1. It collects text of seven domains. The goal is a model of code: Python and C count, the other domains do not.
  2. launch/study.py trains probe runs, decides on a mixture and says what gain it expects. It trains a small GPT-2 with
     the decided mixture and one with uniform weights, on two ranks with DeepSpeed ZeRO-1, and compares.
  3. A third run begins with uniform weights. While it trains, the decided weights are swapped in; then it is killed
     without warning and resumed. Up to the step of the swap its losses are those of the uniform run, bit for bit.

Every command is printed and can be run by hand; what they print goes to FOLDER/quickstart.log.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import yaml
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.models import initialise
from autoscale_ds.report.compare import tokens_to_reach
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import Event, read_events
from autoscale_ds.study.config import StudyConfig
from autoscale_ds.study.outcome import decision, objective_curve, outcome
from autoscale_ds.study.runner import Commands, Record, Stopped
from autoscale_ds.study.steps import Paths, training
from autoscale_ds.sweep.plan import PLAN_FILE, SweepPlan, tokens_label
from autoscale_ds.sweep.progress import survey
from autoscale_ds.training.config import ModelConfig
from autoscale_ds.training.metrics import read_metrics
from autoscale_ds.training.signals import REQUEUE_EXIT_CODE

ROOT = Path(__file__).resolve().parents[1]
RANKS = 2
GOAL = {"python": 1, "c": 1}
VOCABULARY, SEQUENCE, BATCH = 1024, 128, 8
# All probes have 4 times the tokens of the main run. It is so short that smaller probes learn next to nothing; those of
# a real study have a tenth of its tokens, at two budgets.
PROBES, SHARE, FIRST = (0.4,), 4.1, 9
# Probes and two ranks reach these shares of the bare loop's speed. The third run trains some steps twice.
PROBE_SPEED, RANKS_SPEED = 0.55, 0.5
COST = SHARE / PROBE_SPEED + (1 + 1 + 1.2) / RANKS_SPEED  # of all training, in budgets of the main run
# Seconds that do not depend on the budget, and tokens per second of both cores, on the machine this was measured on.
FIXED, REFERENCE = 165.0, 56_000.0
LEAST, MOST = 200_000, 20_000_000
BYTES_PER_TOKEN = 2.8
LINE_SECONDS = 15.0
console = cli.console()


@dataclass(frozen=True)
class Sizes:
    """What fits into the time on this machine.

    Attributes
    ----------
    tokens : int
        Budget of the main run.
    speed : float
        Tokens per second of all workers, as measured.
    """

    tokens: int
    speed: float

    @classmethod
    def of(cls, minutes: float, speed: float) -> Sizes:
        """Choose sizes; steps that do not train take longer on a slow machine as well."""
        seconds = 60 * minutes - FIXED * REFERENCE / speed
        tokens = min(max(seconds * speed / COST, LEAST), MOST)
        return cls(round(tokens / (40 * SEQUENCE * BATCH)) * 40 * SEQUENCE * BATCH, speed)

    @property
    def minutes(self) -> float:
        """About how long all of it takes."""
        return (FIXED * REFERENCE / self.speed + COST * self.tokens / self.speed) / 60

    @property
    def megabytes(self) -> float:
        """Text of each domain: enough that no run reads any twice."""
        return round(max(1.2 * self.tokens * BYTES_PER_TOKEN / 1e6, 1.5), 1)


def measured_speed() -> float:
    """Train the model of the study for two seconds, on as many cores as will be used; return tokens per second."""
    workers = min(RANKS, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return sum(pool.map(_speed_of_one_core, [2.0] * workers))


def _speed_of_one_core(seconds: float) -> float:
    torch.set_num_threads(1)
    model = ModelConfig(preset="nano").build(SEQUENCE, VOCABULARY).build()
    initialise(model, 0)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (BATCH, SEQUENCE))
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1)[:, :VOCABULARY], tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        done += tokens.numel()
    return done / (time.perf_counter() - began)


class Bar:
    """How far all of it is: a bar in a terminal, a line now and then elsewhere."""

    def __init__(self, minutes: float) -> None:
        self._began, self._said, self._expected = time.monotonic(), 0.0, 60 * minutes
        columns = BarColumn(), TextColumn("{task.percentage:>3.0f} %", markup=False), TimeElapsedColumn()
        self._progress = Progress(*columns, TextColumn("{task.description}", markup=False), console=console)
        self._task = self._progress.add_task("", total=1.0)
        self._done = 0.0

    @contextmanager
    def shown(self) -> Iterator[Bar]:
        """Show it, in a terminal."""
        if not console.is_terminal:
            yield self
            return
        with self._progress:
            yield self

    def update(self, done: float, text: str) -> None:
        """Say which share of the work is done, and what is being done."""
        self._done = max(done, self._done)
        self._progress.update(self._task, completed=self._done, description=text)
        now = time.monotonic()
        if not console.is_terminal and now - self._said > LINE_SECONDS:
            self._said = now
            passed = now - self._began
            console.print(f"  {self._done:4.0%} after {passed:3.0f} s  {text}", highlight=False, soft_wrap=True)


class Quickstart:
    """All of it, in order."""

    def __init__(self, folder: Path, sizes: Sizes, bar: Bar) -> None:
        self.folder, self.sizes, self.bar = folder, sizes, bar
        self.log = folder / "quickstart.log"
        self.study_file = folder / "study.yaml"
        self.swapped = folder / "swapped"
        self._read = 0
        self._commands = Commands(ROOT, self.say, self.log)
        self._commands.install()
        # Seconds of each part, for the bar; those that train have a share of the budget.
        slow, budget = REFERENCE / sizes.speed, sizes.tokens / (sizes.speed * RANKS_SPEED)
        self._parts = {
            "corpus": 18 * slow,
            "plan": 4 * slow,
            "search": 25 * slow + SHARE * budget * RANKS_SPEED / PROBE_SPEED,
            "decide": 16 * slow,
            "main": 14 * slow + budget,
            "baseline": 14 * slow + budget,
            "report": 20 * slow,
            "swapped": 30 * slow + 1.2 * budget,
            "page": 20 * slow,
        }

    def say(self, text: str) -> None:
        """Print a command."""
        console.print(text, style="dim", soft_wrap=True, highlight=False)

    def make_corpus(self) -> None:
        """Collect text and write token shards and the study file."""
        raw, corpus = self.folder / "raw", self.folder / "corpus"
        self.begin("corpus", "collecting text")
        self._commands(["examples/embedded_corpus.py", str(raw), f"--megabytes-per-domain={self.sizes.megabytes}"])
        domains = [f"--domain={path.stem}={path}" for path in sorted(raw.glob("*.jsonl"))]
        options = [f"--train-tokenizer={VOCABULARY}", "--validation-fraction=0.05", f"--output={corpus}"]
        self.bar.update(self._before("corpus") + 0.04, "tokenising")
        self._commands(["tools/preprocess_domains.py", *options, *domains])

    def write_study(self) -> None:
        """Write the study file and the files it names."""
        tokens, config = self.sizes.tokens, {"config": "launch/configs/probe.yaml"}
        config["deepspeed_config"] = str(self.folder / "deepspeed.json")
        settings = {"train_micro_batch_size_per_gpu": BATCH // RANKS, "zero_optimization": {"stage": 1}}
        Path(config["deepspeed_config"]).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        steps = tokens // (SEQUENCE * BATCH)
        overrides = ["optimizer.learning_rate=8e-3", "logging.every_steps=5"]
        # Loss by domain is measured at the end of a probe alone, and at ten points of the main run.
        probes = [f"evaluation.every_steps={steps}", f"checkpoints.every_steps={steps}"]
        main = [f"evaluation.every_steps={steps // 10}", f"checkpoints.every_steps={steps // 10}"]
        study = {
            "folder": str(self.folder / "study"),
            "corpus": str(self.folder / "corpus"),
            "targets": GOAL,
            "against": "uniform",
            "probes": config
            | {
                "tokens": [round(tokens * part) for part in PROBES],
                "share": SHARE,
                "first": FIRST,
                "batch": 1,
                "workers": RANKS,
                "match_repetition": False,
                "overrides": overrides + probes,
            },
            "main": config
            | {
                "tokens": tokens,
                "launcher": f"deepspeed --num_gpus {RANKS} --master_port {_free_port()}",
                "baseline": True,
                "overrides": overrides + main,
            },
        }
        text = "# Written by examples/quickstart.py; launch/study.py run takes it.\n"
        self.study_file.write_text(text + yaml.safe_dump(study, sort_keys=False), encoding="utf-8")

    def study(self) -> StudyConfig:
        """Run the study."""
        study = StudyConfig.read(self.study_file)
        self._read = self.log.stat().st_size
        self._commands(["launch/study.py", "run", str(self.study_file)], watch=lambda job: self._follow_study(study))
        self._echo()
        return study

    def _follow_study(self, study: StudyConfig) -> None:
        """Show what the study does, from the files it writes."""
        self._echo()
        paths, done = Paths(Path(study.folder)), Record(study).done
        part = next((name for name in self._parts if name not in (*done, "corpus")), "report")
        if part == "search" and (paths.probes / PLAN_FILE).exists():
            states = survey(paths.probes, SweepPlan.read(paths.probes))
            share = sum(state.tokens for state in states) / (SHARE * study.main.tokens)
            ready = sum(state.state == "done" for state in states)
            self._show(part, share, f"probe runs: {ready} of {len(states)} done")
        elif part in ("main", "baseline"):
            run, name = (paths.main, "decided") if part == "main" else (paths.baseline, "uniform")
            self._show_run(part, run, f"training with {name} weights")
        else:
            self._show(part, 0.0, {"plan": "planning", "decide": "deciding"}.get(part, "drawing the report"))

    def swap_kill_resume(self, study: StudyConfig) -> tuple[Event, int]:
        """Train with uniform weights, swap in the decided ones, kill the job, and start it again.

        Returns
        -------
        Event
            The swap.
        int
            The step whose checkpoint it went on from.
        """
        command = training(study.main, study.corpus, self.swapped, study.against)
        steps = self.sizes.tokens // (SEQUENCE * BATCH)
        swap: Event | None = None

        def follow(job: subprocess.Popen) -> None:
            nonlocal swap
            step = self._show_run("swapped", self.swapped, "training with uniform weights, to be swapped")
            if swap is None and step >= steps // 4:
                swap = self._swap(Paths(Path(study.folder)).weights)
            elif swap is not None and step >= max(steps * 2 // 3, swap.effective_step + steps // 10):
                os.killpg(job.pid, signal.SIGKILL)

        self._commands(command, allowed=(-signal.SIGKILL,), watch=follow)
        if swap is None:
            raise TrainingError(f"the run ended before its weights were swapped; see {self.log}")
        latest = (self.swapped / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
        console.print("killed every process of the job with SIGKILL; the same command goes on:", style="bold")
        self._commands(command, watch=lambda job: self._resumed())
        return swap, int(latest.split("-")[1])

    def _swap(self, weights: Path) -> Event:
        """Propose the decided weights to the run that trains, and wait until it took them up."""
        command = ["tools/swap_weights.py", str(self.swapped), "--weights", str(weights), "--wait", "--timeout", "60"]
        self.say("$ python " + shlex.join(command))
        line = [sys.executable, str(ROOT / command[0]), *command[1:]]
        done = subprocess.run(line, capture_output=True, text=True, check=False, start_new_session=True)
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode:
            raise TrainingError(f"the weights were not swapped; see {self.log}")
        return read_events(RunPaths(self.swapped).journal)[-1]

    def _resumed(self) -> None:
        self._show_run("swapped", self.swapped, "training with the decided weights, resumed")

    def report(self, study: StudyConfig) -> Path:
        """Draw the page of the three runs and return it."""
        self.begin("page", "drawing the report")
        paths, out = Paths(Path(study.folder)), self.folder / "report"
        runs = {"uniform": paths.baseline, "decided": paths.main, "swapped": self.swapped}
        labels = [f"--label={name}={run}" for name, run in runs.items()]
        self._commands(["tools/report.py", str(paths.probes), *labels, "--title", "Quickstart", "--out", str(out)])
        self.bar.update(1.0, "done")
        return out / "index.html"

    def begin(self, part: str, text: str) -> None:
        """Say that a part begins."""
        self._show(part, 0.0, text)

    def _before(self, part: str) -> float:
        names = list(self._parts)
        return sum(self._parts[name] for name in names[: names.index(part)]) / sum(self._parts.values())

    def _show(self, part: str, share: float, text: str) -> None:
        within = self._parts[part] / sum(self._parts.values())
        self.bar.update(self._before(part) + within * min(share, 1.0), text)

    def _show_run(self, part: str, run: Path, text: str) -> int:
        """Show how far a run is; return its step."""
        metrics = RunPaths(run).metrics
        records = read_metrics(metrics, "train") if metrics.exists() else []
        if not records:
            self._show(part, 0.0, text)
            return 0
        step, tokens, loss = (records[-1][name] for name in ("step", "tokens", "loss"))
        self._show(part, tokens / self.sizes.tokens, f"{text}: step {step}, loss {loss:.3f}")
        return int(step)

    def _echo(self) -> None:
        """Print the commands of the study, which it prints into the log."""
        with open(self.log, "rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text.rpartition(b"\n")[0] + b"\n" if b"\n" in text else b""
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if line.startswith("$ ") or re.match(r"\[\d+/\d+\] ", line):
                self.say(line)


def show(quickstart: Quickstart, study: StudyConfig, swap: Event, resumed_from: int) -> None:
    """Print what the decision gained, the swap, and where everything lies."""
    paths, goal = Paths(Path(study.folder)), " + ".join(GOAL)
    runs = {"uniform": paths.baseline, "decided": paths.main, "swapped while training": quickstart.swapped}
    curves = {name: objective_curve(run, str(paths.objective)) for name, run in runs.items()}
    budget, last = curves["uniform"][-1]
    table = Table(title=f"\nloss of {goal} on held-out text, nats per token")
    for name in ("weights", "at the end", "tokens to the last loss of uniform", ""):
        table.add_column(name, justify="left" if name == "weights" else "right")
    for name, curve in curves.items():
        tokens, values = zip(*curve, strict=True)
        needed = tokens_to_reach(tokens, values, last)
        row = (f"{needed:,.0f}", f"{budget / needed:.2f}x fewer") if needed else ("never", "")
        table.add_row(name, f"{values[-1]:.3f}", *(row if name != "uniform" else (f"{budget:,.0f}", "")))
    console.print(table)
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in swap.weights.items() if weight >= 5e-4)
    for name, text in (
        ("decided", weights),
        ("expected", outcome(study).lines[0]),
        ("swap", f"version {swap.version}, effective exactly from step {swap.effective_step} on every rank"),
        ("equal", _equal_until(runs["uniform"], quickstart.swapped, swap.effective_step)),
        ("resume", f"killed, then continued from the checkpoint after step {resumed_from}"),
        ("study", f"python launch/study.py status {quickstart.study_file}"),
        ("samples", f"python tools/replay_stream.py {quickstart.swapped} --steps 0:10"),
    ):
        console.print(f"{name:9} {text}", soft_wrap=True, highlight=False)
    sentence = str(decision(study)["sentence"])
    console.print(f"\n{sentence}", soft_wrap=True, highlight=False)


def _equal_until(one: Path, other: Path, step: int) -> str:
    """Compare the losses two runs logged before a step."""
    first, second = (
        {each["step"]: each["loss"] for each in read_metrics(RunPaths(run).metrics, "train") if each["step"] <= step}
        for run in (one, other)
    )
    if first != second:
        raise TrainingError(f"{one} and {other} differ before step {step}, though they read the same samples")
    return f"its {len(first)} logged losses up to step {step} are those of the uniform run, bit for bit"


def main() -> int:
    """Run all of it."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="made anew (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=cli.positive, default=4.5, help="time to choose sizes for (default: %(default)s)"
    )
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    os.chdir(ROOT)  # the commands it prints are meant for there
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(max((os.cpu_count() or RANKS) // RANKS, 1))}
    folder = Path(os.path.relpath(folder))
    _empty(folder)
    began = time.monotonic()
    sizes = Sizes.of(arguments.minutes, measured_speed())
    console.print(
        f"{sizes.speed:,.0f} tokens/s on this machine: a main run of {tokens_label(sizes.tokens)} tokens and "
        f"{sizes.megabytes:g} MB of text a domain; about {sizes.minutes:.1f} minutes in all",
        highlight=False,
        soft_wrap=True,
    )
    try:
        with Bar(sizes.minutes).shown() as bar:
            quickstart = Quickstart(folder, sizes, bar)
            quickstart.make_corpus()
            quickstart.write_study()
            study = quickstart.study()
            swap, resumed_from = quickstart.swap_kill_resume(study)
            page = quickstart.report(study)
    except Stopped:
        console.print("stopped; no job is left running")
        return REQUEUE_EXIT_CODE
    show(quickstart, study, swap, resumed_from)
    console.print(f"\nnow open  {page}   ({(time.monotonic() - began) / 60:.1f} minutes)", style="bold")
    return 0


def _empty(folder: Path) -> None:
    """Remove what an earlier quickstart left; never anything else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "quickstart.log").exists():
        raise ConfigError(f"{folder} is not empty and no quickstart made it; give another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "quickstart.log").touch()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    cli.run(main)

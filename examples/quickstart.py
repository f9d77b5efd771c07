"""The main job from raw text to a report, on this machine, without a download or a GPU.

    make quickstart            or: python examples/quickstart.py [--folder runs/quickstart] [--steps 300]

It makes a corpus of seven domains out of text already on the machine, trains a tokenizer and writes token shards; runs
thirty small probe runs at two scales, finds the best mixture at both and predicts the one for the main run; trains a
small GPT-2 on two CPU ranks with DeepSpeed ZeRO-1, swaps the predicted weights in half-way, kills the job without
warning and resumes it; and draws a report of all. Every step is a command you can run yourself; they are printed.

The probe runs are far too short to find weights worth having: what is shown is the way, not a result.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import Event, read_events
from autoscale_ds.sweep.plan import tokens_label
from autoscale_ds.training.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
RANKS, BATCH_TOKENS = 2, 16 * 256
SCALES = (60_000, 120_000)
FLOOR = 0.05
# The bar counts steps of the main run; making tokens, probing and reporting take about as long as so many.
TOKENISING, PROBING, AFTER = 60, 220, 20
BEFORE = TOKENISING + PROBING
console = cli.console()


class Quickstart:
    """The commands, in order, with one progress bar over all of them."""

    def __init__(self, folder: Path, steps: int, bar: Progress) -> None:
        self.folder, self.steps, self._bar = folder, steps, bar
        self.run = folder / "run"
        self._log = folder / "quickstart.log"
        self._task = bar.add_task("", total=BEFORE + steps + AFTER)

    def make_corpus(self) -> None:
        """Collect text and write token shards."""
        raw, corpus = self.folder / "raw", self.folder / "corpus"
        self._do("collecting text", "examples/embedded_corpus.py", raw, advance=TOKENISING // 3)
        domains = [f"--domain={path.stem}={path}" for path in sorted(raw.glob("*.jsonl"))]
        options = ["--train-tokenizer=4096", "--validation-fraction=0.05", f"--output={corpus}"]
        self._do("tokenising", "tools/preprocess_domains.py", *options, *domains, advance=TOKENISING * 2 // 3)

    def probe(self) -> None:
        """Train AutoScale's 2m + 1 probe runs at both scales."""
        sweep, tokens = self.folder / "sweep", ",".join(f"{scale}" for scale in SCALES)
        plan: list[Any] = ["--config", "launch/configs/probe.yaml", "--deepspeed_config", "ds_configs/zero1_cpu.json"]
        plan += ["--kind", "ddo", "--tokens", tokens, "--target-tokens", self.steps * BATCH_TOKENS]
        self._do("planning", "launch/sweep.py", "plan", sweep, *plan, f"data.corpus={self.folder / 'corpus'}")
        self._do("probing", "launch/sweep.py", "work", sweep, "--workers", 2, advance=PROBING)
        self._do("collecting", "launch/sweep.py", "collect", sweep)

    def predict(self) -> Path:
        """Find the optimum at each scale and the weights for the main run; return their file."""
        optima: list[Any] = []
        for scale, label in zip(SCALES, map(tokens_label, SCALES), strict=True):
            out = self.folder / f"optimum-{label}.json"
            base = ["--base", f"{label}/base", "--objective", "mean-loss", "--floor", FLOOR]
            self._do("fitting", "tools/fit_mixture.py", "ddo", self.folder / "sweep/runs.parquet", *base, "--out", out)
            optima += ["--at", f"{scale}={out}"]
        out = self.folder / "weights.json"
        budget = ["--tokens", self.steps * BATCH_TOKENS, "--floor", FLOOR]
        saved = ["--save-path", self.folder / "autoscale.json", "--out", out]
        self._do("predicting", "tools/fit_mixture.py", "autoscale", *optima, *budget, *saved)
        return out

    def train_until_swapped(self, weights: Path) -> Event:
        """Start training, swap the predicted weights in half-way, and kill the job a little later."""
        job = self._start("training")
        self._follow(job, self.steps // 2)
        reason = ["--reason", "predicted by AutoScale", "--wait"]
        self._do("swapping the weights", "tools/swap_weights.py", self.run, "--weights", weights, *reason)
        self._follow(job, self.steps * 2 // 3)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        console.print("killed every process of the job with SIGKILL; the same command goes on:", style="bold")
        return read_events(RunPaths(self.run).journal)[-1]

    def resume(self) -> int:
        """Start the same command again, wait for its end, and return the step it went on from."""
        latest = (self.run / "checkpoints" / "latest").read_text(encoding="utf-8").strip()
        job = self._start("training, resumed")
        self._follow(job, self.steps)
        if job.wait():
            raise TrainingError(f"the resumed job failed; see {self._log}")
        return int(latest.split("-")[1])

    def report(self) -> Path:
        """Draw the report of run and sweep and return its page."""
        out = self.folder / "report"
        what = [self.run, self.folder / "sweep", "--title", "Quickstart", "--out", out]
        self._do("drawing the report", "tools/report.py", *what, advance=AFTER)
        return out / "index.html"

    def _start(self, what: str) -> subprocess.Popen:
        command: list[Any] = ["deepspeed", "--num_gpus", RANKS, "--master_port", _free_port(), "launch/train.py"]
        command += ["--deepspeed_config", "ds_configs/zero1_cpu.json", "--config", "launch/configs/micro.yaml"]
        command += [f"run={self.run}", f"data.corpus={self.folder / 'corpus'}"]
        command += [f"budget_tokens={self.steps * BATCH_TOKENS}"]
        self._say(what, command)
        threads = max((os.cpu_count() or RANKS) // RANKS, 1)
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        with open(self._log, "a", encoding="utf-8") as log:
            command = [str(part) for part in command]
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True)

    def _follow(self, job: subprocess.Popen, step: int) -> None:
        """Show the job's progress until it has logged ``step``."""
        metrics, done = RunPaths(self.run).metrics, 0
        while done < step:
            if job.poll() not in (None, 0):
                raise TrainingError(f"the training job ended with code {job.returncode}; see {self._log}")
            time.sleep(0.2)
            records = read_metrics(metrics, "train") if metrics.exists() else []
            if records:
                done = records[-1]["step"]
                text = f"training: step {done}, loss {records[-1]['loss']:.3f}"
                self._bar.update(self._task, completed=BEFORE + done, description=text)

    def _do(self, what: str, *command: Any, advance: int = 0) -> None:
        self._say(what, ["python", *command])
        with open(self._log, "a", encoding="utf-8") as log:
            arguments = [sys.executable, *map(str, command)]
            done = subprocess.run(arguments, stdout=log, stderr=subprocess.PIPE, text=True, check=False)
            log.write(done.stderr)
        if done.returncode:
            raise TrainingError(f"{what} failed: {done.stderr.strip().splitlines()[-1]}; see {self._log}")
        self._bar.advance(self._task, advance)

    def _say(self, what: str, command: list[Any]) -> None:
        self._bar.update(self._task, description=what)
        console.print("$ " + shlex.join(map(str, command)), style="dim", soft_wrap=True)


def show(folder: Path, event: Event, resumed_from: int) -> None:
    """Print what was learned of each domain, the swap, and where everything lies."""
    run, corpus = folder / "run", Corpus(folder / "corpus")
    validation = read_metrics(RunPaths(run).metrics, "validation")
    first, last = validation[0], validation[-1]
    before = read_events(RunPaths(run).journal)[0]
    table = Table(title="\nvalidation loss by domain, nats per token")
    for name in ("domain", "tokens", "weight", "after swap", f"step {first['step']}", f"step {last['step']}"):
        table.add_column(name, justify="left" if name == "domain" else "right")
    for name in corpus.domains:
        tokens = sum(shard.tokens for shard in corpus.shards(name))
        weights = f"{before.weights[name]:.3f}", f"{event.weights[name]:.3f}"
        losses = f"{first['domain_loss'][name]:.3f}", f"{last['domain_loss'][name]:.3f}"
        table.add_row(name, f"{tokens:,}", *weights, *losses)
    console.print(table)
    console.print(
        f"swap      version {event.version}, effective exactly from step {event.effective_step} on every rank"
    )
    console.print(f"resume    killed, then continued from the checkpoint after step {resumed_from}")
    console.print(f"metrics   {run}/metrics.jsonl, TensorBoard in {run}/tensorboard", soft_wrap=True)
    replay = f"python tools/replay_stream.py {run} --steps 0:10"
    console.print(f"samples   {replay}   (equal to {run}/samples)", soft_wrap=True)


def main() -> None:
    """Run all of it."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/quickstart"), help="made anew; relative to the repository"
    )
    parser.add_argument("--steps", type=cli.positive_int, default=300, help="training steps (default 300)")
    arguments = parser.parse_args()
    os.chdir(ROOT)  # the commands it prints are meant for there
    folder = Path(os.path.relpath(arguments.folder))
    _empty(folder)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        quickstart = Quickstart(folder, arguments.steps, bar)
        quickstart.make_corpus()
        quickstart.probe()
        event = quickstart.train_until_swapped(quickstart.predict())
        resumed_from = quickstart.resume()
        page = quickstart.report()
    show(folder, event, resumed_from)
    console.print(f"\nnow open  {page}", style="bold")


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

r"""Train a language model on a mixture of domains.

    deepspeed launch/train.py --deepspeed_config ds_configs/zero2_bf16.json --config launch/configs/gpt2_large.yaml
    deepspeed --num_gpus 2 launch/train.py --deepspeed_config ds_configs/zero1_cpu.json \
        --config launch/configs/micro.yaml
    torchrun --nproc-per-node 8 launch/train.py --deepspeed_config ... --config ... seed=1 optimizer.learning_rate=3e-4
    python launch/train.py --deepspeed_config ds_configs/zero1_cpu.json --config launch/configs/micro.yaml   (one rank)

Any value of the configuration can be overridden as key=value. The same command resumes a run from its newest
checkpoint. SIGTERM, SIGUSR1 or Ctrl-C save and end it with exit code 75 ("try again later"). While it runs, change
its weights with tools/swap_weights.py.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from autoscale_ds.training.signals import StopRequest

STOP = StopRequest()
if __name__ == "__main__":
    STOP.end_while_starting()  # before the imports below, which take seconds

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from autoscale_ds import cli, config
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.training import launchers
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import read_ds_config, resolve
from autoscale_ds.training.record_kinds import kind_of


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("--config", required=True, help="what is learned: a YAML file, see launch/configs/")
    parser.add_argument(
        "--deepspeed_config", required=True, help="how the hardware does it: a JSON file, see ds_configs/"
    )
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; not needed")
    parser.add_argument(
        "--accept-new-text",
        action="store_true",
        help="go on although the corpus holds other text in some domains; those are read from their beginning",
    )
    parser.add_argument("--quiet", action="store_true", help="warnings only, no progress bar")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example data.global_batch=256")
    return parser.parse_intermixed_args()


class Terminal:
    """What a person sees: messages, and on a terminal a progress bar; both on rank 0 only."""

    def __init__(self, rank: int, quiet: bool, total_steps: int) -> None:
        self._console = cli.console(stderr=True)
        _start_logging(self._console, logging.WARNING if quiet or rank else logging.INFO)
        self._total = total_steps
        self._bar = Progress(
            TextColumn("step", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or rank > 0 or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps)
        self._says_lines = not quiet and rank == 0 and not self._console.is_terminal

    def show(self, record: Mapping[str, Any]) -> None:
        """Show one metrics record: on the bar, or as a line where there is no terminal."""
        kind = kind_of(record)
        if record["kind"] == "start":
            self._total = record["total_steps"]
            self._bar.update(self._task, total=self._total, completed=record["step"])
        if kind.in_one_line is None:
            return
        text = kind.in_one_line(record)
        if kind.counts_steps:
            self._bar.update(self._task, completed=record["step"], description=text)
        if self._says_lines:
            logging.getLogger("autoscale_ds").info("step %s/%s  %s", f"{record['step']:,}", f"{self._total:,}", text)
        elif not kind.counts_steps:
            logging.getLogger("autoscale_ds").info("step %s  %s", f"{record['step']:,}", text)

    def __enter__(self) -> Terminal:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _start_logging(console: Console, level: int) -> None:
    """Send the package's messages to the terminal, above the bar, or as plain lines to a file."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    if console.is_terminal:
        handler = RichHandler(level, console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    logger = logging.getLogger("autoscale_ds")
    logger.setLevel(level)
    logger.addHandler(handler)
    logger.propagate = False


def read_configuration(arguments: argparse.Namespace, rank: int) -> tuple[RunConfig, dict[str, Any]]:
    """Return both configurations, checked against each other; only rank 0 prints a mistake."""
    try:
        run = config.load(RunConfig, arguments.config, arguments.overrides)
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        return run, resolve(read_ds_config(arguments.deepspeed_config), run, world_size)
    except AutoScaleError:
        if rank:
            sys.exit(2)
        raise


def say_that_a_rank_was_lost(error: RuntimeError) -> int:
    """Print that another rank has died, and return the exit code."""
    logging.getLogger("autoscale_ds").critical(
        "another rank of this job has ended: %s. Its own log says why; start the job again, it continues from the "
        "newest checkpoint",
        str(error).splitlines()[0],
    )
    return 1


def main() -> int:
    """Read both files, join the other ranks, train."""
    arguments = parse_arguments()
    launchers.fill_environment()
    rank = int(os.environ.get("RANK", "0"))
    run, ds_config = read_configuration(arguments, rank)
    with Terminal(rank, arguments.quiet, run.total_steps) as terminal:
        # Imported here: DeepSpeed takes seconds to load, a mistake in a file should not.
        from autoscale_ds.training.distributed import lost_a_rank, ranks_from_environment
        from autoscale_ds.training.engine import start_distributed, stop_distributed
        from autoscale_ds.training.trainer import Trainer

        ranks = ranks_from_environment()
        device = start_distributed(ranks)
        try:
            accepts = arguments.accept_new_text
            return Trainer(
                run, ds_config, ranks, device, on_record=terminal.show, stop=STOP, accept_new_text=accepts
            ).fit()
        except RuntimeError as error:
            if not lost_a_rank(error):
                raise
            return say_that_a_rank_was_lost(error)
        finally:
            stop_distributed()


if __name__ == "__main__":
    cli.run(main, tear_down=False, memory_advice="lower data.workers, data.prefetch or the ranks a node")

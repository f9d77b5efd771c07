"""Print which samples a run reads at which step, from its seed and journal alone.

    python tools/replay_stream.py RUN --steps 0:100
    python tools/replay_stream.py RUN --steps 0:        all that were done

The journal says which corpora, batches and limits the run has had, so no corpus is needed. One line a sample: step,
slot in the global batch, domain, epoch, window. A run with data.log_samples=true writes what it consumed to
RUN/samples/ in the same form; the two are identical.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.errors import ConfigError
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import read_events
from autoscale_ds.stream.planner import MixturePlanner, StreamEnd
from autoscale_ds.stream.samples import sample_lines
from autoscale_ds.training.checkpoints import checkpoint_step, list_checkpoints
from autoscale_ds.training.metrics import read_metrics
from autoscale_ds.training.run_corpus import open_run_corpus
from autoscale_ds.training.run_folder import RunFolder, load_run_config
from autoscale_ds.training.setup import recorded_spec


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--steps", required=True, metavar="A:B", help="steps A up to but not including B (A: is all that were done)"
    )
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    return parser.parse_args()


def main() -> None:
    """Skip the steps before A, print those from A on."""
    arguments = parse_arguments()
    first, last = _parse_steps(arguments.steps, arguments.run)
    if arguments.corpus:
        open_run_corpus(arguments.run, arguments.corpus)
    run, events = load_run_config(arguments.run), read_events(RunPaths(arguments.run).journal)
    planner = MixturePlanner(recorded_spec(run, events, arguments.corpus), events)
    try:
        for _ in range(first):
            planner.skip()
        for _ in range(first, last):
            sys.stdout.writelines(line + "\n" for line in sample_lines(planner.plan(), planner.names))
    except StreamEnd as end:
        print(f"the stream ends here: {end}", file=sys.stderr)


def _parse_steps(text: str, run: Path) -> tuple[int, int]:
    try:
        begin, end = text.split(":")
        first, last = int(begin), int(end) if end else _steps_done(run)
    except ValueError:
        first, last = 0, -1
    if not 0 <= first < last:
        raise ConfigError(f"--steps is {text!r}, expected A:B with 0 <= A < B, for example 0:100")
    return first, last


def _steps_done(run: Path) -> int:
    """Return the steps that were done: of the newest checkpoint, or of records written since."""
    folder = RunFolder(run)
    saved = [checkpoint_step(path) for path in list_checkpoints(folder.checkpoints)[:1]]
    records = read_metrics(folder.metrics, "train") if folder.metrics.exists() else []
    return max([0, *saved, *(int(record["step"]) for record in records[-1:])])


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

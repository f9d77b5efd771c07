"""Convert a checkpoint so that any number of ranks can continue it: whole weights and moments in one file.

python tools/convert_checkpoint.py RUN                 the newest checkpoint
python tools/convert_checkpoint.py RUN --step 4000

Writes portable.safetensors beside the checkpoint's own files. A job that starts in another layout (number of ranks,
ZeRO stage, tensor, pipeline or sequence parallelism, precision) does this by itself; do it beforehand where its ranks
should not wait, or have not the memory for a whole model and its moments (12 bytes a parameter).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.training.checkpoints import sound_checkpoint
from autoscale_ds.training.run_corpus import open_run_corpus
from autoscale_ds.training.run_folder import RunFolder, load_run_config


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--step", type=cli.natural, help="which checkpoint (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    return parser.parse_args()


def main() -> None:
    """Find the checkpoint, convert it."""
    arguments = parse_arguments()
    run = load_run_config(arguments.run)
    vocabulary = open_run_corpus(arguments.run, arguments.corpus).manifest.tokenizer.vocabulary_size
    checkpoint = sound_checkpoint(RunFolder(arguments.run).checkpoints, arguments.step)

    from autoscale_ds.training.engine import make_portable

    shape = run.model.build(run.data.sequence_length, vocabulary)
    path = make_portable(checkpoint.folder, checkpoint.layout, shape)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB; start the run with any number of ranks")


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

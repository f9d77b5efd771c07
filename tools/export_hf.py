"""Write a run's model as a Hugging Face folder: config.json, model.safetensors, tokenizer.json and its config.

python tools/export_hf.py RUN --output exported              the newest checkpoint
python tools/export_hf.py RUN --output exported --step 4000
python tools/export_hf.py RUN --output exported --weights-only     without the tokenizer

transformers.AutoModelForCausalLM.from_pretrained("exported") loads it, and AutoTokenizer its tokenizer, which is
checked to give the ids of the corpus before the weights are put together. The run is only read.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.corpus.tokenizer_export import export_tokenizer
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import make_folder, remove_empty
from autoscale_ds.training.trained import TrainedRun


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist yet")
    parser.add_argument("--step", type=cli.natural, help="which checkpoint (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    parser.add_argument(
        "--weights-only", action="store_true", help="leave the tokenizer out, for those who have one that gives its ids"
    )
    return parser.parse_args()


def main() -> None:
    """Find the checkpoint, put its weights together, write."""
    arguments = parse_arguments()
    if arguments.output.exists():
        raise ConfigError(f"{arguments.output} exists already; give another --output")
    run = TrainedRun(arguments.run, arguments.step, arguments.corpus)
    tokenizer, spec = run.tokenizer, run.spec
    with_tokenizer = bool(tokenizer.file) and not arguments.weights_only
    with _folder_beside(arguments.output) as working:
        unfinished = working / "hf"
        if with_tokenizer:  # takes seconds, the rest minutes
            export_tokenizer(run.corpus, unfinished, spec.context, spec.vocabulary)

        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        checkpoint, weights = run.weights(working / "converted")
        spec.write_hf(weights, unfinished, tokenizer.end_of_document)
        os.replace(unfinished, arguments.output)
    if not tokenizer.file and not arguments.weights_only:
        print(f"{run.corpus.folder} holds no tokenizer.json, so the folder has none either", file=sys.stderr)
    print(f"{checkpoint.folder} ({spec.num_parameters:,} parameters) written to {arguments.output}")


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Give a working folder from which the result can be renamed into place; leave nothing when it fails."""
    made = make_folder(output.parent)
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as working:
            yield Path(working)
    except BaseException:
        remove_empty(made)
        raise


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

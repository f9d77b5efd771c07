"""Write a run's model as a Hugging Face folder: config.json, model.safetensors, tokenizer.json and its config.

python tools/export_hf.py RUN --output exported              the newest checkpoint
python tools/export_hf.py RUN --output exported --step 4000

transformers.AutoModelForCausalLM.from_pretrained("exported") loads it, and AutoTokenizer its tokenizer, which is
checked to give the ids of the corpus before anything is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.corpus.tokenizer_export import export_tokenizer
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.checkpoints import find_checkpoint, read_checkpoint, verify_checkpoint
from autoscale_ds.training.run_corpus import open_run_corpus
from autoscale_ds.training.run_folder import RunFolder, load_run_config


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist yet")
    parser.add_argument("--step", type=cli.natural, help="which checkpoint (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    return parser.parse_args()


def main() -> None:
    """Find the checkpoint, put its weights together, write."""
    arguments = parse_arguments()
    if arguments.output.exists():
        raise ConfigError(f"{arguments.output} exists already; give another --output")
    run = load_run_config(arguments.run)
    corpus = open_run_corpus(arguments.run, arguments.corpus)
    checkpoint = read_checkpoint(find_checkpoint(RunFolder(arguments.run).checkpoints, arguments.step))
    verify_checkpoint(checkpoint)
    tokenizer = corpus.manifest.tokenizer

    from autoscale_ds.training.engine import saved_weights

    spec = run.model.build(run.data.sequence_length, tokenizer.vocabulary_size)
    weights = saved_weights(checkpoint.folder, checkpoint.layout, spec)
    with tempfile.TemporaryDirectory(dir=_existing(arguments.output.parent), prefix=".export-") as working:
        unfinished = Path(working) / "hf"
        if tokenizer.file:
            export_tokenizer(corpus, unfinished, spec.context, spec.vocabulary)
        spec.write_hf(weights, unfinished, tokenizer.end_of_document)
        os.replace(unfinished, arguments.output)
    if not tokenizer.file:
        print(f"{corpus.folder} holds no tokenizer.json, so the folder has none either", file=sys.stderr)
    print(f"{checkpoint.folder} ({spec.num_parameters:,} parameters) written to {arguments.output}")


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    cli.run(main)

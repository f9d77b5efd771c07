"""Write a run's model as a Hugging Face folder: config.json, model.safetensors, tokenizer.json.

python tools/export_hf.py RUN --output exported              the newest checkpoint
python tools/export_hf.py RUN --output exported --step 4000

transformers.AutoModelForCausalLM.from_pretrained("exported") loads it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.checkpoints import find_checkpoint, read_checkpoint
from autoscale_ds.training.run_folder import RunFolder, load_run_config


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist yet")
    parser.add_argument("--step", type=int, help="which checkpoint (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    return parser.parse_args()


def main() -> None:
    """Find the checkpoint, put its weights together, write."""
    arguments = parse_arguments()
    if arguments.output.exists():
        raise ConfigError(f"{arguments.output} exists already; give another --output")
    run = load_run_config(arguments.run)
    corpus = Corpus(arguments.corpus or run.data.corpus)
    checkpoint = read_checkpoint(find_checkpoint(RunFolder(arguments.run).checkpoints, arguments.step))
    tokenizer = corpus.manifest.tokenizer

    from autoscale_ds.training.engine import saved_weights

    spec = run.model.build(run.data.sequence_length, tokenizer.vocabulary_size)
    weights = saved_weights(checkpoint.folder, checkpoint.layout, spec)
    spec.write_hf(weights, arguments.output, tokenizer.end_of_document)
    if tokenizer.file:
        shutil.copy(corpus.folder / tokenizer.file, arguments.output / "tokenizer.json")
    print(f"{checkpoint.folder} ({spec.num_parameters:,} parameters) written to {arguments.output}")


if __name__ == "__main__":
    cli.run(main)

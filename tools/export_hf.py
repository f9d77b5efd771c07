"""Write a model as a complete Hugging Face folder: weights, configurations, tokenizer and model card.

python tools/export_hf.py RUN --output exported              the newest checkpoint
python tools/export_hf.py RUN --output exported --step 4000
python tools/export_hf.py RUN --output exported --weights-only     without the tokenizer
python tools/export_hf.py exported --output again                  of an exported folder: the same bytes

transformers' AutoModelForCausalLM, AutoTokenizer and pipeline("text-generation", "exported") read it. The tokenizer is
checked to give the ids of the corpus before the weights are put together. README.md is the model card: domains, the
journal of their weights, tokens seen, validation losses; fill in its licence. The run is only read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.errors import ConfigError
from autoscale_ds.interrupts import end_on_termination
from autoscale_ds.training.export import export


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("model", type=Path, help="run folder, or Hugging Face folder of this tool")
    parser.add_argument("folder", type=Path, nargs="?", help="folder to write, as --output")
    parser.add_argument("--output", type=Path, help="folder to write; must not exist yet")
    parser.add_argument("--step", type=cli.natural, help="which checkpoint (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the corpus lies now (default: as the run was told)")
    parser.add_argument(
        "--weights-only", action="store_true", help="leave the tokenizer out, for those who have one that gives its ids"
    )
    return parser.parse_args()


def main() -> None:
    """Export, and say what."""
    arguments = parse_arguments()
    outputs = [each for each in (arguments.folder, arguments.output) if each is not None]
    if len(outputs) != 1:
        given = " and ".join(map(str, outputs)) or "none"
        raise ConfigError(f"the folder to write is given once, with --output FOLDER or after the model; given: {given}")
    end_on_termination()
    exported = export(arguments.model, outputs[0], arguments.step, arguments.corpus, not arguments.weights_only)
    for sentence in exported.lacks:
        print(sentence, file=sys.stderr)
    print(f"{exported.source} ({exported.spec.num_parameters:,} parameters) written to {outputs[0]}")


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

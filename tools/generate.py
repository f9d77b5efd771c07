"""Write text with a trained model: any checkpoint of a run folder, or an exported Hugging Face folder.

python tools/generate.py RUN --prompt "Once upon a time"                       the likeliest text, newest checkpoint
python tools/generate.py RUN --prompt "The" --num 4 --temperature 0.8 --top-p 0.95 --seed 1
python tools/generate.py RUN --prompts-file prompts.txt --checkpoint 4000 --json > samples.json
python tools/generate.py exported --prompt ""                                  from the start of a document

Without --temperature, --top-p, --top-k and --num the likeliest token is taken each time. A sample depends on --seed,
its number and its prompt alone: asking for more of them, or for other prompts beside it, does not change it.
A sample ends with the document, after --max-tokens, or where the model's context is full.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoscale_ds import cli
from autoscale_ds.errors import ConfigError
from autoscale_ds.models.generation import Generated, Sampling, generate
from autoscale_ds.training.trained import TrainedModel, described, open_trained, out_of_memory_as_error, text_to_ids


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("model", type=Path, help="run folder, or Hugging Face folder of tools/export_hf.py")
    parser.add_argument("--prompt", action="append", default=[], help="text to continue; may be given several times")
    parser.add_argument("--prompts-file", type=Path, help="more prompts, one a line, UTF-8")
    parser.add_argument("--num", type=cli.positive_int, default=1, help="samples of each prompt (default 1)")
    parser.add_argument(
        "--max-tokens", type=cli.positive_int, default=128, help="tokens a sample, at most (default 128)"
    )
    parser.add_argument("--temperature", type=cli.positive, help="divides the logits (default 1, when sampling)")
    parser.add_argument("--top-p", type=cli.real(above=0.0, most=1.0), help="sample among this much probability")
    parser.add_argument("--top-k", type=cli.positive_int, help="sample among so many tokens")
    parser.add_argument("--seed", type=cli.natural, default=0, help="of the samples (default 0)")
    parser.add_argument("--batch-size", type=cli.positive_int, default=32, help="samples at a time (default 32)")
    parser.add_argument("--checkpoint", "--step", type=cli.natural, help="which one of a run (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the run's corpus lies now (default: as the run was told)")
    parser.add_argument("--tokenizer", help="tokenizer.json of the model, if it does not lie where it should")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def main() -> None:
    """Open the model, generate in batches, print."""
    arguments = parse_arguments()
    prompts = _prompts(arguments)
    trained = open_trained(arguments.model, arguments.checkpoint, arguments.corpus, arguments.tokenizer)
    asked = [(prompt, number) for prompt in prompts for number in range(arguments.num)]
    with out_of_memory_as_error(f"--batch-size {arguments.batch_size}"):
        made = _generate(trained, asked, _sampling(arguments), arguments)
    samples = [
        {"prompt": prompt, "number": number, "text": trained.tokenizer.decode(each.tokens), **asdict(each)}
        for (prompt, number), each in zip(asked, made, strict=True)
    ]
    if arguments.json:
        print(json.dumps({**described(trained), "seed": arguments.seed, "samples": samples}, indent=2))
    else:
        _show(samples)


def _prompts(arguments: argparse.Namespace) -> list[str]:
    prompts = list(arguments.prompt)
    if arguments.prompts_file is not None:
        try:
            prompts += arguments.prompts_file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{arguments.prompts_file} is not UTF-8 ({error}); expected one prompt a line") from None
    if not prompts:
        raise ConfigError(
            'there is no prompt; give --prompt TEXT (--prompt "" begins a document) or --prompts-file FILE'
        )
    return prompts


def _sampling(arguments: argparse.Namespace) -> Sampling | None:
    if arguments.num == 1 and arguments.temperature is arguments.top_p is arguments.top_k is None:
        return None
    return Sampling(arguments.temperature or 1.0, arguments.top_k, arguments.top_p, arguments.seed)


def _generate(
    trained: TrainedModel, asked: list[tuple[str, int]], sampling: Sampling | None, arguments: argparse.Namespace
) -> list[Generated]:
    end = trained.tokenizer.info.end_of_document
    ids = [tokens or [end] for tokens in text_to_ids(trained.tokenizer, [prompt for prompt, _ in asked])]
    made: list[Generated] = []
    with cli.counting("generating", len(asked)) as count:
        for start in range(0, len(asked), arguments.batch_size):
            part = slice(start, start + arguments.batch_size)
            numbers = [number for _, number in asked[part]]
            made += generate(
                trained.model, ids[part], arguments.max_tokens, end_of_document=end, sampling=sampling, numbers=numbers
            )
            count(len(numbers))
    return made


def _show(samples: list[dict[str, Any]]) -> None:
    for place, sample in enumerate(samples):
        if len(samples) > 1:
            print(f"{'' if place == 0 else chr(10)}--- sample {sample['number']} of {sample['prompt'][:60]!r}")
        print(sample["prompt"] + sample["text"])
        if sample["reason"] == "context":
            print(f"the model's context is full after {len(sample['tokens'])} tokens", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START, memory_advice="lower --batch-size or --max-tokens")

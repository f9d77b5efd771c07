"""The model card of an exported run: ``README.md`` with the header that the Hugging Face hub reads.

It is a function of the checkpoint and the records up to it: no date and no path of the machine is in it, so that the
same checkpoint gives the same card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import yaml

from autoscale_ds.stream.journal import START, Event, history
from autoscale_ds.training.checkpoints import COOLED, Checkpoint
from autoscale_ds.training.metrics import sound_records
from autoscale_ds.training.trained import TrainedRun

CARD_FILE = "README.md"
_LICENCES = "https://huggingface.co/docs/hub/repositories-licenses"
_FOLDERS = re.compile(r"(?<![\w.~])~?/(?:[^\s/]+/)*")  # of an absolute path: all but its last part


def model_card(run: TrainedRun, checkpoint: Checkpoint) -> str:
    """Return the card of a run's checkpoint: domains, weights and their journal, tokens, validation losses.

    Raises
    ------
    ReportError
        When ``metrics.jsonl`` is damaged.
    """
    kind, tokenizer = run.config.model.family, run.tokenizer
    events = _sampled(checkpoint)
    digest = f", SHA-256 of `tokenizer.json` {tokenizer.sha256}" if tokenizer.sha256 else ""
    others = run.config.start_from is not None or run.config.model.initial_weights is not None
    facts = {
        "parameters": f"{run.spec.num_parameters:,}",
        "shape": f"{run.spec.layers} layers x {run.spec.width} wide x {run.spec.heads} heads",
        "context": f"{run.spec.context:,} tokens",
        "sequence length in training": f"{run.config.data.sequence_length:,} tokens",
        "optimizer steps": f"{checkpoint.step:,}",
        "tokens seen": f"{checkpoint.state.tokens:,}",
        "first weights of the model": "another model's; its tokens are not counted here" if others else "random",
        "seed": str(run.config.seed),
        "tokenizer": f"{tokenizer.vocabulary_size:,} tokens{digest}",
    }
    step, losses = _validation(run, checkpoint)
    measured = f"Validation losses are in nats per token, after step {step:,}." if losses else "No validation is known."
    domains = sorted({*events[-1].weights, *losses})
    rows = [[_cell(name), f"{events[-1].weights.get(name, 0.0):g}", _loss(losses.get(name))] for name in domains]
    return "\n".join(
        [
            _header(kind),
            f"# {kind}, {run.spec.num_parameters:,} parameters",
            "",
            f"Pretrained with autoscale_ds on {len(events[-1].weights)} domains of text. The weight of a domain is its "
            "share of the training tokens; weights can change while a run goes on.",
            "",
            "To fill in before you publish: the licence (`license` in the header), the language, where the text comes "
            "from, what the model is meant for and what it is not.",
            "",
            "## Training",
            "",
            *_table(["", ""], [[name, value] for name, value in facts.items()]),
            "",
            "## Domains",
            "",
            f"Weights are those of the last step. {measured}",
            "",
            *_table(["domain", "weight", "validation loss"], rows),
            "",
            "## Journal of weights",
            "",
            "One line a change: its version, the first step sampled with the weights, who asked for them.",
            "",
            "```json",
            *map(_line, events),
            "```",
            "",
        ]
    )


def _header(kind: str) -> str:
    values = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": [kind, "autoscale_ds"]}
    licence = f"license: unknown  # to fill in: an identifier of {_LICENCES}"
    return f"---\n{licence}\n{yaml.safe_dump(values, sort_keys=False)}---\n"


def _sampled(checkpoint: Checkpoint) -> list[Event]:
    """Return the changes of weights that a step up to the checkpoint was sampled with; the first one always."""
    events = history([Event.from_json(dict(raw)) for raw in checkpoint.state.journal])
    changes = [event for event in events if event.source != START]
    return [event for event in changes if event.effective_step < max(checkpoint.step, 1)]


def _validation(run: TrainedRun, checkpoint: Checkpoint) -> tuple[int, Mapping[str, float]]:
    """Return the step and losses by domain of the last validation up to the checkpoint; none where none is known."""
    if checkpoint.folder.name.startswith(COOLED):  # its last steps were done again, and have other records now
        return 0, {}
    records = [
        record
        for record in sound_records(run.folder.metrics)
        if record["kind"] == "validation" and record["step"] <= checkpoint.step
    ]
    return (records[-1]["step"], records[-1]["domain_loss"]) if records else (0, {})


def _line(event: Event) -> str:
    return json.dumps(
        {
            "version": event.version,
            "step": event.effective_step,
            "source": _FOLDERS.sub("", event.source),
            "weights": event.weights.as_dict(),
        },
        ensure_ascii=False,
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*_<\[\]])", r"\\\1", text)

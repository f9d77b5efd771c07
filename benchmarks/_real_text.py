"""The corpus of real text that benchmarks train on: one domain a file, and downstream tasks as targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Fields of prompt, choices, gold choice and its label in the tasks' documents.
TARGETS = {
    "hellaswag": ("hellaswag_val.jsonl.gz", "ctx", "endings", "label", None),
    "arc_easy": ("arc_easy_validation.jsonl.gz", "question", "choices.text", "answerKey", "choices.label"),
    "openbookqa": ("openbookqa_validation.jsonl.gz", "question_stem", "choices.text", "answerKey", "choices.label"),
}


def prepare(raw: Path, documents: Path, work: Path, vocabulary: int) -> Path:
    """Return the corpus in a work folder, made from text unless it is there.

    Parameters
    ----------
    raw : Path
        One NAME.jsonl.gz a domain.
    documents : Path
        The documents of the shipped tasks (docs/evaluation.md).
    work : Path
        Where the corpus is kept.
    vocabulary : int
        Ids of the tokenizer trained on the text.
    """
    corpus = work / "corpus"
    if (corpus / "corpus.json").exists():
        return corpus
    work.mkdir(parents=True, exist_ok=True)
    domains = {path.name.removesuffix(".jsonl.gz"): {"paths": [str(path)]} for path in sorted(raw.glob("*.jsonl.gz"))}
    tasks = {}
    for name, (file, prompt, completion, gold, labels) in TARGETS.items():
        tasks[name] = {"path": str(documents / file), "prompt": prompt, "completion": completion, "gold": gold}
        tasks[name] |= {"labels": labels} if labels else {}
    settings = {"domains": domains, "tasks": tasks, "output": str(corpus), "train_tokenizer": vocabulary}
    (work / "corpus.yaml").write_text(json.dumps({**settings, "validation_fraction": 0.01, "deduplicate": "all"}))
    run("tools/preprocess_domains.py", "--config", work / "corpus.yaml")
    return corpus


def run(script: str, *options: object) -> None:
    """Run one of the project's commands."""
    # A world of one that was joined here is not theirs.
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_PORT")}
    subprocess.run([sys.executable, str(ROOT / script), *map(str, options)], check=True, env=env, cwd=ROOT)

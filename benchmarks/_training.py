"""Training jobs for the benchmarks: a corpus of random tokens, a configuration, one real run of launch/train.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autoscale_ds.corpus import IndexedWriter, Manifest, ShardInfo, TokenizerInfo

ROOT = Path(__file__).resolve().parents[1]


def write_random_corpus(folder: Path, num_domains: int, tokens_per_domain: int, vocabulary: int) -> Path:
    """Write domains of random tokens in documents of 500, training split only."""
    folder.mkdir(parents=True)
    domains = {}
    for index in range(num_domains):
        name = f"d{index}"
        lengths = np.full(tokens_per_domain // 500, 500)
        tokens = np.random.default_rng(index).integers(0, vocabulary, int(lengths.sum())).astype("<u2")
        with IndexedWriter(folder / name, np.dtype("<u2")) as writer:
            writer.add_documents(tokens, lengths)
        domains[name] = {"train": (ShardInfo(name, len(tokens), len(lengths), 0, "", ""),)}
    Manifest(TokenizerInfo("random", vocabulary, 0), domains).save(folder)
    return folder


def start(tree: dict[str, Any], ds: dict[str, Any], folder: Path) -> subprocess.Popen:
    """Start ``launch/train.py`` on one rank."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(json.dumps(ds))
    command = [sys.executable, str(ROOT / "launch/train.py"), "--quiet", "--config", str(folder / "run.yaml")]
    command += ["--deepspeed_config", str(folder / "ds.json")]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a job; stop the benchmark with its log when it fails."""
    if process.wait():
        raise SystemExit(f"the training job failed:\n{(folder / 'log').read_text(encoding='utf-8')[-3000:]}")

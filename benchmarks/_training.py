"""Training jobs for the benchmarks: a corpus of random tokens, a configuration, one real run of launch/train.py."""

from __future__ import annotations

import json
import os
import socket
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


def start(tree: dict[str, Any], ds: dict[str, Any], folder: Path, ranks: int = 1) -> subprocess.Popen:
    """Start ``launch/train.py``: plain on one rank, through torchrun on several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "ds.json").write_text(json.dumps(ds))
    launcher = [sys.executable]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={_free_port()}"]
        environment["OMP_NUM_THREADS"] = str(max((os.cpu_count() or ranks) // ranks, 1))
    command = [*launcher, str(ROOT / "launch/train.py"), "--quiet", "--config", str(folder / "run.yaml")]
    command += ["--deepspeed_config", str(folder / "ds.json")]
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a job; stop the benchmark with its log when it fails."""
    if process.wait():
        raise SystemExit(f"the training job failed:\n{(folder / 'log').read_text(encoding='utf-8')[-3000:]}")

"""The stream against Megatron's blended dataset and Hugging Face's interleave_datasets, in one run.

    python benchmarks/stream.py                     prints a table, writes benchmarks/results/stream.json
    python benchmarks/stream.py --largest 1e7       a quicker one

Measured: planning time of a step of 512 samples; start-up time and memory until the first batch, by number of samples
in the run; samples/s through a DataLoader; and what a change of weights costs. All three read the same tokens: seven
domains of random tokens in the indexed format, T = 1024. Every start-up runs in a process of its own. A sample of
Megatron's carries labels, loss mask and position ids besides the tokens, which is part of what it costs there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from autoscale_ds.corpus import Corpus, IndexedWriter, Manifest, ShardInfo, TokenizerInfo
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.spec import StreamSpec
from benchmarks._machine import describe, write_result

T, BATCH, DOMAINS, TOKENS_PER_DOMAIN = 1024, 512, 7, 3_000_000
VOCABULARY = 50257


def write_corpus(folder: Path) -> None:
    """Write seven domains of random tokens, documents of 700 tokens."""
    domains = {}
    for index in range(DOMAINS):
        name = f"d{index}"
        tokens = np.random.default_rng(index).integers(0, VOCABULARY - 1, TOKENS_PER_DOMAIN).astype("<u2")
        lengths = np.full(TOKENS_PER_DOMAIN // 700, 700)
        tokens = tokens[: lengths.sum()]
        tokens[699::700] = VOCABULARY - 1
        with IndexedWriter(folder / name, np.dtype("<u2")) as writer:
            writer.add_documents(tokens, lengths)
        domains[name] = {"train": (ShardInfo(name, len(tokens), len(lengths), 0, "", ""),)}
    Manifest(TokenizerInfo("random", VOCABULARY, VOCABULARY - 1), domains).save(folder)


def weights_of(num_domains: int) -> list[float]:
    """Return uneven weights, all positive: Megatron refuses zero."""
    raw = np.random.default_rng(0).dirichlet(np.ones(num_domains)) + 0.01
    return (raw / raw.sum()).tolist()


def planner(num_windows: dict[str, int]) -> MixturePlanner:
    """Return a planner over domains of the given sizes."""
    weights = DomainWeights.normalised(dict(zip(num_windows, weights_of(len(num_windows)), strict=True)))
    return MixturePlanner(StreamSpec(0, BATCH, num_windows), [Event(0, 0, weights, "", "", "", 0)])


# -- planning -------------------------------------------------------------------------------------------------------


def planning(num_domains: int, steps: int = 2000) -> dict[str, float]:
    """Return microseconds a step of 512 samples: ours on line, Megatron's blending index ahead."""
    plan = planner({f"d{i}": 10**6 + i for i in range(num_domains)}).plan
    ours = statistics.median(_times(plan, steps))
    from megatron.core.datasets import helpers

    size = BATCH * 2000
    which, sample = np.zeros(size, np.int16), np.zeros(size, np.int64)
    weights = np.array(weights_of(num_domains))
    blend = _times(lambda: helpers.build_blending_indices(which, sample, weights, num_domains, size, False), 3)
    return {"ours_us": ours * 1e6, "megatron_blend_us": statistics.median(blend) / 2000 * 1e6}


def _times(action: Callable[[], Any], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return found


# -- start-up and throughput: one subject, one process ---------------------------------------------------------------


def open_ours(folder: Path, samples: int) -> Any:
    """Return a DataLoader-backed iterator of batches."""
    from autoscale_ds.stream.dataset import MixtureStream, count_windows, open_windows

    corpus = Corpus(folder)
    plans = planner(count_windows(corpus, T))
    return iter(MixtureStream(plans, open_windows(corpus, plans.names, T), samples // BATCH))


def open_megatron(folder: Path, samples: int) -> Any:
    """Return an iterator over a DataLoader of Megatron's blended GPT dataset."""
    import torch
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = VOCABULARY - 1, None, VOCABULARY, {"class": "random"}

    prefixes = [str(folder / f"d{i}") for i in range(DOMAINS)]
    config = GPTDatasetConfig(
        random_seed=0,
        sequence_length=T,
        blend=(prefixes, weights_of(DOMAINS)),
        split="1,0,0",
        path_to_cache=None,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        tokenizer=Tokenizer(),
    )
    train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [samples, 0, 0], lambda: True, config).build()
    return iter(torch.utils.data.DataLoader(train, batch_size=BATCH))


def open_huggingface(folder: Path, samples: int) -> Any:
    """Return an iterator over a DataLoader of interleaved Hugging Face datasets of token windows."""
    import datasets
    import torch

    corpus = Corpus(folder)
    parts = []
    for name in corpus.domains:
        tokens = corpus.store(name).shards[0].tokens
        windows = np.lib.stride_tricks.sliding_window_view(tokens, T + 1)[::T]
        parts.append(datasets.Dataset.from_dict({"tokens": list(windows)}).with_format("torch"))
    needed = {"probabilities": weights_of(DOMAINS), "seed": 0, "stopping_strategy": "all_exhausted"}
    mixed = datasets.interleave_datasets(parts, **needed)
    epochs = -(-samples // len(mixed))
    mixed = datasets.concatenate_datasets([mixed] * epochs) if epochs > 1 else mixed
    return iter(torch.utils.data.DataLoader(mixed, batch_size=BATCH))


SUBJECTS = {"ours": open_ours, "megatron": open_megatron, "huggingface": open_huggingface}


def subject(name: str, folder: Path, samples: int, batches: int) -> dict[str, float]:
    """Return start-up seconds, memory it took, and samples/s of one loader, in this process."""
    import torch  # loaded by all three: not part of anybody's start-up  # noqa: F401

    if name == "megatron":
        import megatron.core.datasets.gpt_dataset  # noqa: F401
    if name == "huggingface":
        import datasets

        datasets.disable_progress_bars()
    before = _memory()
    began = time.perf_counter()
    loader = SUBJECTS[name](folder, samples)
    next(loader)
    startup, memory = time.perf_counter() - began, _memory() - before
    times = _times(lambda: next(loader), batches)
    return {"startup_s": startup, "memory_mb": memory / 1e6, "samples_per_s": BATCH / statistics.median(times)}


def _memory() -> float:
    """Return the resident memory of this process, bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_own_process(name: str, folder: Path, samples: int, batches: int) -> dict[str, float]:
    """Run ``subject`` in a fresh interpreter."""
    command = [sys.executable, __file__, "--subject", name, str(folder), str(samples), str(batches)]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(f"{name} at {samples} samples failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- the report -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e9, help="largest number of samples (default 1e9)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each throughput measurement (median shown)")
    parser.add_argument("--subject", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subject:
        name, folder, samples, batches = arguments.subject
        print(json.dumps(subject(name, Path(folder), int(samples), int(batches))))
        return

    result: dict[str, Any] = {"machine": describe("numpy", "torch", "megatron-core", "datasets")}
    result["planning"] = {str(m): planning(m) for m in (7, 22, 100, 1000)}
    print(f"{'domains':>8} {'ours us/step':>14} {'Megatron blend us/step':>24}   (512 samples a step)")
    for m, row in result["planning"].items():
        print(f"{m:>8} {row['ours_us']:>14.1f} {row['megatron_blend_us']:>24.1f}")

    # What each can do: Hugging Face's interleaving holds its index as Python lists, Megatron's needs the memory.
    largest = {"ours": 1e9, "megatron": 1e8, "huggingface": 1e6}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_corpus(folder)
        result["startup"] = {}
        print(f"\n{'samples':>8} {'':>12} {'start-up s':>11} {'memory MB':>10}   (seven domains, to the first batch)")
        for exponent in range(6, 10):
            for name in SUBJECTS:
                if 10**exponent <= min(largest[name], arguments.largest):
                    row = in_own_process(name, folder, 10**exponent, 1)
                    result["startup"].setdefault(f"1e{exponent}", {})[name] = row
                    print(f"{f'1e{exponent}':>8} {name:>12} {row['startup_s']:>11.2f} {row['memory_mb']:>10.0f}")

        rates: dict[str, list[float]] = {name: [] for name in SUBJECTS}
        for _ in range(arguments.runs):  # in turn, so that drifts of the machine's speed meet all alike
            for name in SUBJECTS:
                rates[name].append(in_own_process(name, folder, 10**5, 30)["samples_per_s"])
    result["samples_per_s"] = {name: statistics.median(found) for name, found in rates.items()}
    ours = result["samples_per_s"]["ours"]
    print(f"\n{'':>12} {'samples/s':>10} {'ours is':>8}   (DataLoader in the training process, batches of 512)")
    for name, rate in result["samples_per_s"].items():
        print(f"{name:>12} {rate:>10.0f} {ours / rate:>7.1f}x")
    print(f"\nwritten: {write_result('stream', result)}")


if __name__ == "__main__":
    main()

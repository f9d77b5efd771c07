#!/usr/bin/env python3
"""Compressed JSONL in, Megatron shards out: autoscale_ds against Hugging Face tokenizers and a datasets.map pipeline.

All read the same files, take the same tokenizer, use every core, and write with the same shard writer; the shards must
be equal byte for byte, or the benchmark fails. Each measurement is a process of its own, in turns, so that none has a
warm cache that another lacks. Timed is the work from loading the tokenizer to the last byte written. Peak memory is
that of the largest process; ours is also measured on three times the text and on random words, none of which any cache
has met: neither may need more. Processor time is of the whole process with its children, imports included: the figure
to trust when the machine has other work. Ours is also timed from the command line with a single document, which is what
a start costs, and with 3,000 files against the same lines in one file.

Examples:
  python benchmarks/tokenize.py
  python benchmarks/tokenize.py --corpus raw --tokenizer path/to/gpt2 --turns 1
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts this folder first, where this file would stand in for the standard library's `tokenize`.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import gzip
import itertools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.corpus import IndexedWriter, Manifest, file_sha256
from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.errors import AutoScaleError
from benchmarks._machine import describe, write_result

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CORES = len(os.sched_getaffinity(0))
END = "<|endoftext|>"
OURS = "autoscale_ds"


def ours(files: list[Path], tokenizer: Path, output: Path) -> None:
    """Preprocess with the defaults."""
    domains = {path.name.partition(".")[0]: DomainInput(paths=(str(path),)) for path in files}
    preprocess(PreprocessSettings(domains=domains, output=str(output), tokenizer=str(tokenizer)))


def encode_batch(files: list[Path], tokenizer: Path, output: Path, method: str = "encode_batch") -> None:
    """Call `tokenizers` with all its threads on a thousand documents at a time."""
    encoder = _tokenizer(tokenizer)
    end = encoder.token_to_id(END)
    for path in files:
        with _writer(output, path) as writer:
            for texts in _batches(path, 1000):
                for encoding in getattr(encoder, method)(texts, add_special_tokens=False):
                    writer.add_document(np.array([*encoding.ids, end], np.uint16))


def encode_batch_fast(files: list[Path], tokenizer: Path, output: Path) -> None:
    """Call the variant of `tokenizers` that keeps no offsets: the strongest form of this peer."""
    encode_batch(files, tokenizer, output, "encode_batch_fast")


def datasets_map(files: list[Path], tokenizer: Path, output: Path) -> None:
    """Load with `datasets`, map with a process a core, write what comes out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a process a core is parallel enough
    import datasets

    datasets.disable_progress_bars()
    encoder = _tokenizer(tokenizer)
    end = encoder.token_to_id(END)

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encodings = encoder.encode_batch(batch["text"], add_special_tokens=False)
        return {"ids": [[*encoding.ids, end] for encoding in encodings]}

    features = datasets.Features({"ids": datasets.Sequence(datasets.Value("uint16"))})
    for path in files:
        raw = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(output / "cache"))
        raw = raw.select_columns(["text"])
        mapped = raw.map(tokenise, batched=True, num_proc=CORES, remove_columns=["text"], features=features)
        with _writer(output, path) as writer:
            for row in mapped.with_format("numpy"):
                writer.add_document(row["ids"])


CONTENDERS: dict[str, Callable[[list[Path], Path, Path], None]] = {
    OURS: ours,
    "tokenizers.encode_batch": encode_batch,
    "tokenizers.encode_batch_fast": encode_batch_fast,
    "datasets.map": datasets_map,
}


def main() -> int:
    """Measure all contenders in turns, show the table and keep the result."""
    arguments = _parser().parse_args()
    if arguments.one:
        return _run_one(arguments)
    files = sorted(Path(arguments.corpus).glob("*.jsonl.gz"))
    if not files or not Path(arguments.tokenizer).exists():
        raise AutoScaleError(f"no *.jsonl.gz in {arguments.corpus}, or no tokenizer at {arguments.tokenizer}")
    megabytes = sum(len(text.encode()) for path in files for batch in _batches(path, 1000) for text in batch) / 1e6
    result: dict[str, Any] = {}
    for runs in _turns(arguments):
        result = _result(runs, megabytes)
        write_result("tokenize", result)
    result["ours"] = {
        "peak_memory_mib_on_three_times_the_text": _measure_three_times(arguments, files),
        "peak_memory_mib_on_random_words": _measure_random_words(arguments),
        "seconds_from_the_command_line_for_one_document": _time_start(arguments),
        "many_files": _compare_many_files(arguments, files),
    }
    write_result("tokenize", result)
    _show(result)
    return 0


def _parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default=str(DATA / "corpus"), help="folder of *.jsonl.gz with the field text")
    parser.add_argument("--tokenizer", default=str(DATA / "gpt2_bpe"), help="folder with the GPT-2 tokenizer.json")
    parser.add_argument("--turns", type=int, default=3, help="runs of each peer, each after one of ours (default: 3)")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    return parser


def _run_one(arguments: argparse.Namespace) -> int:
    """Be one measurement: do the work and print its seconds and the digests of the shards."""
    output = Path(arguments.output)
    files = sorted(Path(arguments.corpus).glob("*.jsonl.gz"))
    started = time.perf_counter()
    CONTENDERS[arguments.one](files, Path(arguments.tokenizer), output)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "shards": _digests(output, files)}))
    return 0


def _digests(output: Path, files: list[Path]) -> dict[str, str]:
    """Return SHA-256 of the tokens of each domain."""
    if (output / "corpus.json").exists():
        domains = Manifest.load(output).domains
        return {domain: ",".join(shard.sha256_bin for shard in splits["train"]) for domain, splits in domains.items()}
    names = [path.name.partition(".")[0] for path in files]
    return {name: file_sha256(output / f"{name}.bin") for name in names}


def _turns(arguments: argparse.Namespace) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield all runs so far after each turn; ours runs before every peer, so that other load meets both alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.turns):
        for peer in CONTENDERS:
            for name in (OURS, peer) if peer != OURS else ():
                runs[name].append(_process(name, arguments.corpus, arguments.tokenizer))
                print(f"{name}: {runs[name][-1]['seconds']:.2f} s", file=sys.stderr)
                if runs[name][-1]["shards"] != runs[OURS][0]["shards"]:
                    raise AutoScaleError(f"{name} wrote other tokens than {OURS}; nothing can be compared")
        yield runs


def _process(name: str, corpus: str, tokenizer: str) -> dict[str, Any]:
    """Run one measurement in a process of its own, and add its processor time and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", name, "--corpus", corpus, "--tokenizer", tokenizer]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": folder}
        process = subprocess.Popen([*command, "--output", folder], stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise AutoScaleError(f"{name} failed with status {status}")
        process.returncode = 0
    measured = {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_memory_mib": usage.ru_maxrss / 1024}
    return {**json.loads(answer.splitlines()[-1]), **measured}


def _measure_three_times(arguments: argparse.Namespace, files: list[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(3):
            for path in files:
                name, _, ending = path.name.partition(".")
                (Path(folder) / f"{name}-{copy}.{ending}").symlink_to(path.resolve())
        return round(_process(OURS, folder, arguments.tokenizer)["peak_memory_mib"], 1)


def _measure_random_words(arguments: argparse.Namespace) -> float:
    """Return the peak memory on 300 MB of words of chance, eight letters each."""
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with gzip.open(Path(folder) / "words.jsonl.gz", "wb", compresslevel=1) as file:
            for _ in range(3000):
                letters = chance.integers(97, 123, 100_000).astype("u1")
                letters[::9] = ord(" ")
                file.write(b'{"text": "' + letters.tobytes() + b'"}\n')
        return round(_process(OURS, folder, arguments.tokenizer)["peak_memory_mib"], 1)


def _time_start(arguments: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one.jsonl").write_text('{"text": "one"}\n')
        return round(statistics.median(_time_tool(arguments, [f"{folder}/one.jsonl"]) for _ in range(5)), 2)


def _compare_many_files(arguments: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Time 3,000 files and the same lines in one file, in turns."""
    texts = [text for path in files for batch in itertools.islice(_batches(path, 1000), 2) for text in batch]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder) / "one.jsonl", Path(folder) / "many"
        one.write_text("".join(lines))
        many.mkdir()
        for part in range(3000):
            (many / f"{part:04d}.jsonl").write_text("".join(lines[part::3000]))
        times = [(_time_tool(arguments, [str(one)]), _time_tool(arguments, [str(many)])) for _ in range(5)]
    one_seconds, many_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "megabytes": round(sum(map(len, lines)) / 1e6, 1),
        "one_file_seconds": round(one_seconds, 2),
        "3000_files_seconds": round(many_seconds, 2),
        "speed_of_one_file": round(one_seconds / many_seconds, 2),
    }


def _time_tool(arguments: argparse.Namespace, paths: list[str]) -> float:
    """Return the seconds of tools/preprocess_domains.py, start included."""
    tool = Path(__file__).resolve().parents[1] / "tools" / "preprocess_domains.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(tool), "--output", f"{folder}/out", "--tokenizer", arguments.tokenizer]
        domains = [part for path in paths for part in ("--domain", f"web={path}")]
        started = time.perf_counter()
        subprocess.run([*command, *domains], check=True, capture_output=True)
        return time.perf_counter() - started


def _result(runs: dict[str, list[dict[str, Any]]], megabytes: float) -> dict[str, Any]:
    rows = {}
    for name, done in runs.items():
        if done:
            seconds = [run["seconds"] for run in done]
            rows[name] = {
                "runs_seconds": [round(value, 3) for value in seconds],
                "median_seconds": round(statistics.median(seconds), 3),
                "megabytes_per_second": round(megabytes / statistics.median(seconds), 2),
                "median_cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in done), 2),
                "peak_memory_mib": round(max(run["peak_memory_mib"] for run in done), 1),
            }
    for row in rows.values():
        row["ours_is_faster_by"] = round(row["median_seconds"] / rows[OURS]["median_seconds"], 1)
        row["ours_needs_less_cpu_by"] = round(row["median_cpu_seconds"] / rows[OURS]["median_cpu_seconds"], 1)
    packages = ("gigatoken", "tokenizers", "datasets", "numpy", "pyarrow")
    load = round(os.getloadavg()[2], 2)
    return {
        "text_megabytes": round(megabytes, 1),
        "contenders": rows,
        "load_average_15_minutes": load,
        "machine": describe(*packages),
    }


def _show(result: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in ("median s", "MB/s", "faster by", "CPU s", "less CPU by", "peak MiB", "runs"):
        table.add_column(column, justify="right")
    for name, row in result["contenders"].items():
        ratios = [f"{row[key]:.1f}x" for key in ("ours_is_faster_by", "ours_needs_less_cpu_by")]
        faster, less = ("", "") if name == OURS else ratios
        wall = (f"{row['median_seconds']:.2f}", f"{row['megabytes_per_second']:.1f}", faster)
        runs = str(len(row["runs_seconds"]))
        rest = (f"{row['median_cpu_seconds']:.1f}", less, f"{row['peak_memory_mib']:.0f}", runs)
        table.add_row(name, *wall, *rest)
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(f"{result['text_megabytes']} MB of text, {CORES} cores, the same bytes from all; of ours:")
    ours = result["ours"]
    console.print(f"peak memory on three times the text {ours['peak_memory_mib_on_three_times_the_text']:.0f} MiB")
    console.print(f"peak memory on 300 MB of random words {ours['peak_memory_mib_on_random_words']:.0f} MiB")
    console.print(f"start {ours['seconds_from_the_command_line_for_one_document']:.2f} s (one document)")
    console.print(f"3,000 files at {ours['many_files']['speed_of_one_file']:.0%} of the speed of one file")


def _tokenizer(folder: Path) -> Any:
    """Load the peer's tokenizer so that it does the same work: quoted special tokens are text."""
    import tokenizers

    encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoder.encode_special_tokens = True
    return encoder


def _batches(path: Path, size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            batch.append(json.loads(line)["text"])
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _writer(output: Path, path: Path) -> IndexedWriter:
    return IndexedWriter(output / path.name.partition(".")[0], np.dtype("<u2"))


if __name__ == "__main__":
    cli.run(main)

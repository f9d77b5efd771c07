"""GPT-2 Large on one GPU: the trainer against a plain PyTorch loop, row by row over the settings that matter.

    python benchmarks/train_gpu.py                      one H100 or H200; writes benchmarks/results/train_gpu.json
    python benchmarks/train_gpu.py --rows zero2 swap    some rows only, again; --list names them
    python benchmarks/train_gpu.py --turns 1 --steps 12 where the GPU is lent by the minute (default: 3 turns of 25)
    python benchmarks/train_gpu.py --profile base       where the time of a row goes, by operator
    python benchmarks/train_gpu.py --device cpu --tiny  the same code on any machine; figures mean nothing

Every row is the trainer and the plain loop in turns, each run in a process of its own; figures are the median step of a
run and the median over turns. Rows that differ in ZeRO's stage alone have the same peer, measured once. Both train the
same model at T = 1024 in bf16: the trainer as DeepSpeed does (bf16 weights, fp32 masters, fp32 accumulation), the plain
loop with autocast and a fused AdamW. A finished row is kept: the same command goes on with what is missing, and a row
that failed (out of memory) says why. Last come the cost of a hot swap and of losses by domain, as shares of a step. The
corpus is random tokens, made on the spot.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.training import metrics
from benchmarks._machine import RESULTS, describe, write_result
from benchmarks._plain_loop import PlainRun, measure
from benchmarks._training import (
    JobFailed,
    measure_trainer,
    run_script,
    run_with_swaps,
    swap_times,
    write_random_corpus,
)

DOMAINS, WARM_UP = 7, 5


@dataclass(frozen=True)
class Row:
    """One setting: micro-batch, ZeRO stage, ``torch.compile``, activation checkpointing, precision, chunk of logits."""

    micro: int = 8
    zero: int = 1
    compile: bool = False
    checkpointing: bool = False
    bf16: bool = True
    loss_chunk_tokens: int = 4096


ROWS = {  # what matters most comes first: a GPU may be taken away
    "base": Row(),
    "compile-micro16": Row(micro=16, compile=True),
    "compile-micro16-whole-logits": Row(micro=16, compile=True, loss_chunk_tokens=16384),
    "compile-micro32-whole-logits": Row(micro=32, compile=True, loss_chunk_tokens=32768),
    "zero2": Row(zero=2),
    "zero3": Row(zero=3),
    "micro16": Row(micro=16),
    "compile": Row(compile=True),
    "checkpointing": Row(checkpointing=True),
    "micro32": Row(micro=32),
    "checkpointing-micro32": Row(micro=32, checkpointing=True),
    "micro4": Row(micro=4),
    "zero0-fp32": Row(zero=0, bf16=False),  # bf16 at ZeRO 0 has no master weights and is refused
}
EXTRAS = ("swap", "domain-losses")


@dataclass(frozen=True)
class Setting:
    """What all rows share."""

    device: str
    shape: Mapping[str, int]
    sequence_length: int
    vocabulary: int
    global_batch: int
    steps: int
    turns: int

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs a token."""
        config = GPT2Config(**self.shape, context=self.sequence_length, vocabulary=self.vocabulary)  # type: ignore[arg-type]
        return config.flops_per_token(self.sequence_length)


LARGE = Setting("cuda", GPT2Config.presets["gpt2_large"], 1024, 50257, global_batch=64, steps=25, turns=3)
TINY = Setting("cpu", GPT2Config.presets["nano"], 64, 512, global_batch=64, steps=8, turns=1)


def run_tree(setting: Setting, row: Row, corpus: Path) -> dict[str, Any]:
    """Return the run configuration of a row."""
    return {
        "budget_tokens": setting.steps * setting.global_batch * setting.sequence_length,
        "data": {
            "corpus": str(corpus),
            "sequence_length": setting.sequence_length,
            "global_batch": setting.global_batch,
            "workers": 1,
        },
        "mixture": {"poll_seconds": 0},
        "model": {
            **setting.shape,
            "compile": row.compile,
            "activation_checkpointing": row.checkpointing,
            "loss_chunk_tokens": row.loss_chunk_tokens,
        },
    }


def ds_tree(row: Row) -> dict[str, Any]:
    """Return the DeepSpeed configuration of a row."""
    zero: dict[str, Any] = {"stage": row.zero, "reduce_bucket_size": 50_000_000}
    ds: dict[str, Any] = {"train_micro_batch_size_per_gpu": row.micro, "zero_optimization": zero}
    return {**ds, "bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}} if row.bf16 else ds


def measure_row(
    setting: Setting, row: Row, corpus: Path, folder: Path, known_peers: dict[str, list[float]]
) -> dict[str, Any]:
    """Return the rates of both, or why there are none; ``known_peers`` keeps the plain loop's by its settings."""
    shape = {**setting.shape, "context": setting.sequence_length, "vocabulary": setting.vocabulary}
    shape |= {"activation_checkpointing": row.checkpointing, "loss_chunk_tokens": row.loss_chunk_tokens}
    accumulation = setting.global_batch // row.micro
    peer = PlainRun(shape, row.micro, accumulation, setting.steps, setting.device, row.bf16, row.compile)
    rates: dict[str, list[float]] = {"trainer": [], "plain": known_peers.setdefault(json.dumps(asdict(peer)), [])}
    for turn in range(setting.turns):
        for name in rates:
            if len(rates[name]) > turn:
                continue  # a row before this one has the same peer
            began, place = time.perf_counter(), folder / f"{name}-{turn}"
            try:
                if name == "plain":
                    rate = measure(peer, place, WARM_UP)
                else:
                    rate = measure_trainer(run_tree(setting, row, corpus), ds_tree(row), place, WARM_UP)
            except JobFailed as failure:
                print(failure, file=sys.stderr)
                return {"failed": f"{name}: {_reason(str(failure))}"}
            rates[name].append(rate)
            took = time.perf_counter() - began
            print(f"  {folder.name}: {name} {rate:,.0f} tokens/s, {took:.0f} s in all", file=sys.stderr, flush=True)
    pairs = zip(rates["trainer"], rates["plain"], strict=True)
    return {
        "tokens_per_s": statistics.median(rates["trainer"]),
        "plain_tokens_per_s": statistics.median(rates["plain"]),
        "ratio": statistics.median(ours / plain for ours, plain in pairs),
        "all": {name: list(found) for name, found in rates.items()},
    }


def _reason(log: str) -> str:
    """Return the line of a log that says what went wrong."""
    lines = [line.strip() for line in log.splitlines() if "Error" in line]
    return (lines or log.strip().splitlines())[-1][:300]


# -- what the trainer does besides ----------------------------------------------------------------------------------


def measure_swaps(setting: Setting, corpus: Path, folder: Path) -> dict[str, Any]:
    """Return steps that take up new weights against all others of one run."""
    tree = {
        **run_tree(setting, ROWS["base"], corpus),
        "run": str(folder / "run"),
        "budget_tokens": 4 * setting.steps * setting.global_batch * setting.sequence_length,
        "evaluation": {"every_steps": None},
        "checkpoints": {"every_steps": None},
        "logging": {"every_steps": 1},
    }
    domains = [f"d{index}" for index in range(DOMAINS)]
    records = run_with_swaps(tree, ds_tree(ROWS["base"]), folder, WARM_UP, every=5, domains=domains)
    with_swap, without = swap_times(records, WARM_UP)
    if not with_swap:
        return {"failed": "the run ended before a swap was taken up"}
    share = statistics.median(with_swap) / statistics.median(without) - 1
    return {"swaps": len(with_swap), "share_of_step": share, "step_s": statistics.median(without)}


def measure_domain_losses(setting: Setting, folder: Path, step_seconds: float) -> dict[str, Any]:
    """Return what adding up losses by domain takes, as a share of a step."""
    micro = ROWS["base"].micro
    given = [setting.device, micro, setting.sequence_length, setting.global_batch // micro, DOMAINS]
    printed = run_script(Path(__file__).with_name("_domain_loss_job.py"), [str(value) for value in given])
    seconds = float(printed.split()[-1])
    return {"seconds": seconds, "share_of_step": seconds / step_seconds}


def profile(setting: Setting, row: Row, corpus: Path, folder: Path) -> str:
    """Return the operators that take most of a step."""
    tree = {**run_tree(setting, row, corpus), "run": str(folder / "run")}
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"run": tree, "ds": ds_tree(row)}))
    printed = run_script(Path(__file__).with_name("_profile_job.py"), [str(folder / "settings.json")])
    return printed[printed.index("\n---") + 1 :]  # DeepSpeed speaks first


# -- the report -----------------------------------------------------------------------------------------------------


def peak_flops(device: str) -> float | None:
    """Return the peak that MFU is counted against."""
    return metrics.peak_flops(torch.device(device), None)


def show(name: str, row: dict[str, Any]) -> None:
    """Print one finished row."""
    if "failed" in row:
        print(f"{name:<30} {row['failed']}", flush=True)
    elif "ratio" in row:
        mfu = "" if row["mfu"] is None else f"{row['mfu']:>7.1%}"
        rates = f"{row['tokens_per_s']:>10.0f} {row['plain_tokens_per_s']:>10.0f}"
        print(f"{name:<30} {rates} {row['ratio']:>7.3f} {mfu}", flush=True)
    else:
        print(f"{name:<30} {row['share_of_step']:.2%} of a step", flush=True)


def main() -> None:
    """Measure what is missing, print all, write after every row."""
    arguments = _parse()
    setting, known = (TINY if arguments.tiny else LARGE), [*ROWS, *EXTRAS]
    setting = replace(setting, turns=arguments.turns or setting.turns, steps=arguments.steps or setting.steps)
    if arguments.list:
        print("\n".join(known))
        return
    if setting.steps <= WARM_UP:
        raise SystemExit(f"--steps is {setting.steps}, expected more than the {WARM_UP} of the warm-up")
    if setting.device != arguments.device:
        raise SystemExit(
            f"--device {arguments.device} goes with {'--tiny' if arguments.device == 'cpu' else 'no --tiny'}"
        )
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible here; to try the code: --device cpu --tiny")
    unknown = sorted(set(arguments.rows) - set(known))
    if unknown:
        raise SystemExit(f"--rows names {unknown[0]!r}; the rows are: {', '.join(known)}")
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", DOMAINS, 2_000_000, setting.vocabulary)
        if arguments.profile:
            print(profile(setting, ROWS[arguments.profile], corpus, Path(temporary) / "profile"))
            return
        measure_missing(setting, arguments.rows or known, bool(arguments.rows), corpus, Path(temporary))


def measure_missing(setting: Setting, names: list[str], again: bool, corpus: Path, folder: Path) -> None:
    """Measure rows that are not in the result file of this machine; ``again`` measures them all."""
    file = "train_gpu" if setting.shape is LARGE.shape else "train_gpu_tiny"
    result = _kept(file, describe("torch", "deepspeed"))
    peak, known_peers = peak_flops(setting.device), dict[str, list[float]]()
    print(f"{'':<30} {'tokens/s':>10} {'plain':>10} {'ratio':>7} {'MFU':>7}")
    for name in names:
        if again or name not in result["rows"]:
            result["rows"][name] = _measure(name, setting, corpus, folder / name, result["rows"], peak, known_peers)
            write_result(file, result)
        show(name, result["rows"][name])
    print(f"written: {RESULTS / file}.json")


def _measure(
    name: str,
    setting: Setting,
    corpus: Path,
    folder: Path,
    rows: dict[str, Any],
    peak: float | None,
    known_peers: dict[str, list[float]],
) -> dict[str, Any]:
    if name == "swap":
        return measure_swaps(setting, corpus, folder)
    if name == "domain-losses":
        rate = rows.get("base", {}).get("tokens_per_s")
        if rate is None:
            return {"failed": "needs the row base"}
        return measure_domain_losses(setting, folder, setting.global_batch * setting.sequence_length / rate)
    row = measure_row(setting, ROWS[name], corpus, folder, known_peers)
    mfu = setting.flops_per_token * row["tokens_per_s"] / peak if peak and "ratio" in row else None
    return {**row, "mfu": mfu}


def _kept(file: str, machine: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of an earlier start on the same machine, if any."""
    path = RESULTS / f"{file}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept if kept.get("machine") == machine else {"machine": machine, "rows": {}}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="+", default=[], metavar="NAME", help="measure these again (default: missing ones)"
    )
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--turns", type=int, metavar="N", help="runs of each (default 3)")
    parser.add_argument("--steps", type=int, metavar="N", help=f"steps a run, {WARM_UP} of them warm-up (default 25)")
    parser.add_argument("--profile", choices=ROWS, metavar="NAME", help="print the operators of a row, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the code")
    return parser.parse_args()


if __name__ == "__main__":
    main()

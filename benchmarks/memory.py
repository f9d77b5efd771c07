"""Memory by part on real engines against what ``tools/plan_run.py`` computes, on two CPU ranks.

    python benchmarks/memory.py                     prints tables, writes benchmarks/results/memory.json

States: a run of the trainer on two ranks for every ZeRO stage, in fp32 and bf16, and with tensor parallelism; the bytes
of parameters, gradients and optimizer states a rank holds at the end of a backward pass. Activations: the bytes that a
forward pass saves for backward, counted by autograd itself. Loss: the allocator's peak while the head computes a chunk
and its gradients. Start: the resident memory that four ranks take, at their peak, to make a model and its engine.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import tempfile
from typing import Any

import torch

from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.models.layers import LanguageModelHead
from autoscale_ds.sizing import memory as planned
from autoscale_ds.sizing.layout import Layout, Training
from autoscale_ds.sizing.stages import stages
from benchmarks._machine import describe, write_result
from benchmarks._training import run_script, write_random_corpus

RANKS, T, MICRO, VOCABULARY, BUCKET = 2, 64, 2, 4000, 100_000
SHAPE: dict[str, Any] = {"layers": 6, "heads": 8, "width": 512}


# -- parameters, gradients, optimizer -------------------------------------------------------------------------------


def measure_states(corpus: Path, folder: Path, layout: Layout, bf16: bool) -> dict[str, int]:
    """Return bytes by part of rank 0 of a run on two ranks, two micro-batches a step."""
    global_batch = layout.data * 2 * MICRO
    run = {
        "run": str(folder / "run"),
        "budget_tokens": 3 * global_batch * T,
        "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": global_batch},
        "model": SHAPE,
        "parallel": {"tensor": layout.tensor},
        "evaluation": {"every_steps": None},
        "checkpoints": {"every_steps": None},
        "logging": {"tensorboard": False},
    }
    # No weight is small enough to stay whole at ZeRO 3: at these sizes the exceptions would be most of the model.
    ds: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": MICRO,
        "zero_optimization": {
            "stage": layout.zero,
            "reduce_bucket_size": BUCKET,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": 0,
        },
    }
    if bf16:
        ds |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"run": run, "ds": ds}))
    script = Path(__file__).with_name("_memory_job.py")
    printed = run_script(script, [str(folder / "settings.json")], RANKS, threads=1)
    return json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])


def compare_states(cases: list[tuple[bool, int, int]]) -> list[dict[str, Any]]:
    """Measure and print every precision, stage and number of tensor-parallel ranks."""
    shape = GPT2Config(**SHAPE, context=T, vocabulary=VOCABULARY)
    rows = []
    print(
        f"{'':<8}{'ZeRO':>5}{'tensor':>8}" + "".join(f"{name:>28}" for name in ("parameters", "gradients", "optimizer"))
    )
    print(f"{'':<21}" + f"{'measured, planned MB':>28}" * 3)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", 2, 100_000, VOCABULARY)
        for bf16, zero, tensor in cases:
            layout = Layout(tensor, 1, RANKS // tensor, zero, MICRO)
            held = stages(shape, layout)[0].parameters
            by_part = planned.states(held, layout.data, zero, bf16)
            expected = dict(zip(("parameters", "gradients", "optimizer"), by_part, strict=True))
            found = measure_states(corpus, Path(temporary) / f"{zero}-{bf16}-{tensor}", layout, bf16)
            name = "bf16" if bf16 else "fp32"
            cells = (f"{found[part] / 1e6:>17.1f} {expected[part] / 1e6:>10.1f}" for part in expected)
            print(f"{name:<8}{zero:>5}{tensor:>8}" + "".join(cells), flush=True)
            rows.append({"precision": name, "zero": zero, "tensor": tensor, "measured": found, "planned": expected})
    return rows


# -- activations and logits -----------------------------------------------------------------------------------------


def saved_bytes(model: GPT2, tokens: torch.Tensor) -> int:
    """Return the bytes that a forward pass saves for backward, parameters not counted."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens[:, :-1], tokens[:, 1:]).mean()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def planned_saved_bytes(training: Training, micro: int, checkpointing: bool) -> float:
    """Return what the plan has for the same: activations, less what exists in backward only."""
    tokens = micro * training.sequence_length
    found = planned.memory(training, Layout(1, 1, 1, 1, micro, checkpointing)).activations
    if checkpointing:
        found -= planned.block_activations(training, tokens)
    chunked = tokens > training.model.loss_chunk_tokens
    return found if chunked else found + 4 * tokens * training.model.vocabulary  # the softmax of the only chunk


def compare_activations() -> list[dict[str, Any]]:
    """Measure and print forward passes of several shapes."""
    print(
        f"\n{'layers':>6} {'width':>6} {'batch':>6} {'T':>5}  precision  checkpointing {'saved MB':>10} {'planned':>9}"
    )
    rows = []
    for layers, heads, width, micro, length in [(4, 4, 128, 4, 128), (3, 8, 512, 2, 256), (2, 6, 384, 3, 512)]:
        for bf16 in (False, True):
            for checkpointing in (False, True):
                shape = GPT2Config(
                    layers,
                    heads,
                    width,
                    context=length,
                    vocabulary=VOCABULARY,
                    activation_checkpointing=checkpointing,
                    loss_chunk_tokens=128,
                )
                model = GPT2(shape)
                initialise(model, 0)
                model = model.to(torch.bfloat16 if bf16 else torch.float32).train()
                found = saved_bytes(model, torch.randint(VOCABULARY, (micro, length + 1)))
                expected = planned_saved_bytes(Training(shape, length, micro, bf16), micro, checkpointing)
                name = "bf16" if bf16 else "fp32"
                print(
                    f"{layers:>6} {width:>6} {micro:>6} {length:>5}  {name:<10} {checkpointing!s:<13} "
                    f"{found / 1e6:>10.2f} {expected / 1e6:>9.2f}"
                )
                rows.append(
                    {
                        "shape": [layers, heads, width, micro, length],
                        "precision": name,
                        "checkpointing": checkpointing,
                        "measured": found,
                        "planned": expected,
                    }
                )
    return rows


def peak_of_head(bf16: bool, tokens: int, chunk: int, width: int = 256) -> int:
    """Return the allocator's peak above its start while the loss and its gradients are computed."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    head = LanguageModelHead(width, 4032, VOCABULARY, chunk).to(dtype)
    torch.nn.init.normal_(head.weight, std=0.02)
    hidden = torch.randn(1, tokens, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(VOCABULARY, (1, tokens))
    head.weight.grad = torch.zeros_like(head.weight)
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        head(hidden, targets).mean().backward()
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def compare_heads() -> list[dict[str, Any]]:
    """Measure and print the loss in chunks."""
    print(f"\n{'tokens':>6} {'chunk':>6}  precision {'peak MB':>10} {'planned':>9}   (the loss)")
    rows = []
    for tokens, chunk in [(512, 4096), (2048, 512), (4096, 1024)]:
        for bf16 in (False, True):
            shape = GPT2Config(1, 4, 256, context=tokens, vocabulary=VOCABULARY, loss_chunk_tokens=chunk)
            found, expected = (
                peak_of_head(bf16, tokens, chunk),
                planned.logits(Training(shape, tokens, 1, bf16), tokens),
            )
            name = "bf16" if bf16 else "fp32"
            print(f"{tokens:>6} {chunk:>6}  {name:<9} {found / 1e6:>10.2f} {expected / 1e6:>9.2f}")
            rows.append({"tokens": tokens, "chunk": chunk, "precision": name, "measured": found, "planned": expected})
    return rows


# -- the start ------------------------------------------------------------------------------------------------------


def compare_starts() -> list[dict[str, Any]]:
    """Measure and print what a rank takes to start at ZeRO 1, which makes the whole model first, and at ZeRO 3."""
    ranks, shape = 4, {"layers": 24, "heads": 16, "width": 1024}
    whole = 4 * GPT2Config(**shape, context=T, vocabulary=VOCABULARY).num_parameters  # type: ignore[arg-type]
    rows = []
    print(f"\n{'ZeRO':>4} {'taken MB':>10}   (start of {ranks} ranks; the whole model is {whole / 1e6:.0f} MB in fp32)")
    with tempfile.TemporaryDirectory() as temporary:
        corpus = write_random_corpus(Path(temporary) / "corpus", 2, 100_000, VOCABULARY)
        for zero in (1, 3):
            folder = Path(temporary) / str(zero)
            folder.mkdir()
            run = {
                "run": str(folder / "run"),
                "budget_tokens": ranks * T,
                "data": {"corpus": str(corpus), "sequence_length": T, "global_batch": ranks},
                "model": shape,
            }
            ds = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": zero}, "bf16": {"enabled": True}}
            (folder / "settings.json").write_text(json.dumps({"run": run, "ds": ds}))
            script, settings = Path(__file__).with_name("_start_job.py"), str(folder / "settings.json")
            # glibc keeps freed blocks of this size for later, hundreds of MB of them: what is asked for is measured.
            printed = run_script(script, [settings], ranks, threads=1, MALLOC_MMAP_THRESHOLD_="65536")
            taken = int(printed.split()[-1])
            print(f"{zero:>4} {taken / 1e6:>10.0f}", flush=True)
            rows.append({"ranks": ranks, "zero": zero, "taken": taken, "whole_fp32": whole})
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--no-ranks", action="store_true", help="activations and loss only, in this process; writes nothing"
    )
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": describe("torch", "deepspeed"), "ranks": RANKS, "shape": SHAPE}
    if not arguments.no_ranks:
        cases = [(False, 0), (False, 1), (False, 2), (False, 3), (True, 1), (True, 2), (True, 3)]
        split = [(False, 1), (True, 1), (True, 3)]
        result["states"] = compare_states([*((*case, 1) for case in cases), *((*case, 2) for case in split)])
    result["activations"], result["loss"] = compare_activations(), compare_heads()
    if not arguments.no_ranks:
        result["start"] = compare_starts()
        print(f"written: {write_result('memory', result)}")


if __name__ == "__main__":
    main()

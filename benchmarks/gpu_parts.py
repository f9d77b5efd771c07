"""Where a GPU spends a step of GPT-2 Large: attention by kernel, the loss by chunk of logits, blocks compiled or not.

    python benchmarks/gpu_parts.py                      one H100 or H200; writes benchmarks/results/gpu_parts.json
    python benchmarks/gpu_parts.py --device cpu --tiny  the same code on any machine; figures mean nothing

Every part is timed alone, forward and backward in bf16, 16 x 1024 tokens: the median of ten after three, in
milliseconds. A part that the machine cannot do says why. Takes about a minute, most of it compiling.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.models.layers import AttentionCore
from benchmarks._machine import describe, write_result
from benchmarks._training import random_model

KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
WARM_UP, TIMES = 3, 10


@dataclass(frozen=True)
class Setting:
    """Sizes: samples a forward pass, the model's width and heads, blocks timed together, tokens of a chunk."""

    device: str
    samples: int
    length: int
    width: int
    heads: int
    vocabulary: int
    blocks: int
    chunk: int


LARGE = Setting("cuda", 16, 1024, 1280, 20, 50257, blocks=6, chunk=4096)
TINY = Setting("cpu", 2, 64, 64, 4, 300, blocks=2, chunk=32)


def parts(setting: Setting) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the name of each part and what times it."""
    yield "attention, as torch chooses", lambda: attention(setting, None)
    for name in KERNELS:
        yield f"attention, {name}", lambda name=name: attention(setting, KERNELS[name])  # type: ignore[misc]
    tokens = setting.samples * setting.length
    for chunk, words in ((setting.chunk, "in chunks"), (tokens, "whole")):
        for compiled in (False, True):
            name = f"loss {words}{', compiled' if compiled else ''}"
            yield name, lambda chunk=chunk, compiled=compiled: loss(setting, chunk, compiled)  # type: ignore[misc]
    for compiled in (False, True):
        name = f"{setting.blocks} blocks{', compiled' if compiled else ''}"
        yield name, lambda compiled=compiled: blocks(setting, compiled)  # type: ignore[misc]


def attention(setting: Setting, kernel: SDPBackend | None) -> float:
    """Return the time of attention as a block calls it: on views of one projection."""
    core = AttentionCore(0.0, causal=True)
    qkv = _random(setting, 3 * setting.width)

    def step() -> None:
        heads = (setting.samples, setting.length, setting.heads, -1)
        out = core(*(part.view(heads) for part in qkv.chunk(3, dim=-1)))
        out.backward(torch.ones_like(out))

    if kernel is None:
        return _milliseconds(setting, step)
    with sdpa_kernel(kernel):
        return _milliseconds(setting, step)


def loss(setting: Setting, chunk: int, compiled: bool) -> float:
    """Return the time of projection and cross-entropy."""
    model, hidden = _model(setting, 1, chunk, compiled), _random(setting, setting.width)
    targets = torch.randint(setting.vocabulary, (setting.samples, setting.length), device=setting.device)

    def step() -> None:
        model.head(hidden, targets).mean().backward()
        model.zero_grad()

    return _milliseconds(setting, step)


def blocks(setting: Setting, compiled: bool) -> float:
    """Return the time of some transformer blocks."""
    model, start = _model(setting, setting.blocks, setting.chunk, compiled), _random(setting, setting.width)
    gradient = torch.randn_like(start)

    def step() -> None:
        x = start
        for block in model.blocks:
            x = block(x)
        x.backward(gradient)
        model.zero_grad()

    return _milliseconds(setting, step)


def _random(setting: Setting, width: int) -> Tensor:
    size = (setting.samples, setting.length, width)
    return torch.randn(size, device=setting.device, dtype=torch.bfloat16, requires_grad=True)


def _model(setting: Setting, layers: int, chunk: int, compiled: bool) -> Any:
    torch._dynamo.reset()
    spec = GPT2Config(layers, setting.heads, setting.width, setting.length, setting.vocabulary, loss_chunk_tokens=chunk)
    model = random_model(spec, torch.device(setting.device)).bfloat16()
    if compiled:
        spec.compile_layers(model)
    return model


def _milliseconds(setting: Setting, step: Callable[[], None]) -> float:
    seconds = []
    for _ in range(WARM_UP + TIMES):
        began = time.perf_counter()
        step()
        if setting.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds[WARM_UP:])


def main() -> None:
    """Time every part and print it as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the code")
    arguments = parser.parse_args()
    setting = TINY if arguments.tiny else LARGE
    if setting.device != arguments.device or (setting.device == "cuda" and not torch.cuda.is_available()):
        raise SystemExit("no GPU is visible here, or --tiny on a GPU; to try the code: --device cpu --tiny")
    found: dict[str, float | str] = {}
    for name, measure in parts(setting):
        try:
            found[name] = measure()
        except RuntimeError as error:  # no such kernel, or out of memory
            found[name] = str(error).splitlines()[0]
        value = found[name]
        print(f"{name:<32} {f'{value:8.2f} ms' if isinstance(value, float) else value}", flush=True)
    file = "gpu_parts_tiny" if arguments.tiny else "gpu_parts"
    print(f"written: {write_result(file, {'machine': describe('torch'), 'milliseconds': found})}")


if __name__ == "__main__":
    main()

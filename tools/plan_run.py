#!/usr/bin/env python3
r"""What a run needs before it is started: memory by part, communication and step time of every layout of ranks.

Examples:
  # every layout of GPT-2 Large on two nodes of eight H100s, the fastest that fits first
  python tools/plan_run.py --config launch/configs/gpt2_large.yaml --gpus 16 --gpu h100

  # one layout by part; any value of the configuration can be overridden
  python tools/plan_run.py --config launch/configs/gpt2_large.yaml --gpus 16 --gpu h100 \
      --layout t=2,zero=1,micro=5 model.preset=gpt2_xl

  # other hardware, in bytes, FLOP/s and bytes/s each way and GPU; to a file
  python tools/plan_run.py --config launch/configs/gpt2_large.yaml --gpus 16 --gpus-per-node 8 --memory 80e9 \
      --peak-flops 989e12 --intra-node-bandwidth 450e9 --inter-node-bandwidth 50e9 --json plan.json

Memory is counted from what DeepSpeed and our layers keep (benchmarks/memory.py measures it); time is arithmetic at
--efficiency of the peak plus communication at the full bandwidth, good for ranking, not for promises.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from autoscale_ds import cli, config
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import check_outputs, write_json
from autoscale_ds.sizing.cluster import Cluster, known_gpu
from autoscale_ds.sizing.layout import Layout, Training, layouts, parse
from autoscale_ds.sizing.memory import BUCKET
from autoscale_ds.sizing.plan import EFFICIENCY, Plan, plan, rank, settings
from autoscale_ds.training.config import RunConfig

GPT2_VOCABULARY = 50257
LARGEST_CLUSTER = 1_000_000  # GPUs; every layout of them is tried


def main() -> None:
    """Plan, show, write."""
    a = _parser().parse_args()
    check_outputs({"--json": a.json}, [a.config])
    run = config.load(RunConfig, a.config, a.overrides)
    shape = run.model.build(run.data.sequence_length, run.model.vocabulary or GPT2_VOCABULARY)
    training = Training(shape, run.data.sequence_length, run.data.global_batch, not a.fp32)
    cluster = _cluster(a)

    def planned(layout: Layout) -> Plan:
        return plan(training, layout, cluster, a.efficiency, a.reserve, a.bucket)

    chosen = [parse(a.layout, a.gpus)] if a.layout else list(layouts(training, a.gpus))
    if not chosen:
        raise ConfigError(
            f"no layout of {a.gpus} GPUs divides the global batch {training.global_batch} into whole micro-batches; "
            "change --gpus or data.global_batch"
        )
    plans = rank(planned(layout) for layout in chosen)
    console = cli.console(width=130)
    _describe(console, training, cluster)
    console.print(_by_part(plans[0]) if a.layout else _ranked(plans, a.top))
    _say_settings(console, plans[0], training, a.bucket)
    if a.json:
        write_json(a.json, [_as_dict(candidate) for candidate in plans])


def _parser() -> argparse.ArgumentParser:
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("--config", required=True, help="what is learned: a YAML file, see launch/configs/")
    parser.add_argument("--gpus", type=cli.whole(1, LARGEST_CLUSTER), required=True)
    parser.add_argument("--gpus-per-node", type=cli.positive_int, default=8, help="default: 8")
    parser.add_argument("--gpu", metavar="NAME", help="h100, h200 or a100: fills in the next four")
    parser.add_argument("--memory", type=cli.positive, metavar="BYTES", help="of one GPU")
    parser.add_argument("--peak-flops", type=cli.positive, metavar="FLOP/S", help="dense, in the precision of the run")
    parser.add_argument("--intra-node-bandwidth", type=cli.positive, metavar="BYTES/S", help="each way, of one GPU")
    parser.add_argument("--inter-node-bandwidth", type=cli.positive, metavar="BYTES/S", help="each way, of one GPU")
    parser.add_argument(
        "--efficiency", type=cli.real(above=0, most=1), default=EFFICIENCY, help=f"of the peak (default {EFFICIENCY})"
    )
    parser.add_argument(
        "--reserve", type=cli.real(least=0), default=2e9, metavar="BYTES", help="for CUDA itself (default 2e9)"
    )
    parser.add_argument(
        "--bucket", type=cli.positive_int, default=BUCKET, help=f"reduce_bucket_size (default {BUCKET})"
    )
    parser.add_argument("--fp32", action="store_true", help="fp32 throughout; give the --peak-flops of that too")
    parser.add_argument("--layout", metavar="t=1,p=1,zero=1,micro=8[,checkpointing]", help="show one layout by part")
    parser.add_argument("--top", type=cli.natural, default=20, help="layouts shown (default 20; --json has all)")
    parser.add_argument("--json", type=cli.file_name, metavar="FILE", help="write every layout with all its figures")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example data.global_batch=256")
    return parser


def _cluster(a: argparse.Namespace) -> Cluster:
    """Return the machines: a known GPU's figures, and those given."""
    given = {
        "memory": a.memory,
        "peak_flops": a.peak_flops,
        "intra_node": a.intra_node_bandwidth,
        "inter_node": a.inter_node_bandwidth,
    }
    figures = known_gpu(a.gpu) if a.gpu else {}
    figures |= {name: value for name, value in given.items() if value is not None}
    options = {"memory": "memory", "peak_flops": "peak-flops", "intra_node": "intra-node-bandwidth"}
    missing = [option for name, option in options.items() if name not in figures]
    if missing:
        raise ConfigError(f"--{missing[0]} is missing: give it, or --gpu h100, h200 or a100")
    if "inter_node" not in figures:
        if a.gpus > a.gpus_per_node:
            raise ConfigError(f"--inter-node-bandwidth is missing: {a.gpus} GPUs are more than one node")
        figures["inter_node"] = figures["intra_node"]
    return Cluster(a.gpus, a.gpus_per_node, **figures)


def _describe(console: Console, training: Training, cluster: Cluster) -> None:
    model = training.model
    console.print(
        f"{model.num_parameters / 1e6:,.0f}M parameters, {training.global_batch} x {training.sequence_length:,} tokens "
        f"a step, {'bf16' if training.bf16 else 'fp32'}; {cluster.gpus} GPUs of {cluster.memory / 1e9:.0f} GB and "
        f"{cluster.peak_flops / 1e12:,.0f} TFLOP/s in nodes of {cluster.gpus_per_node}\n",
        soft_wrap=True,
    )


def _ranked(plans: list[Plan], top: int) -> Table:
    columns = ["tensor", "pipe", "data", "ZeRO", "micro", "ckpt", "GB", "sent GB", "step s", "tokens/s", "MFU", ""]
    table = _table(columns)
    for candidate in plans[:top]:
        layout = candidate.layout
        ways = [layout.tensor, layout.pipeline, layout.data, layout.zero, layout.micro]
        table.add_row(
            *map(str, ways),
            "yes" if layout.checkpointing else "",
            f"{candidate.memory.total / 1e9:.1f}",
            f"{candidate.traffic.total / 1e9:.1f}",
            f"{candidate.step:.3f}",
            f"{candidate.tokens_per_second:,.0f}",
            f"{candidate.mfu:.1%}",
            "" if candidate.fits else f"{candidate.over / 1e9:.1f} GB too much",
            style=None if candidate.fits else "dim",
        )
    return table


def _by_part(candidate: Plan) -> Table:
    table = _table([candidate.layout.name, "", ""])
    for name, size in candidate.memory.parts().items():
        note = {"update": "instead of activations, logits, buffers", "reserve": "assumed"}.get(name, "")
        table.add_row(name, f"{size / 1e9:.2f} GB", note)
    verdict = "fits" if candidate.fits else f"{candidate.over / 1e9:.2f} GB too much"
    table.add_row("at its peak", f"{candidate.memory.total / 1e9:.2f} GB", verdict, style="bold", end_section=True)
    for name, size in dataclasses.asdict(candidate.traffic).items():
        table.add_row(f"sent: {name}", f"{size / 1e9:.2f} GB", "a step and rank")
    for name in ("compute", "communication", "idle"):
        table.add_row(name, f"{getattr(candidate, name):.4f} s", {"communication": "not hidden"}.get(name, ""))
    rate = f"{candidate.tokens_per_second:,.0f} tokens/s, MFU {candidate.mfu:.1%}"
    table.add_row("step", f"{candidate.step:.4f} s", rate, style="bold")
    return table


def _table(columns: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] and len(columns) == 3 else "right")
    return table


def _say_settings(console: Console, best: Plan, training: Training, bucket: int) -> None:
    """Show the lines of both files that make the first layout."""
    ds, run = settings(best, training, bucket)
    console.print(f"\nto use {best.layout.name}{'' if best.fits else ', which does not fit'}:", style="bold")
    console.print(f"DeepSpeed file      {json.dumps(ds)}", soft_wrap=True)
    console.print(f"run configuration   {' '.join(_overrides(run))}", soft_wrap=True)


def _overrides(tree: dict[str, Any]) -> list[str]:
    lines = [(f"{room}.{key}", value) for room, values in tree.items() for key, value in values.items()]
    return [f"{name}={json.dumps(value)}" for name, value in lines]


def _as_dict(candidate: Plan) -> dict[str, Any]:
    return {
        **dataclasses.asdict(candidate),
        "name": candidate.layout.name,
        "memory_total": candidate.memory.total,
        "step": candidate.step,
        "fits": candidate.fits,
    }


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START)

"""The DeepSpeed file, completed and checked against the run's configuration.

The file says how the hardware works (ZeRO stage, precision, micro-batch, offload, communication). What is learned
stands in the run's configuration. A value that stands in both must agree; the run refuses to start otherwise, because
of two files that disagree one is wrong and nobody would notice which was used.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoscale_ds.errors import ConfigError
from autoscale_ds.files import unique_keys
from autoscale_ds.training import parallel_rules
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.hardware import precision, zero_stage


def read_ds_config(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON file."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the DeepSpeed configuration {path}: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}, expected keys and values")
    return raw


def resolve(ds: Mapping[str, Any], run: RunConfig, world_size: int) -> dict[str, Any]:
    """Return the complete DeepSpeed configuration of a run on so many ranks.

    Raises
    ------
    ConfigError
        For ``"auto"``, a batch that cannot be divided, a layout of ranks that is impossible, or a value that
        disagrees with the run's configuration.
    """
    for path, value in _leaves(ds):
        if value == "auto":
            raise ConfigError(
                f'{path} is "auto" in the DeepSpeed file: that is a Hugging Face convention; give a value'
            )
    micro = ds.get("train_micro_batch_size_per_gpu")
    if isinstance(micro, bool) or not isinstance(micro, int) or micro < 1:
        raise ConfigError(
            f"train_micro_batch_size_per_gpu is {micro!r} in the DeepSpeed file, expected a whole number of at least 1"
        )
    data_parallel = parallel_rules.check(run, ds, world_size)
    accumulation = accumulation_steps(run.data.global_batch, micro, data_parallel)
    _check_agreement(ds, run, accumulation)
    _check_precision(ds)

    resolved = copy.deepcopy(dict(ds))
    resolved.pop("optimizer", None)  # agreed above; the optimizer is built from the run's configuration
    resolved["train_batch_size"] = run.data.global_batch
    resolved["gradient_accumulation_steps"] = accumulation
    stage = zero_stage(resolved)
    # Without ZeRO the engine neither reports a gradient norm nor guards against a non-finite one: our optimizer does.
    resolved["gradient_clipping"] = (run.optimizer.clip_norm or 0.0) if stage else 0.0
    resolved.setdefault("steps_per_print", 1_000_000_000)
    resolved["zero_allow_untested_optimizer"] = True  # its own list of names does not know our subclass of AdamW
    return resolved


def accumulation_steps(global_batch: int, micro: int, data_parallel: int) -> int:
    """Return micro-batches a step; raises ConfigError with the nearest batch that would divide."""
    unit = micro * data_parallel
    if global_batch % unit:
        below, above = global_batch // unit * unit, -(-global_batch // unit) * unit
        raise ConfigError(
            f"data.global_batch {global_batch} is not a multiple of micro-batch {micro} x {data_parallel} "
            f"data-parallel ranks = {unit}; take {f'{below} or ' if below else ''}{above}, "
            "or another train_micro_batch_size_per_gpu"
        )
    return global_batch // unit


def _check_agreement(ds: Mapping[str, Any], run: RunConfig, accumulation: int) -> None:
    optimizer = ds.get("optimizer", {})
    if optimizer and str(optimizer.get("type", "")).lower() not in ("adamw", "adam"):
        raise ConfigError(f"optimizer.type is {optimizer.get('type')!r} in the DeepSpeed file; the trainer uses AdamW")
    if "scheduler" in ds:
        raise ConfigError(
            "the DeepSpeed file has a scheduler; the learning rate is the run's: schedule.kind and others"
        )
    for key in ("tensor_parallel", "pipeline", "sequence_parallel_size", "data_parallel_size"):
        if key in ds:
            raise ConfigError(
                f"the DeepSpeed file has {key}; how ranks share the model is the run's: parallel.tensor, "
                "parallel.pipeline, parallel.sequence"
            )
    given = dict(_leaves(ds))
    expected = {
        "train_batch_size": ("data.global_batch", run.data.global_batch),
        "gradient_accumulation_steps": ("global batch / micro-batch / ranks", accumulation),
        "gradient_clipping": ("optimizer.clip_norm", run.optimizer.clip_norm or 0.0),
        "optimizer.params.lr": ("optimizer.learning_rate", run.optimizer.learning_rate),
        "optimizer.params.weight_decay": ("optimizer.weight_decay", run.optimizer.weight_decay),
        "optimizer.params.eps": ("optimizer.epsilon", run.optimizer.epsilon),
        "optimizer.params.betas": ("optimizer.betas", list(run.optimizer.betas)),
    }
    for path, (name, value) in expected.items():
        if path in given and given[path] != value:
            raise ConfigError(
                f"{path} is {given[path]} in the DeepSpeed file, but {name} is {value}; "
                "make them agree or remove the first"
            )


def _check_precision(ds: Mapping[str, Any]) -> None:
    if ds.get("fp16", {}).get("enabled"):
        raise ConfigError("fp16 is enabled in the DeepSpeed file; use bf16, which needs no loss scaling, or fp32")
    if precision(ds) == "bf16" and zero_stage(ds) == 0:
        raise ConfigError("bf16 at ZeRO stage 0 trains differently (no fp32 master weights); use stage 1 or higher")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value

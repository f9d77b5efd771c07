"""A checkpoint that any layout of ranks can continue: whole fp32 weights and AdamW moments by parameter name.

DeepSpeed's files hold what each rank had. Its universal converter puts ZeRO's, tensor-parallel and pipeline parts
together; the result has the names of the whole model and is kept beside them as one ``portable.safetensors``, from
which every rank takes its part. One file, no pickle, read without loading what a rank does not need.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from autoscale_ds.errors import CheckpointError
from autoscale_ds.files import write_atomic
from autoscale_ds.models import ModelSpec
from autoscale_ds.training.checksums import check_file, file_checksum
from autoscale_ds.training.engine.optimizer import parameter_groups
from autoscale_ds.training.engine.reading import check_files, read_file

log = logging.getLogger(__name__)
PORTABLE_FILE = "portable.safetensors"
_CHECKSUM_FILE = "portable.crc32"
KINDS = ("fp32", "exp_avg", "exp_avg_sq")


class PortableState:
    """The content of a ``portable.safetensors``."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(str(path), framework="pt")

    def __call__(self, name: str, kind: str) -> Tensor:
        """Return a parameter's ``fp32`` weight, ``exp_avg`` or ``exp_avg_sq``, whole."""
        return self._file.get_tensor(f"{name}/{kind}")


def make_portable(checkpoint: Path, layout: Mapping[str, Any], spec: ModelSpec, into: Path | None = None) -> Path:
    """Return a checkpoint's portable file, written now unless it is there and as it was written; one process.

    Parameters
    ----------
    into : Path, optional
        Folder to write to where the checkpoint's is not one's own; made if need be. The checkpoint's by default.

    Raises
    ------
    CheckpointError
        When its files cannot be put together.
    """
    path = checkpoint / PORTABLE_FILE
    if path.exists():
        try:
            check_file(path, (checkpoint / _CHECKSUM_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, CheckpointError) as error:
            log.warning("%s is not used, the file is made again from the checkpoint: %s", path, error)
        else:
            return path
    _check_possible(checkpoint, layout)
    folder = checkpoint if into is None else into
    folder.mkdir(parents=True, exist_ok=True)
    sizes = spec.whole_shapes()
    if layout["zero_stage"] == 0:
        whole = dict(_from_whole_weights(checkpoint, spec))
    else:
        whole = _from_shards(checkpoint, layout, spec, folder)
    tensors = {key: _shaped(key, tensor, sizes[key.split("/")[0]], checkpoint) for key, tensor in whole.items()}
    partial = folder / f".{PORTABLE_FILE}.partial"
    save_file(tensors, str(partial))
    checksum = file_checksum(partial)
    os.replace(partial, folder / PORTABLE_FILE)
    write_atomic(folder / _CHECKSUM_FILE, checksum)
    return folder / PORTABLE_FILE


def _shaped(key: str, tensor: Tensor, size: torch.Size, checkpoint: Path) -> Tensor:
    if tensor.numel() != size.numel():
        raise CheckpointError(
            f"{checkpoint} holds {key} with {tensor.numel():,} numbers, this model has {tuple(size)}: it was saved "
            "by a model of another shape or vocabulary"
        )
    return tensor.reshape(size).contiguous()


def _check_possible(checkpoint: Path, layout: Mapping[str, Any]) -> None:
    split = [name for name in ("tensor", "pipeline") if layout[name] > 1]
    if layout["zero_stage"] == 0 and split:
        raise CheckpointError(
            f"{checkpoint} was saved without ZeRO by parts of a model: it continues in its own layout only; start "
            f"{layout['world_size']} ranks with parallel.{split[0]}={layout[split[0]]} and ZeRO stage 0"
        )


def _from_whole_weights(checkpoint: Path, spec: ModelSpec) -> Iterator[tuple[str, Tensor]]:
    """Yield what a data-parallel run without ZeRO saved: whole weights, moments by torch's numbers."""
    saved = read_file(checkpoint / "mp_rank_00_model_states.pt")
    with torch.device("meta"):
        model = spec.build()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    numbered = [names[id(p)] for group in parameter_groups(model, 0.0) for p in group["params"]]
    for number, name in enumerate(numbered):
        yield f"{name}/fp32", saved["module"][name].float()
        for kind in KINDS[1:]:
            yield f"{name}/{kind}", saved["optimizer"]["state"][number][kind]


def _from_shards(checkpoint: Path, layout: Mapping[str, Any], spec: ModelSpec, working: Path) -> dict[str, Tensor]:
    """Return what DeepSpeed's converter puts together, under the names of the whole model."""
    folder = working / ".universal"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run_converter(checkpoint, folder / "universal")
        parameters = [path.parent for path in (folder / "universal" / "zero").rglob("exp_avg.pt")]
        whole: dict[str, Tensor] = {}
        for path in parameters:
            name = path.relative_to(folder / "universal" / "zero").as_posix()
            ours = pipeline_name(name, spec) if layout["pipeline"] > 1 else name
            whole |= {f"{ours}/{kind}": _read(path / f"{kind}.pt") for kind in KINDS}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    missing = {f"{name}/fp32" for name in spec.whole_shapes()} - set(whole)
    if missing:
        raise CheckpointError(f"{checkpoint} holds no {min(missing)}; was it saved by a model of another shape?")
    return whole


def _run_converter(checkpoint: Path, output: Path) -> None:
    check_files(checkpoint)
    workers = str(min(8, os.cpu_count() or 1))
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--no_strict"]
    command += ["--input_folder", str(checkpoint), "--output_folder", str(output)]
    command += ["--num_extract_workers", workers, "--num_merge_workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"{checkpoint} cannot be put together for another layout: {reason}")


def _read(path: Path) -> Tensor:
    content = torch.load(path, map_location="cpu", weights_only=True)
    tensor: Tensor = content["param"] if isinstance(content, dict) else content
    return tensor.float()


def pipeline_name(name: str, spec: ModelSpec) -> str:
    """Return the name that a parameter of a pipeline has in the whole model."""
    layer, _, rest = name.partition(".")
    return rest if layer == "tied_modules" else spec.whole_name(int(layer), rest)

"""Whole weights from the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoscale_ds.models import ModelSpec
from autoscale_ds.training.engine.portable import PORTABLE_FILE, PortableState, make_portable
from autoscale_ds.training.engine.reading import check_files, read_file


def saved_weights(checkpoint: Path, layout: Mapping[str, Any], spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Return the fp32 weights of a checkpoint folder by name, put together from every rank's files.

    On one process and in CPU memory; the optimizer's master weights where ZeRO keeps them. Parts of a model leave
    the converted checkpoint beside them, see ``portable``.

    Raises
    ------
    CheckpointError
        When its files cannot be put together.
    """
    if layout["tensor"] > 1 or layout["pipeline"] > 1 or (checkpoint / PORTABLE_FILE).exists():
        state = PortableState(make_portable(checkpoint, layout, spec))
        return {name: state(name, "fp32") for name in spec.whole_shapes()}
    if layout["zero_stage"] == 0:
        whole = read_file(checkpoint / "mp_rank_00_model_states.pt")["module"]
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        check_files(checkpoint)
        whole = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    return {name: tensor.detach().float() for name, tensor in whole.items()}

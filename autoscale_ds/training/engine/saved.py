"""Whole weights from the files of a checkpoint."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoscale_ds.models import ModelSpec
from autoscale_ds.training.engine.portable import PORTABLE_FILE, PortableState, make_portable
from autoscale_ds.training.engine.reading import check_files, read_file
from autoscale_ds.training.engine.startup import quieten_deepspeed


def saved_weights(
    checkpoint: Path, layout: Mapping[str, Any], spec: ModelSpec, working: Path
) -> dict[str, torch.Tensor]:
    """Return the fp32 weights of a checkpoint folder by name, put together from every rank's files.

    On one process and in CPU memory; the optimizer's master weights where ZeRO keeps them. The checkpoint's folder
    stays as it is.

    Parameters
    ----------
    working : Path
        Folder for the converted checkpoint of a model that lies there in parts, see ``portable``; made if need be.

    Raises
    ------
    CheckpointError
        When its files cannot be put together.
    """
    quieten_deepspeed()
    if layout["tensor"] > 1 or layout["pipeline"] > 1 or (checkpoint / PORTABLE_FILE).exists():
        state = PortableState(make_portable(checkpoint, layout, spec, working))
        return {name: state(name, "fp32") for name in spec.whole_shapes()}
    if layout["zero_stage"] == 0:
        whole = read_file(checkpoint / "mp_rank_00_model_states.pt")["module"]
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        check_files(checkpoint)
        # It prints its progress, which says nothing to a user of the caller's.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            whole = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    return {name: tensor.detach().float() for name, tensor in whole.items()}

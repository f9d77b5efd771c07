"""Reading DeepSpeed's files without running what somebody may have put into them.

They are pickles. Tensors, numbers and three classes of DeepSpeed's are all that its checkpoints of these models hold;
a file that names anything else is refused unread. DeepSpeed's own converters unpickle freely: files are checked first.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from autoscale_ds.errors import CheckpointError


def read_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """Return the content of a checkpoint's file; raises CheckpointError for one that holds more than data."""
    try:
        with safe_globals(_known_classes()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(f"{path} is not opened: {str(error).splitlines()[0]}") from None


def check_files(checkpoint: Path) -> None:
    """Raise CheckpointError unless every file of a checkpoint holds data only."""
    known = {f"{each.__module__}.{each.__name__}" for each in _known_classes()}
    for path in sorted(checkpoint.glob("*.pt")):
        unknown = sorted(set(get_unsafe_globals_in_checkpoint(path)) - known)
        if unknown:
            raise CheckpointError(f"{path} holds {unknown[0]}, which is no data of a checkpoint: it is not opened")


def _known_classes() -> list[Any]:
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]

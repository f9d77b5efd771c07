"""One rank of a job of ``memory.py``: train three steps, count the bytes held at the end of backward passes.

usage: _memory_job.py SETTINGS.json, started by torchrun; rank 0 prints what it found as the last line.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gc
import json
from collections.abc import Iterable
from typing import Any

import torch

from autoscale_ds import cli, config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.trainer import Trainer


def storages(tensors: Iterable[Any]) -> dict[int, int]:
    """Return bytes by address of the memory behind tensors, shared memory once."""
    held = [t.untyped_storage() for t in tensors if isinstance(t, torch.Tensor) and t.device.type != "meta"]
    return {storage.data_ptr(): storage.nbytes() for storage in held}


def everything() -> list[torch.Tensor]:
    """Return every tensor Python can reach, and gradients."""
    gc.collect()
    found = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    return found + [t.grad for t in found if t.is_leaf and t.grad is not None]


def parts_held(model: torch.nn.Module) -> dict[str, int]:
    """Return bytes of parameters, optimizer and the rest, which after a backward pass is gradients.

    Master weights that ZeRO-3 shows its optimizer during the update only are told by their type: they take part in
    autograd and are no parameters of the model.
    """
    tensors = everything()
    parameters = storages(tensor for p in model.parameters() for tensor in (p.data, getattr(p, "ds_tensor", p.data)))
    adam = next(o for o in gc.get_objects() if isinstance(o, torch.optim.AdamW))
    states = [value for state in adam.state.values() for value in state.values()]
    owned = storages([*states, *(p for group in adam.param_groups for p in group["params"])])
    masters = storages(t for t in tensors if t.is_leaf and t.requires_grad and t.dim() == 1 and t.numel() > 10_000)
    optimizer = {where: size for where, size in {**owned, **masters}.items() if where not in parameters}
    known = {**parameters, **optimizer}
    rest = {where: size for where, size in storages(tensors).items() if where not in known and size > 10_000}
    sums = {"parameters": parameters, "optimizer": optimizer, "gradients": rest}
    return {name: sum(sizes.values()) for name, sizes in sums.items()}


def main() -> None:
    """Train and count."""
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    import deepspeed

    run = config.build(RunConfig, given["run"])
    trainer = Trainer(run, resolve(given["ds"], run, ranks.world_size), ranks, device)
    found: dict[str, int] = {}
    update = deepspeed.DeepSpeedEngine.step

    def counted(engine: Any, *arguments: Any, **more: Any) -> Any:
        held = parts_held(trainer.parts.engine.module)
        if held["gradients"] >= found.get("gradients", 0):  # some stages give gradients away at the last micro-batch
            found.update(held)
        return update(engine, *arguments, **more)

    deepspeed.DeepSpeedEngine.step = counted
    trainer.fit()
    if ranks.rank == 0:
        print(json.dumps(found))
    stop_distributed()


if __name__ == "__main__":
    cli.run(main, tear_down=False)

"""The machines: number of GPUs, their memory, FLOP/s and bandwidths."""

from __future__ import annotations

from dataclasses import dataclass

from autoscale_ds.errors import ConfigError


@dataclass(frozen=True)
class Cluster:
    """Equal GPUs in equal nodes.

    Attributes
    ----------
    gpus, gpus_per_node : int
        Number of GPUs in all and in one node.
    memory : float
        Bytes of one GPU.
    peak_flops : float
        Dense peak of one GPU in the run's precision, FLOP/s.
    intra_node, inter_node : float
        Bytes/s that one GPU sends while it receives as many, to GPUs of its node and of others.
    """

    gpus: int
    gpus_per_node: int
    memory: float
    peak_flops: float
    intra_node: float
    inter_node: float

    def __post_init__(self) -> None:
        for name in ("gpus", "gpus_per_node", "memory", "peak_flops", "intra_node", "inter_node"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name.replace('_', '-')} is {getattr(self, name):g}, expected more than 0")
        if self.gpus > self.gpus_per_node and self.gpus % self.gpus_per_node:
            raise ConfigError(f"{self.gpus} GPUs do not fill nodes of {self.gpus_per_node}; give whole nodes")

    def bandwidth(self, reach: int) -> float:
        """Return the bytes/s of a GPU to others up to ``reach`` ranks away, ranks numbered node by node."""
        return self.intra_node if reach <= self.gpus_per_node else self.inter_node


# Memory (bytes), NVLink and network (bytes/s each way) by GPU, from the vendor's data sheets: DGX A100 has one 200 Gb/s
# adapter a GPU, DGX H100 and H200 one of 400 Gb/s.
_GPUS = {
    "A100": (80e9, 300e9, 25e9),
    "H100": (80e9, 450e9, 50e9),
    "H200": (141e9, 450e9, 50e9),
}


def known_gpu(name: str) -> dict[str, float]:
    """Return the figures of a GPU by the names of ``Cluster``; its bf16 peak is the one MFU is counted with."""
    from autoscale_ds.training.metrics import PEAK_FLOPS

    if name.upper() not in _GPUS:
        raise ConfigError(f"gpu is {name!r}, expected one of {', '.join(_GPUS).lower()}; or give its figures")
    memory, intra_node, inter_node = _GPUS[name.upper()]
    return {
        "memory": memory,
        "intra_node": intra_node,
        "inter_node": inter_node,
        "peak_flops": PEAK_FLOPS[name.upper()],
    }

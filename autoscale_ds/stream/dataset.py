"""Planned samples as tensors, read ahead by a torch DataLoader.

Plans are made in the main process and travel to the workers; a worker never sees a weight, so it can never hold an
old one. The unit that travels is one step of one rank, which makes ``prefetch`` count in steps.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from autoscale_ds.corpus import Corpus, TokenStore
from autoscale_ds.errors import StreamError
from autoscale_ds.stream.planner import MixturePlanner, Position, StepPlan, StreamEnd

READER_GRACE_SECONDS = 120  # what SLURM is asked to leave a job between its signal and its end


@dataclass(frozen=True)
class StepBatch:
    """One rank's samples of one step.

    Attributes
    ----------
    plan : StepPlan
        Where they come from.
    tokens : LongTensor, shape (samples, sequence_length + 1)
        Inputs are ``[:, :-1]``, targets ``[:, 1:]``.
    domains : LongTensor, shape (samples,)
        Index of each sample's domain in ``MixturePlanner.names``.
    """

    plan: StepPlan
    tokens: torch.Tensor
    domains: torch.Tensor

    def pin_memory(self) -> StepBatch:
        """Return the batch in pinned memory; the DataLoader calls this where copies to a GPU should overlap."""
        return StepBatch(self.plan, self.tokens.pin_memory(), self.domains.pin_memory())


class WindowDataset(Dataset):
    """Windows of a corpus by domain and number: window ``j`` is tokens ``[jT, jT + T]`` of its domain.

    Parameters
    ----------
    stores : sequence of TokenStore
        One a domain, in the order of ``MixturePlanner.names``.
    sequence_length : int
        T; a window has T + 1 tokens, the last shared with the next window.
    """

    def __init__(self, stores: Sequence[TokenStore], sequence_length: int) -> None:
        self.stores = list(stores)
        self.sequence_length = sequence_length

    def read(self, domains: np.ndarray, windows: np.ndarray) -> torch.Tensor:
        """Return windows as int64, shape (k, T + 1)."""
        length = self.sequence_length
        tokens = np.empty((len(domains), length + 1), np.int64)
        for row, (domain, window) in enumerate(zip(domains.tolist(), windows.tolist(), strict=True)):
            tokens[row] = self.stores[domain].read(window * length, length + 1)
        return torch.from_numpy(tokens)

    def __getitem__(self, plan: StepPlan) -> StepBatch:
        return StepBatch(plan, self.read(plan.domains, plan.windows), torch.from_numpy(plan.domains))


class MixtureStream:
    """Batches of one data-parallel rank, in step order, with the state of what was *consumed*.

    Iterating yields ``StepBatch`` until ``until_step``. The planner runs ahead of it by what the workers prefetch;
    ``state()`` speaks of the last batch handed out, which is what a checkpoint must store.

    Parameters
    ----------
    planner : MixturePlanner
        Says which samples each step has; owned by the stream from now on.
    dataset : WindowDataset
        Reads the planned windows.
    until_step : int
        First step not wanted any more.
    rank, world_size : int
        Data-parallel, not global: tensor and pipeline peers see the same data.
    workers, prefetch : int
        DataLoader processes, and steps each reads ahead. Without workers nothing is read ahead.
    pin_memory : bool
        For overlapped copies to a GPU.

    Attributes
    ----------
    end : StreamEnd or None
        Why the stream ended before ``until_step``, if it did.
    """

    def __init__(
        self,
        planner: MixturePlanner,
        dataset: WindowDataset,
        until_step: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        if planner.spec.global_batch % world_size:
            raise StreamError(f"a global batch of {planner.spec.global_batch} cannot be split over {world_size} ranks")
        if planner.batch != planner.spec.global_batch:
            raise StreamError(
                f"step {planner.next_step:,} and those after it were planned with data.global_batch={planner.batch}: "
                "go on with it until a checkpoint after they are done, then change it"
            )
        self.planner = planner
        self.dataset = dataset
        self.end: StreamEnd | None = None
        self._until_step = until_step
        self._rank = rank
        self._world_size = world_size
        self._consumed = planner.position()
        self._planned: deque[Position] = deque()
        self._batches: Iterator[StepBatch] | None = None
        ahead: dict[str, Any] = {"prefetch_factor": prefetch, "multiprocessing_context": "fork"} if workers else {}
        self._loader: DataLoader = DataLoader(
            dataset,
            sampler=_Plans(self),
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_outlive_signals,
            generator=torch.Generator(),  # its own, so that reading data never moves the global random state
            **ahead,
        )

    def state(self) -> dict[str, Any]:
        """Return the planner's state after the last batch handed out."""
        return self.planner.state(self._consumed)

    def weights(self) -> dict[str, float]:
        """Return the weights of the last batch handed out, exhausted domains at zero."""
        return self.planner.weights(self._consumed)

    def close(self) -> None:
        """End the readers; left to the end of the process they would be waited for in vain, deaf to signals."""
        self._batches = None

    def __iter__(self) -> Iterator[StepBatch]:
        self._batches = iter(self._loader)
        while self._batches is not None and (batch := next(self._batches, None)) is not None:
            self._consumed = self._planned.popleft()
            assert self._consumed.step == batch.plan.step + 1, "the loader handed out batches in another order"
            yield batch

    def _plan(self) -> StepPlan | None:
        if self.planner.next_step >= self._until_step:
            return None
        try:
            plan = self.planner.plan(self._rank, self._world_size)
        except StreamEnd as end:
            self.end = end
            return None
        lost = self.planner.unreadable()
        if lost and (missing := lost.intersection(self.planner.names[domain] for domain in set(plan.domains.tolist()))):
            raise StreamError(
                f"step {plan.step:,} reads {min(missing)} as it was before its text changed; start with that corpus "
                "until a checkpoint after the change"
            )
        self._planned.append(self.planner.position())
        return plan


class _Plans(Sampler[StepPlan]):
    """Plans for the DataLoader, made in the main process the moment it asks for one more."""

    def __init__(self, stream: MixtureStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[StepPlan]:
        while (plan := self._stream._plan()) is not None:
            yield plan


def _outlive_signals(worker: int) -> None:
    """Leave signals to the main process: batch systems send them to every process of a job.

    A reader that ends of one fails the step that should have been saved. It ends with the main process, or some time
    after a SIGTERM: that may also be multiprocessing's way to end it at exit.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(READER_GRACE_SECONDS))
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


def open_windows(corpus: Corpus, names: Sequence[str], sequence_length: int, split: str = "train") -> WindowDataset:
    """Open a split of a corpus as windows, domains or targets in the order of ``names``; those that left are empty."""
    held = {*corpus.domains, *corpus.targets}
    stores = [corpus.store(name, split) if name in held else TokenStore([]) for name in names]
    return WindowDataset(stores, sequence_length)


def count_windows(corpus: Corpus, sequence_length: int, split: str = "train") -> dict[str, int]:
    """Return the windows of each domain: ``(tokens - 1) // sequence_length``, the tail dropped."""
    return {name: windows_in(count, sequence_length) for name, count in corpus.num_tokens(split).items()}


def windows_in(num_tokens: int, sequence_length: int) -> int:
    """Return the windows of so many tokens; each predicts ``sequence_length``, the tail is dropped."""
    return max(num_tokens - 1, 0) // sequence_length

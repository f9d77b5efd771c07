"""Checkpoints that are whole or absent.

DeepSpeed's shards of every rank are saved under a working name; when all are on disk, rank 0 adds ``run.json`` (the
stream's state, a copy of the journal, and the size of every file), renames the folder and points ``latest`` at it.
At load the newest folder whose files all have their size is taken; a broken one is passed over, and said so. One that
was saved in another layout of ranks is converted first.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from autoscale_ds.corpus.identity import few
from autoscale_ds.errors import CheckpointError, VersionError
from autoscale_ds.files import write_atomic, write_json
from autoscale_ds.training.checksums import Verification
from autoscale_ds.training.distributed import Ranks, any_rank, broadcast, gather_objects, on_rank_zero
from autoscale_ds.training.engine import PORTABLE_FILE, Engine, make_portable
from autoscale_ds.training.run_state import RunState

log = logging.getLogger(__name__)
STATE_FILE = "run.json"
COOLED = "cooled"
"""Prefix of checkpoints of a cooldown that a larger budget put off."""
BAD = "bad"
"""Prefix of checkpoints with weights that a fault has spoiled."""
_CONVERTED = ".step-other-run.partial"  # a job that was killed meanwhile leaves it: removed like an unfinished save
_UNREADABLE = (
    CheckpointError, OSError, RuntimeError, ValueError, TypeError, AttributeError, EOFError, KeyError, SafetensorError,
    UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder and the content of ``run.json``."""

    folder: Path
    state: RunState

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def layout(self) -> Mapping[str, Any]:
        """What its files depend on besides the model, see ``parallel_rules.record``."""
        if self.state.layout is None:
            raise CheckpointError(f"{self.folder / STATE_FILE} does not say in which layout of ranks it was saved")
        return self.state.layout


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder : Path
        ``RUN/checkpoints``.
    ranks : Ranks
        Place of this process among the others.
    keep : int
        Newest checkpoints kept.
    verify : bool
        Whether to check the files' checksums while loading.
    """

    def __init__(self, folder: Path, ranks: Ranks, keep: int, verify: bool = True) -> None:
        self.folder = folder
        self._ranks = ranks
        self._keep = keep
        self._verify = verify

    def begin_from(self, engine: Engine, checkpoint: Checkpoint | None, moments: bool) -> None:
        """Load another run's checkpoint, known on rank 0, whatever layout it was saved in. Collective.

        The other run's folder is only read: what is converted lies in this one's while it is loaded.

        Parameters
        ----------
        engine : Engine
            What it is loaded into.
        checkpoint : Checkpoint or None
            None on ranks other than 0.
        moments : bool
            Whether to take the optimizer's moments too.
        """
        try:
            path, updates = on_rank_zero(lambda: self._portable(engine, checkpoint))
            engine.load_portable(path, updates, moments)
            dist.barrier()
        finally:
            if self._ranks.rank == 0:
                shutil.rmtree(self.folder / _CONVERTED, ignore_errors=True)

    def _portable(self, engine: Engine, checkpoint: Checkpoint | None) -> tuple[Path, int]:
        assert checkpoint is not None
        if self._verify:
            verify_checkpoint(checkpoint)
        into = self.folder / _CONVERTED
        return make_portable(checkpoint.folder, checkpoint.layout, engine.spec, into), checkpoint.state.updates

    def save(self, engine: Engine, state: RunState, keep: Sequence[int]) -> str | None:
        """Save model, optimizer and ``state``, whose step names the checkpoint. Collective.

        Parameters
        ----------
        engine : Engine
            What is saved.
        state : RunState
            State of the run.
        keep : sequence of int
            For each of these steps, the newest checkpoint of it or before stays, beside the newest ``keep``.

        Returns
        -------
        str or None
            Why it could not be saved, the same on all ranks; nothing is left of it then.
        """
        name = checkpoint_name(state.step)
        working = f".{name}.partial"
        self._discard(working)
        problem, checksums = _gathered(engine.save(self.folder, working), engine.checksums)
        if problem is None and self._ranks.rank == 0:
            try:
                whole = replace(state, layout=engine.layout, updates=engine.updates, checksums=checksums)
                self._publish(working, name, whole, keep)
            except OSError as error:
                problem = str(error)
        problem = broadcast(problem)
        if problem is not None:
            self._discard(working)
        return problem

    def _discard(self, working: str) -> None:
        """Remove what an unfinished save left."""
        if self._ranks.rank == 0:
            shutil.rmtree(self.folder / working, ignore_errors=True)
        dist.barrier()

    def load(self, engine: Engine, device: torch.device, until: int | None = None) -> Checkpoint | None:
        """Load the newest checkpoint every rank can read, of a step if given or before; None when there is none.

        Collective.

        Raises
        ------
        CheckpointError
            When there are checkpoints but none can be read.
        """
        published = [path.name for path in list_checkpoints(self.folder)]
        candidates: list[str] = broadcast([n for n in published if until is None or n <= checkpoint_name(until)])
        if until is not None and not candidates:
            raise CheckpointError(f"no checkpoint of step {until:,} or before is left in {self.folder} to return to")
        problems = []
        for name in candidates:
            try:
                checkpoint = read_checkpoint(self.folder / name)
                checking = self._verification(checkpoint)
                if checkpoint.layout == engine.layout:
                    engine.load(self.folder, name)
                else:
                    self._load_converted(engine, checkpoint)
                checking.finish()
                problem = None
            except VersionError:  # the same on every rank: they read the same run.json
                raise
            except _UNREADABLE as error:
                problem = _short(error)
            if not any_rank(problem is not None, device):
                return checkpoint
            problems.append(problem or "another rank could not read its part")
            log.warning("checkpoint %s cannot be used (%s); trying the one before", name, problems[-1])
        if candidates:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used; the newest: {problems[0]}")
        return None

    def _publish(self, working: str, name: str, state: RunState, keep: Sequence[int]) -> None:
        folder = self.folder / working
        sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
        write_json(folder / STATE_FILE, replace(state, files=sizes).to_json())
        if (self.folder / name).exists():  # a rerun of steps after a fallback: the newer one counts
            shutil.rmtree(self.folder / name)
        os.replace(folder, self.folder / name)
        write_atomic(self.folder / "latest", name + "\n")
        for bad in self.folder.glob(f"{BAD}-step-*"):
            shutil.rmtree(bad, ignore_errors=True)
        self._prune(keep)

    def prune(self, keep: Sequence[int]) -> None:
        """Remove checkpoints that are neither among the newest nor kept for one of these steps, see ``save``."""
        if self._ranks.rank == 0:
            self._prune(keep)

    def _prune(self, keep: Sequence[int]) -> None:
        published = list_checkpoints(self.folder)
        kept = {next((path for path in published if path.name <= checkpoint_name(step)), None) for step in keep}
        for old in published[self._keep :]:
            if old not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def set_aside(self, step: int, prefix: str) -> None:
        """Rename the checkpoints after a step, so that no start takes them.

        The next one that is saved removes those called bad.
        """
        if self._ranks.rank == 0:
            for path in list_checkpoints(self.folder):
                if path.name > checkpoint_name(step):
                    shutil.rmtree(self.folder / f"{prefix}-{path.name}", ignore_errors=True)
                    os.replace(path, self.folder / f"{prefix}-{path.name}")
                    log.warning("%s is set aside as %s-%s", path, prefix, path.name)

    def _verification(self, checkpoint: Checkpoint) -> Verification:
        checksums = checkpoint.state.checksums if self._verify else {}
        return Verification(checkpoint.folder, checksums, self._ranks.rank, self._ranks.world_size)

    def _load_converted(self, engine: Engine, checkpoint: Checkpoint) -> None:
        """Load a checkpoint of another layout; the first to do so leaves the converted file beside it."""
        problem = None
        if self._ranks.rank == 0:
            log.info("%s was saved as %s; converting", checkpoint.folder.name, checkpoint.layout)
            try:
                make_portable(checkpoint.folder, checkpoint.layout, engine.spec)
            except _UNREADABLE as error:
                problem = _short(error)
        problem = broadcast(problem)
        if problem is not None:
            raise CheckpointError(problem)
        engine.load_portable(checkpoint.folder / PORTABLE_FILE, checkpoint.state.updates)


def _gathered(problem: str | None, checksums: dict[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return the problem of the first rank that has one, and all ranks' checksums, on every rank. Collective."""
    every = gather_objects((problem, checksums))
    first = next((f"rank {rank}: {each}" for rank, (each, _) in enumerate(every) if each is not None), None)
    return first, {name: checksum for _, own in every for name, checksum in own.items()}


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint after ``step`` steps."""
    return f"step-{step:08d}"


def checkpoint_step(path: Path) -> int:
    """Return the step that a checkpoint's folder is named after."""
    return int(path.name.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Return published checkpoints, newest first; unpublished ones do not count."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def find_checkpoint(folder: Path, step: int | None) -> Path:
    """Return the checkpoint after a step, or the newest; raises CheckpointError when there is none."""
    published = list_checkpoints(folder)
    if step is not None:
        path, cooled = folder / checkpoint_name(step), folder / f"{COOLED}-{checkpoint_name(step)}"
        if not path.exists() and not cooled.exists():
            held = few([str(checkpoint_step(each)) for each in published]) or "none"
            raise CheckpointError(f"{folder} holds no checkpoint of step {step}, it holds those of steps {held}")
        return path if path.exists() else cooled
    if not published:
        raise CheckpointError(f"{folder} holds no checkpoint yet")
    return published[0]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read ``run.json`` and check that every file it lists is there with its size.

    Raises
    ------
    CheckpointError
        Naming the file that is missing or truncated.
    """
    try:
        raw = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE_FILE} cannot be read: {error}") from None
    state = RunState.from_json(raw, folder / STATE_FILE)
    for name, size in state.files.items():
        path = folder / name
        present = path.stat().st_size if path.exists() else None
        if present != size:
            raise CheckpointError(
                f"{path} is {'missing' if present is None else f'{present} bytes'}, expected {size} bytes"
            )
    return Checkpoint(folder, state)


def sound_checkpoint(folder: Path, step: int | None) -> Checkpoint:
    """Return the checkpoint after a step, or the newest, with every file as it was written.

    Raises
    ------
    CheckpointError
        When there is none or it is damaged; names the steps of the others.
    """
    path = find_checkpoint(folder, step)
    try:
        checkpoint = read_checkpoint(path)
        verify_checkpoint(checkpoint)
    except VersionError:
        raise
    except CheckpointError as error:
        others = few([str(checkpoint_step(each)) for each in list_checkpoints(folder) if each != path])
        advice = f"take another with --step, there are those of steps {others}" if others else "there is no other"
        raise CheckpointError(f"{error}; {advice}") from None
    return checkpoint


def verify_checkpoint(checkpoint: Checkpoint) -> None:
    """Read every file of a checkpoint; raise CheckpointError for the first that is not as it was written."""
    Verification(checkpoint.folder, checkpoint.state.checksums, 0, 1).finish()

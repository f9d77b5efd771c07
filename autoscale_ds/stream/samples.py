"""What was consumed, or would be: one line a sample, ``step slot domain epoch window``.

A run told to log writes these lines from the batches it trained on; ``tools/replay_stream.py`` writes them from seed
and journal. The two must be identical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from autoscale_ds.files import PatientFile, write_atomic
from autoscale_ds.stream.planner import StepPlan


def sample_lines(plan: StepPlan, names: Sequence[str], first_slot: int = 0) -> Iterator[str]:
    """Yield the line of every sample of a plan; ``first_slot`` is the slot of a rank's slice in the global batch."""
    rows = zip(plan.domains.tolist(), plan.epochs.tolist(), plan.windows.tolist(), strict=True)
    for slot, (domain, epoch, window) in enumerate(rows, start=first_slot):
        yield f"{plan.step} {slot} {names[domain]} {epoch} {window}"


class SampleLog:
    """Writes one rank's samples to ``samples/rank-XXXXX.txt``; does nothing when not asked to.

    Parameters
    ----------
    folder : Path
        ``RUN/samples``.
    rank : int
        Data-parallel rank.
    names : sequence of str
        Domains, as the plans index them.
    enabled : bool
        False writes nothing.
    """

    def __init__(self, folder: Path, rank: int, names: Sequence[str], enabled: bool) -> None:
        self._names = names
        self._rank = rank
        self._file = PatientFile(folder / f"rank-{rank:05d}.txt") if enabled else None

    def write(self, plan: StepPlan) -> None:
        """Write the samples of one rank's slice of a step."""
        if self._file is not None:
            lines = sample_lines(plan, self._names, self._rank * len(plan.domains))
            self._file.write("".join(line + "\n" for line in lines))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def drop_samples_from(folder: Path, step: int) -> None:
    """Drop what any rank wrote of ``step`` and later: those steps are done again, maybe by other ranks."""
    for path in folder.glob("rank-*.txt"):
        lines = [f"{line}\n" for line in path.read_text(encoding="utf-8").split("\n")]
        lines[-1] = lines[-1].removesuffix("\n")  # torn by a kill, or empty
        lines = [line for line in lines if line]
        kept = [line for line in lines if line.endswith("\n") and int(line.split()[0]) < step]
        if kept != lines:
            write_atomic(path, "".join(kept))

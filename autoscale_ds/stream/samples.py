"""What was consumed, or would be: one line a sample, ``step slot domain epoch window``.

A run told to log writes these lines from the batches it trained on; ``tools/replay_stream.py`` writes them from seed
and journal. The two must be identical.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from autoscale_ds.errors import StreamError
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
    """Drop what any rank wrote of ``step`` and later: those steps are done again, maybe by other ranks.

    Raises
    ------
    StreamError
        For a line that names no step; then no file is changed.
    """
    kept = {path: _samples_before(path, step) for path in sorted(folder.glob("rank-*.txt"))}
    for path, text in kept.items():
        if text is not None:
            write_atomic(path, text)


def _samples_before(path: Path, step: int) -> str | None:
    """Return what is left of a file, None when it is all of it; a last line torn by a kill is dropped."""
    text = path.read_text(encoding="utf-8", errors="replace")
    *lines, torn = text.split("\n")
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            if int(line.split()[0]) < step:
                kept.append(f"{line}\n")
        except (ValueError, IndexError):
            raise StreamError(
                f"{path}:{number}: {line[:60]!r} is no sample, expected a line that begins with a step; the file is "
                "damaged: move it away to go on without its record"
            ) from None
    return None if len(kept) == len(lines) and not torn else "".join(kept)

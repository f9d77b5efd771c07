"""Proposals: small JSON files in ``RUN/mixture/inbox`` by which any program asks a run for new weights.

The content is ``{"weights": {"books": 0.3, ...}, "source": "...", "reason": "...", "based_on_version": 4}``. Only
``weights`` is required and unknown keys are ignored, so the predictor's ``weights.json`` is a valid proposal. Write
the file elsewhere and rename it into the folder, so that it is never read half-written. Only the run's rank 0 reads
the folder. A bad file is moved to ``RUN/mixture/rejected``, with the reason in a ``.reason`` file beside it, and
training goes on.
"""

from __future__ import annotations

import json
import os
import stat
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.errors import AutoScaleError, ProposalError
from autoscale_ds.files import make_folder, unique_keys, write_atomic, write_json
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Journal

MAX_BYTES = 4 << 20  # room for 50,000 domains; a larger file is refused without reading it
SETTLE_SECONDS = 2.0  # a file that cannot be parsed is refused when it was not written to for this long


@dataclass(frozen=True)
class Proposal:
    """Weights that somebody asks for.

    Attributes
    ----------
    id : str
        Name of the file.
    weights : DomainWeights
        What is asked for.
    source, reason : str
        Who asks, and why in words.
    based_on_version : int or None
        Version of the weights that were in effect when the author decided; None does not say.
    """

    id: str
    weights: DomainWeights
    source: str = "file"
    reason: str = ""
    based_on_version: int | None = None


class Inbox:
    """The proposal folders of a run.

    Attributes
    ----------
    folder : Path
        Where proposals wait.
    rejected : Path
        Where refused proposals are kept with their reasons.
    """

    def __init__(self, run: str | Path) -> None:
        self.folder = Path(run) / "mixture" / "inbox"
        self.rejected = Path(run) / "mixture" / "rejected"

    def create(self) -> list[Path]:
        """Make the folders; return those that were not there."""
        return [made for folder in (self.folder, self.rejected) for made in make_folder(folder)]

    def pending(self) -> list[Path]:
        """Return the proposals waiting, oldest first: ``*.json``, so that writers can rename into place."""
        times_and_names = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                times_and_names.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        return [self.folder / name for _, name in sorted(times_and_names)]

    def put(self, weights: Mapping[str, float], source: str, reason: str, based_on_version: int | None) -> str:
        """Write a proposal atomically and return its id. ``weights`` are not checked here; the run's rank 0 does."""
        name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
        body = {"weights": dict(weights), "source": source, "reason": reason, "based_on_version": based_on_version}
        write_json(self.folder / name, body)
        return name

    def reject(self, path: Path, reason: str) -> None:
        """Move a proposal to the ``rejected`` folder and write the reason beside it. A link is moved, not followed."""
        write_atomic(self.rejected / f"{path.name}.reason", reason + "\n")
        os.replace(path, self.rejected / path.name)

    def rejection(self, proposal: str) -> str | None:
        """Return why a proposal was refused, or None."""
        try:
            return (self.rejected / f"{proposal}.reason").read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None


def read_proposal(path: Path) -> Proposal | None:
    """Read one proposal; None if it is not valid JSON yet and was written to less than ``SETTLE_SECONDS`` ago.

    Raises
    ------
    ProposalError
        Stating what is wrong with the file or its weights.
    """
    text, age_seconds = _read_regular(path)
    try:
        raw = json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        if abs(age_seconds) < SETTLE_SECONDS:  # a time further ahead is no clock's that disagrees a little: judge now
            return None
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            raise ProposalError(
                "the file is half-written: it ends early; write it elsewhere and rename it in"
            ) from None
        raise ProposalError(f"broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise ProposalError(str(error)) from None
    except RecursionError:
        raise ProposalError("the JSON is nested too deep to be a proposal") from None
    return _parse(path.name, raw)


def checked_weights(proposal: Proposal, domains: list[str], journal: Journal) -> DomainWeights:
    """Return the weights of a proposal for exactly the run's domains.

    A domain that is off may be left out, and one that has left the corpus may be named with weight 0.

    Raises
    ------
    ProposalError
        When it names other domains, leaves out one that is on, or is based on weights that are not the newest.
    """
    based_on, newest = proposal.based_on_version, journal.current.version
    if based_on is not None and based_on < journal.weights_version:
        raise ProposalError(
            f"it is older than the current weights: based on version {based_on}, the run is at version "
            f"{newest}; look at those and propose again"
        )
    if based_on is not None and based_on > newest:
        raise ProposalError(f"it is based on version {based_on}, the run is only at version {newest}")
    left = {name for event in journal.events for name in event.weights} - set(domains)
    off = [name for name in domains if name not in proposal.weights and not journal.current.weights.get(name, 0.0)]
    kept = {name: weight for name, weight in proposal.weights.items() if weight > 0 or name not in left}
    try:
        weights = DomainWeights({**kept, **dict.fromkeys(off, 0.0)})
        weights.check_domains(domains)
    except AutoScaleError as error:
        raise ProposalError(str(error)) from None
    return weights


def _read_regular(path: Path) -> tuple[str, float]:
    """Return the text of a plain file and its age in seconds; refuse links, folders, pipes and large files unread."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ProposalError(f"cannot be opened as a plain file: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ProposalError("it is not a plain file")
        if status.st_size > MAX_BYTES:
            raise ProposalError(f"it is {status.st_size} bytes, a proposal has at most {MAX_BYTES}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    try:
        return data.decode("utf-8"), time.time() - status.st_mtime
    except UnicodeDecodeError as error:
        raise ProposalError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _parse(name: str, raw: Any) -> Proposal:
    if not isinstance(raw, dict) or not isinstance(raw.get("weights"), dict):
        raise ProposalError('it has no "weights": expected {"weights": {"domain": number, …}}')
    based_on = raw.get("based_on_version")
    if based_on is not None and (isinstance(based_on, bool) or not isinstance(based_on, int)):
        raise ProposalError(f"based_on_version is {based_on!r}, expected a whole number or null")
    try:
        weights = DomainWeights(raw["weights"])
    except AutoScaleError as error:
        raise ProposalError(str(error)) from None
    source, reason = (str(raw.get(key) or default)[:2000] for key, default in (("source", "file"), ("reason", "")))
    return Proposal(name, weights, source, reason, based_on)

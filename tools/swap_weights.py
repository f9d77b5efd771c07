"""Propose new domain weights to a run, while it trains or for its next start.

    python tools/swap_weights.py RUN                                  show the current weights
    python tools/swap_weights.py RUN --set books=0.3 --rescale        books to 0.3, the others shrink in proportion
    python tools/swap_weights.py RUN --set books=0.3 --set code=0.7 --set web=0
    python tools/swap_weights.py RUN --weights weights.json --wait    as tools/fit_mixture.py writes it
    python tools/swap_weights.py RUN --drop-domain books              before books leaves the corpus

A weight is a share of training tokens, not of documents.

The run's rank 0 takes the proposal up between two steps, writes the event to RUN/mixture/journal.jsonl, and every
rank samples by it from the same step on. With --wait this prints the event, or why it was refused. While no job runs,
proposals wait for the next start, and each builds on the one before. They may name domains that have joined the run's
corpus since the last start; those of another corpus folder are known after a start with it.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from autoscale_ds import cli
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import AutoScaleError, MixtureError, ProposalError
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.stream.journal import Event, Journal, read_events
from autoscale_ds.stream.proposals import Inbox, Proposal, checked_weights, read_proposal


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="DOMAIN=WEIGHT",
        help="a domain's share of training tokens; may be repeated",
    )
    how.add_argument(
        "--drop-domain",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="turn one off and scale the others up, so that it may leave the corpus; may be repeated",
    )
    how.add_argument("--weights", type=Path, metavar="FILE", help='JSON: {"weights": {domain: weight, ...}}')
    parser.add_argument("--rescale", action="store_true", help="with --set: scale the other domains to fill up to 1")
    parser.add_argument("--reason", default="", help="kept in the journal")
    parser.add_argument("--source", default="", help="kept in the journal (default: user, or what the file says)")
    parser.add_argument("--wait", action="store_true", help="wait until the run has accepted or refused it")
    parser.add_argument(
        "--timeout",
        type=cli.real(least=0, infinite=True),
        default=600.0,
        metavar="SECONDS",
        help="of --wait (default: 600)",
    )
    return parser.parse_args()


def main() -> int:
    """Show, or propose and perhaps wait."""
    arguments = parse_arguments()
    events = _read_journal(arguments.run)
    current = events[-1]
    inbox = Inbox(arguments.run)
    waiting = _waiting(inbox)
    if not (arguments.set or arguments.drop_domain) and arguments.weights is None:
        print(_table(current, events[-2] if len(events) > 1 else None))
        for each in waiting:
            print(f"waits to be judged: {_in_one_line(each.weights)} ({inbox.folder / each.id})")
        return 0
    newest = waiting[-1].weights if waiting else current.weights
    known = _known_weights(arguments.run, newest)
    asked = _asked(arguments, known)
    if arguments.weights is None:
        asked.weights.check_domains(list(known))
    else:
        checked_weights(Proposal("", asked.weights), list(known), Journal(RunPaths(arguments.run).journal))
    source = arguments.source or asked.source or "file"
    if waiting:
        print(f"{len(waiting)} before this one not judged yet; it builds on the last of them: {_in_one_line(newest)}")
    # One that waits behind others cannot know the version it will meet.
    proposal = inbox.put(asked.weights, source, arguments.reason, None if waiting else current.version)
    waits = "" if RunPaths(arguments.run).has_job() else "; no job runs, so the next start takes it up"
    print(f"proposed: {inbox.folder / proposal}{waits}")
    if arguments.wait:
        print(_table(_wait(arguments.run, inbox, proposal, arguments.timeout), current))
    return 0


def _read_journal(run: Path) -> list[Event]:
    path = RunPaths(run).journal
    if not path.exists():
        raise ProposalError(f"{run} is no run folder that has started: {path} does not exist")
    return read_events(path)


def _waiting(inbox: Inbox) -> list[Proposal]:
    """Return the proposals that nobody has judged yet, oldest first, but those that cannot be read."""
    waiting = []
    for path in inbox.pending() if inbox.folder.is_dir() else []:
        with contextlib.suppress(ProposalError):
            waiting.append(read_proposal(path))
    return [proposal for proposal in waiting if proposal is not None]


def _in_one_line(weights: DomainWeights) -> str:
    return ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items())


def _known_weights(run: Path, current: DomainWeights) -> DomainWeights:
    """Return the current weights, with 0 for domains of the corpus that the run takes up at its next start."""
    if RunPaths(run).has_job():
        return current
    try:
        domains = Corpus(RunPaths(run).corpus).domains
    except AutoScaleError:  # moved away, or damaged: the journal's domains are those that can be told
        return current
    return DomainWeights({**dict.fromkeys(domains, 0.0), **current})


def _asked(arguments: argparse.Namespace, current: DomainWeights) -> WeightsFile:
    if arguments.weights is not None:
        return WeightsFile.read(arguments.weights)
    return WeightsFile(_changed(arguments, current), source="user")


def _changed(arguments: argparse.Namespace, current: DomainWeights) -> DomainWeights:
    given = _once(map(_parse_set, arguments.set)) | dict.fromkeys(arguments.drop_domain, 0.0)
    unknown = sorted(set(given) - set(current))
    if unknown:
        raise MixtureError(f"unknown domain {unknown[0]!r}; the run's domains are: {', '.join(current)}")
    if arguments.rescale or arguments.drop_domain:
        return current.rescaled(given)
    try:
        return DomainWeights({**current, **given})
    except MixtureError as error:
        raise MixtureError(f"{error}; give the other domains too, or --rescale to scale them") from None


def _once(changes: Iterable[tuple[str, float]]) -> dict[str, float]:
    given: dict[str, float] = {}
    for name, weight in changes:
        if name in given:
            raise MixtureError(f"--set gives {name!r} twice, {given[name]:g} and {weight:g}; leave one out")
        given[name] = weight
    return given


def _parse_set(text: str) -> tuple[str, float]:
    name, separator, value = text.rpartition("=")
    try:
        return name, float(value if separator and name else "-")
    except ValueError:
        raise MixtureError(f"--set {text!r} is not of the form DOMAIN=WEIGHT, for example books=0.3") from None


def _wait(run: Path, inbox: Inbox, proposal: str, timeout: float) -> Event:
    """Wait for the proposal in the journal and return its event; raise ProposalError if it was rejected."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        accepted = [event for event in _read_journal(run) if event.proposal == proposal]
        if accepted:
            return accepted[0]
        refusal = inbox.rejection(proposal)
        if refusal is not None:
            raise ProposalError(f"the run refused it: {refusal}")
        if not RunPaths(run).has_job():
            raise ProposalError(
                f"no job runs in {run}; the proposal stays in {inbox.folder} and is taken up when the run goes on"
            )
        time.sleep(0.1)
    raise ProposalError(
        f"no answer within {timeout:g} s; the proposal stays in {inbox.folder} and is taken up when the run goes on"
    )


def _table(event: Event, before: Event | None) -> str:
    width = max(len(name) for name in event.weights)
    lines = [
        f"weights version {event.version}, effective from step {event.effective_step:,} "
        f"({event.tokens_seen:,} tokens), by {event.source}{': ' + event.reason if event.reason else ''}"
    ]
    for name, weight in event.weights.items():
        old = f"{before.weights.get(name, 0.0):.6f} -> " if before else ""
        lines.append(f"  {name:<{width}}  {old}{weight:.6f}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)

"""What a generator of a skill is, and how its problems are divided into training and held-out ones."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from autoscale_ds.errors import ConfigError
from autoscale_ds.skills.draws import Draws

_MOST_TRIES = 20_000  # problems in a row on the wrong side, or known already, before a side counts as empty


class Problem(NamedTuple):
    """A prompt and the one right completion.

    Attributes
    ----------
    prompt, completion : str
        The text of a sample is the one followed by the other.
    identity : str
        What is asked, however it is written: problems that give each other's answer away have the same.
    """

    prompt: str
    completion: str
    identity: str


class Generator(ABC):
    """Problems of one domain; a frozen dataclass whose fields are what a user sets.

    Attributes
    ----------
    each : mapping of str to sequence
        Fields that take ``all``, which stands for one domain for each of these values.
    """

    each: ClassVar[dict[str, Sequence[Any]]] = {}

    @property
    @abstractmethod
    def default_name(self) -> str:
        """What the domain is called where the user gives no name."""

    def skills(self, domain: str) -> list[str]:
        """Return the names under which held-out problems are scored; one, unless the domain holds several skills."""
        return [domain]

    @abstractmethod
    def draw(self, draws: Draws, skill: int | None = None) -> Problem:
        """Return the next problem; of one of ``skills`` where its place is given, else as training meets them."""


def is_held_out(identity: str, share: float) -> bool:
    """Return the side of a problem: a function of the problem alone, so no seed, size or format moves one across."""
    digest = hashlib.blake2b(identity.encode(), digest_size=8, person=b"held-out skill").digest()
    return int.from_bytes(digest, "little") < share * 2**64


def training(generator: Generator, seed: int, share: float) -> Iterator[Problem]:
    """Yield training problems without end, in constant memory; the first n are the same however many are taken.

    Two generators that differ in how they write problems, and in nothing else, yield the same problems.

    Parameters
    ----------
    share : float
        Share of all problems that is held out.

    Raises
    ------
    ConfigError
        When no problem is on this side.
    """
    draws = Draws("train", type(generator).__name__, seed)
    tries = 0
    while True:
        problem = generator.draw(draws)
        if not is_held_out(problem.identity, share):
            yield problem
            tries = 0
            continue
        tries += 1
        if tries > _MOST_TRIES:
            raise ConfigError(f"{_none(generator)} is a training one; lower the share that is held out ({share:g})")


def held_out(generator: Generator, skill: int, items: int, seed: int, share: float) -> Iterator[Problem]:
    """Yield different held-out problems of one skill: ``items``, or fewer where there are no more.

    Raises
    ------
    ConfigError
        When there is none.
    """
    draws = Draws("held out", type(generator).__name__, skill, seed)
    known: set[str] = set()
    tries = 0
    while len(known) < items and tries <= _MOST_TRIES:
        problem = generator.draw(draws, skill)
        tries += 1
        if problem.identity not in known and is_held_out(problem.identity, share):
            known.add(problem.identity)
            yield problem
            tries = 0
    if not known:
        raise ConfigError(
            f"{_none(generator)} is a held-out one; raise the share that is held out ({share:g}), or allow more "
            "problems (digits, bits, ...)"
        )


def _none(generator: Generator) -> str:
    return f"{generator.default_name}: none of {_MOST_TRIES:,} problems"

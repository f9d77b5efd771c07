"""JSON files of fitted things: read and written with errors in one line, their values checked by their place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import unique_keys, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """A value and its place, ``targets.web.noise`` for example; empty for the whole file."""

    value: Any
    place: str = ""

    def __getitem__(self, name: str) -> Field:
        """Return a field of an object; raises ValueError where it is missing."""
        inner = f"{self.place}.{name}".lstrip(".")
        if not isinstance(self.value, dict) or name not in self.value:
            raise ValueError(f"{inner} is missing")
        return Field(self.value[name], inner)

    def number(self, *, least: float = -math.inf, above: float = -math.inf) -> float:
        """Return a finite number within bounds, ``above`` excluded."""
        value = self.value
        known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not known or value < least or value <= above:
            bounds = f" of at least {least:g}" if least > -math.inf else ""
            bounds += f" above {above:g}" if above > -math.inf else ""
            raise self.wrong(f"a finite number{bounds}")
        return float(value)

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def text(self, choices: Iterable[str] | None = None) -> str:
        """Return a text, one of the choices where there are any."""
        known = None if choices is None else list(choices)
        if not isinstance(self.value, str) or (known is not None and self.value not in known):
            raise self.wrong("text" if known is None else f"one of {', '.join(known)}")
        return self.value

    def items(self, fewest: int = 0) -> list[Field]:
        """Return the items of a list."""
        if not isinstance(self.value, list) or len(self.value) < fewest:
            raise self.wrong(f"a list of {fewest} or more" if fewest else "a list")
        return [Field(item, f"{self.place}[{i}]") for i, item in enumerate(self.value)]

    def mapping(self, fewest: int = 0) -> dict[str, Field]:
        """Return the fields of an object by name."""
        if not isinstance(self.value, dict) or len(self.value) < fewest:
            raise self.wrong(f"an object of {fewest} or more" if fewest else "an object")
        return {name: self[name] for name in self.value}

    def wrong(self, expected: str) -> ValueError:
        """Return the error that says what stands here and what is expected."""
        return ValueError(f"{self.place or 'the file'} is {self.value!r:.60}, expected {expected}")


def write_or_say(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically; raises MixtureError in one line when that fails."""
    try:
        write_json(path, content)
    except OSError as error:
        raise MixtureError(f"cannot write {path}: {error.strerror or error}") from None


def read_versioned(path: str | Path, kind: str, version: int, what: str, decode: Callable[[dict[str, Any]], T]) -> T:
    """Return what a JSON file with ``kind`` and ``version`` holds.

    Parameters
    ----------
    what : str
        What is expected, and the command that makes it: ``is no fitted law; make one with: …``.
    decode : callable
        Raises ValueError naming a field that is missing or cannot be.

    Raises
    ------
    MixtureError
        When it is another file, of another version, or damaged.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("kind") != kind:
        raise MixtureError(f"{path} {what}")
    if raw.get("version") != version:
        raise MixtureError(
            f"{path}: version {raw.get('version')!r}, this program reads version {version}; fit it again"
        )
    try:
        return decode(raw)
    except ValueError as error:
        raise MixtureError(f"{path} is damaged: {error}; fit it again") from None


def read_json(path: str | Path) -> Any:
    """Read JSON; raises MixtureError in one line when that fails."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except OSError as error:
        raise MixtureError(f"cannot read {path}: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        raise MixtureError(f"{path} is not JSON: {error}") from None
    except ValueError as error:
        raise MixtureError(f"cannot read {path}: {error}") from None

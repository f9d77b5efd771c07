"""Which text and which tokenizer the rows of run tables are about, so that rows of different ones are not mixed.

The columns ``tokenizer`` and ``text/<name>``, for domains and held-out targets, hold digests. A loss per token says
nothing beside one of another tokenizer; a domain whose text changed is another domain under the same name. Tables
without these columns are accepted, and it is said that nothing was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoscale_ds.errors import MixtureError

TOKENIZER, TEXT = "tokenizer", "text/"


@dataclass(frozen=True)
class Evidence:
    """What the rows of tables say of their text and tokenizer.

    Attributes
    ----------
    seen : mapping of str to (mapping of str to str)
        Column to its digests, each with the first row that holds it, in words.
    silent : tuple of str
        Tables, or rows of tables that say it for others, without such columns or with an empty cell.
    """

    seen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], runs: Sequence[str]) -> Evidence:
        """Read the columns of one table."""
        columns = {name: i for i, name in enumerate(header) if name == TOKENIZER or name.startswith(TEXT)}
        if TOKENIZER not in columns:
            return cls(silent=(str(path),))
        seen: dict[str, dict[str, str]] = {name: {} for name in columns}
        silent = []
        for run, row in zip(runs, rows, strict=True):
            for name, column in columns.items():
                if row[column]:
                    seen[name].setdefault(str(row[column]), f"run {run!r} of {path.name}")
            if not row[columns[TOKENIZER]]:
                silent.append(f"run {run!r} of {path}")
        return cls(seen, tuple(silent))

    @classmethod
    def joined(cls, parts: Iterable[Evidence]) -> Evidence:
        """Return what the rows of several tables say together."""
        seen: dict[str, dict[str, str]] = {}
        silent: list[str] = []
        for part in parts:
            for name, digests in part.seen.items():
                for digest, where in digests.items():
                    seen.setdefault(name, {}).setdefault(digest, where)
            silent += part.silent
        return cls(seen, tuple(silent))

    def checked(self, accept_changed: bool) -> list[str]:
        """Return what should be said, one line each.

        Raises
        ------
        MixtureError
            For rows of two tokenizers, and for a domain or target whose text changed unless that is accepted.
        """
        notes = []
        for name, digests in self.seen.items():
            if len(digests) < 2:
                continue
            (one, first), (other, second) = list(digests.items())[:2]
            if name == TOKENIZER:
                raise MixtureError(
                    f"{first} and {second} have different tokenizers ({one} and {other}), so their losses per token "
                    "cannot be compared; fit them apart"
                )
            said = f"the text of {name[len(TEXT) :]!r} changed between {first} and {second}"
            if not accept_changed:
                raise MixtureError(f"{said}; fit such runs apart, or take them together with --accept-changed")
            notes.append(f"{said}; they are taken together (--accept-changed)")
        if self.silent:
            more = f" and {len(self.silent) - 1} more" if len(self.silent) > 1 else ""
            notes.append(
                f"{self.silent[0]}{more} does not say which text and tokenizer its losses are of: nothing checks that "
                "they go together (columns tokenizer and text/<domain>)"
            )
        return notes

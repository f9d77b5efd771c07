"""A folder of skills: ``NAME/train.jsonl`` and ``NAME/held_out.jsonl`` of each domain, and ``skills.json``.

A line of ``train.jsonl`` is ``{"text": …}``, which preprocessing reads; one of ``held_out.jsonl`` also has ``prompt``,
``completion`` and ``skill``. ``skills.json`` is written last: a folder without it is unfinished.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from autoscale_ds.corpus.documents import RefusedRecord
from autoscale_ds.corpus.json_lines import read_json_lines
from autoscale_ds.corpus.settings import check_domain_name
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import make_folder, read_json, write_json
from autoscale_ds.skills.base import Generator, held_out, training
from autoscale_ds.skills.registry import settings_of

MANIFEST_NAME = "skills.json"
TRAIN_NAME, HELD_OUT_NAME = "train.jsonl", "held_out.jsonl"
_VERSION = 1
_BATCH = 1000  # samples between two reports of progress
_ADVICE = "make it again with tools/make_skills.py"


class HeldOut(NamedTuple):
    """A held-out problem: a prompt, its one right completion, and the skill it is scored under."""

    prompt: str
    completion: str
    skill: str


@dataclass(frozen=True)
class MakeSettings:
    """How much of each domain is made.

    Attributes
    ----------
    samples : int
        Of training, each domain.
    held_out_items : int
        Of each skill, all different; fewer where there are no more.
    held_out_share : float
        Share of all problems that training never meets.
    seed : int
        Of the order in which problems come; which of them are held out does not depend on it.
    """

    samples: int = 100_000
    held_out_items: int = 512
    held_out_share: float = 0.1
    seed: int = 0


def make(
    folder: Path,
    domains: Mapping[str, Generator],
    settings: MakeSettings,
    advance: Callable[[int], None] = lambda count: None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a folder of skills, at constant memory; return what ``skills.json`` holds.

    Parameters
    ----------
    folder : Path
        Made when missing.
    advance : callable
        Told how many training samples were written since the last call.
    overwrite : bool
        Whether skills that the folder holds are replaced.

    Raises
    ------
    ConfigError
        Before anything is written, when the folder holds skills or a name cannot be one; later, for a domain without
        problems on one side.
    """
    for name in domains:
        check_domain_name(name)
    manifest = folder / MANIFEST_NAME
    if manifest.exists() and not overwrite:
        raise ConfigError(f"{folder} holds skills already; give --overwrite, or another folder")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name another one")
    manifest.unlink(missing_ok=True)
    made = {}
    for name, generator in domains.items():
        make_folder(folder / name)
        problems = training(generator, settings.seed, settings.held_out_share)
        lines = ({"text": p.prompt + p.completion} for p in itertools.islice(problems, settings.samples))
        made[name] = {
            **settings_of(generator),
            "skills": generator.skills(name),
            # The small file first: whether a domain has held-out problems at all shows at once.
            "held_out": _write(folder, f"{name}/{HELD_OUT_NAME}", _held_out_lines(generator, name, settings)),
            "train": _write(folder, f"{name}/{TRAIN_NAME}", lines, advance),
        }
    content = {"version": _VERSION, **asdict(settings), "domains": made}
    write_json(manifest, content)
    return content


def _held_out_lines(generator: Generator, domain: str, settings: MakeSettings) -> Iterable[dict[str, str]]:
    for place, skill in enumerate(generator.skills(domain)):
        problems = held_out(generator, place, settings.held_out_items, settings.seed, settings.held_out_share)
        for prompt, completion, _ in problems:
            yield {"text": prompt + completion, "prompt": prompt, "completion": completion, "skill": skill}


def _write(
    folder: Path, name: str, lines: Iterable[Mapping[str, str]], advance: Callable[[int], None] = lambda count: None
) -> dict[str, Any]:
    """Write lines to a file that appears whole or not at all; return its name, samples, bytes and checksum."""
    path = folder / name
    partial = path.with_name(f".{path.name}.partial")
    digest, samples, size = hashlib.sha256(), 0, 0
    try:
        with open(partial, "wb") as file:
            for some in _batched(lines):
                data = "".join(json.dumps(line) + "\n" for line in some).encode()
                file.write(data)
                digest.update(data)
                samples, size = samples + len(some), size + len(data)
                advance(len(some))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return {"file": name, "samples": samples, "bytes": size, "sha256": digest.hexdigest()}


def _batched(lines: Iterable[Mapping[str, str]]) -> Iterable[list[Mapping[str, str]]]:
    lines = iter(lines)
    while some := list(itertools.islice(lines, _BATCH)):
        yield some


def read_held_out(folder: str | Path) -> list[HeldOut]:
    """Return the held-out problems of a folder of skills, in the order of its domains.

    Raises
    ------
    ConfigError
        For a folder without ``skills.json``, or one that another version wrote.
    CorpusError
        For a file that is missing or lacks a field.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise ConfigError(f"{folder} has no {MANIFEST_NAME}, expected a folder that tools/make_skills.py finished")
    manifest = read_json(path, dict, _ADVICE)
    if manifest.get("version") != _VERSION or not isinstance(manifest.get("domains"), dict):
        raise ConfigError(f"{path} is of version {manifest.get('version')!r}, expected {_VERSION}; {_ADVICE}")
    problems: list[HeldOut] = []
    for entry in manifest["domains"].values():
        file = entry["held_out"]["file"]
        problems += read_json_lines(Path(folder) / file, _problem)
    return problems


def _problem(record: Any) -> HeldOut:
    return HeldOut(*(_text(record, key) for key in HeldOut._fields))


def _text(record: Any, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise RefusedRecord(f"{key!r} is {value!r:.40}, expected text; {_ADVICE}")
    return value

"""The kinds of skills. A new one is one file and one entry here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from autoscale_ds import config
from autoscale_ds.errors import ConfigError
from autoscale_ds.skills.arithmetic import Addition, Aggregated, Multiplication, Subtraction
from autoscale_ds.skills.base import Generator
from autoscale_ds.skills.chains import Lego
from autoscale_ds.skills.parity import Parity
from autoscale_ds.skills.streams import RandomNumbers

KINDS: dict[str, type[Generator]] = {
    "addition": Addition,
    "subtraction": Subtraction,
    "multiplication": Multiplication,
    "aggregated": Aggregated,
    "parity": Parity,
    "lego": Lego,
    "random": RandomNumbers,
}


def parse_skill(text: str) -> dict[str, Generator]:
    """Return generators by domain name of ``[NAME=]KIND[:key=value,…]``; ``all`` gives one for each of a key's values.

    Raises
    ------
    ConfigError
        For an unknown kind or key (the nearest known one is named), or a value out of range.
    """
    head, separator, tail = text.partition(":")
    name, named, kind = head.rpartition("=")
    if kind not in KINDS:
        raise ConfigError(f"unknown skill {kind!r}{config.suggest(kind, KINDS)}")
    if (not tail and separator) or (named and not name):
        raise ConfigError(f"skill {text!r} is not of the form [NAME=]KIND[:key=value,…], for example addition:digits=3")
    data: dict[str, Any] = {}
    config.override(data, tail.split(",") if tail else [])
    try:
        return _built(name, kind, data)
    except ConfigError as error:
        raise ConfigError(f"skill {text!r}: {error}") from None


def _built(name: str, kind: str, data: Mapping[str, Any]) -> dict[str, Generator]:
    schema = KINDS[kind]
    many = [key for key, value in data.items() if value == "all" and key in schema.each]
    if not many:
        made = config.build(schema, data)
        return {name or made.default_name: made}
    (key,) = many  # no kind has two
    values = schema.each[key]
    if key == "depth":  # of a chain, which is as long as another key says
        values = values[: config.build(schema, {**data, key: 1}).length]  # type: ignore[attr-defined]
    generators: dict[str, Generator] = {}
    for value in values:
        made = config.build(schema, {**data, key: value})
        generators[f"{name}-{value}" if name else made.default_name] = made
    return generators


def settings_of(generator: Generator) -> dict[str, Any]:
    """Return kind and settings as plain values."""
    kind = next(kind for kind, schema in KINDS.items() if type(generator) is schema)
    return {"kind": kind, **dataclasses.asdict(generator)}  # type: ignore[call-overload]

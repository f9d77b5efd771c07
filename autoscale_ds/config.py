"""YAML and dotted overrides into frozen dataclasses.

The schema is the dataclass itself: every key must be one of its fields, every value must have the field's type. A
misspelt key is an error that names the nearest field, because a silently ignored ``learning_rat`` costs a run.

A field may hold one of several dataclasses, see ``tagged``: the file gives the name of one (the tag) under the field's
key, and the chosen dataclass's own keys beside it.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from autoscale_ds.errors import ConfigError
from autoscale_ds.yaml_text import parse_yaml

T = TypeVar("T")
IDENTITY: Mapping[str, Any] = {"identity": True}
"""Metadata of a field that must not change between starts of one run: ``field(default=0, metadata=IDENTITY)``."""
_MAPPINGS = (dict, Mapping, typing.get_origin(Mapping[str, int]))
_CLASSES = "classes"  # key in a field's metadata: the function that returns the dataclasses by tag


def load(schema: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file, apply ``a.b=value`` overrides (values are YAML), and build the dataclass ``schema``.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key or a value of the wrong type.
    """
    return build(schema, load_mapping(path, overrides))


def load_mapping(path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file (None: an empty one) and apply overrides, without a schema yet."""
    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, expected keys and values")
    override(data, overrides)
    return data


def override(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set the values of ``a.b=value`` overrides in nested mappings, in place, and leave every other key as it is."""
    for text in overrides:
        _apply(data, text)


def merge(data: dict[str, Any], over: Mapping[str, Any], where: str = "") -> None:
    """Set the values of ``over`` in ``data``, in place; mappings are merged key by key, anything else is replaced."""
    for key, value in over.items():
        if isinstance(value, Mapping):
            merge(_below(data, key, f"{where}{key}"), value, f"{where}{key}.")
        else:
            data[key] = value


def build(schema: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass ``schema`` from nested mappings, checking names and types all the way down."""
    fields = _fields(schema)
    hints = typing.get_type_hints(schema)
    choices = [_Choice(field, fields, data, where) for field in fields.values() if _CLASSES in field.metadata]
    known = {*fields, *(key for choice in choices for key in choice.owners)}
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key {where}{key}{suggest(str(key), sorted(known))}")
    values: dict[str, Any] = {choice.name: choice.build() for choice in choices}
    for name in fields:
        if name in data and name not in values:
            values[name] = _convert(hints[name], data[name], f"{where}{name}")
    missing = [name for name, field in fields.items() if name not in values and _required(field)]
    if missing:
        raise ConfigError(
            f"{where}{missing[0]} is missing: give it in the configuration file or as {where}{missing[0]}=…"
        )
    return schema(**values)


def tagged(classes: Callable[[], Mapping[str, type]], default: str) -> Any:
    """Return a dataclass field that holds an instance of one of several dataclasses, chosen by a tag.

    ``kind: T = tagged(...)`` reads ``{kind: TAG, KEY: …}``, where ``KEY`` are fields of the tag's dataclass. They lie
    flat beside ``kind`` and the schema's other fields. A field of another tag's dataclass may be present only as null
    or with its default, which says nothing: files that list every key stay readable.

    Parameters
    ----------
    classes : callable
        Returns the dataclasses by tag. It is called at every use, so that a tag may be added later.
    default : str
        Tag of the dataclass that is taken, without arguments, when the file gives no tag.
    """
    return dataclasses.field(default_factory=lambda: classes()[default](), metadata={_CLASSES: classes})


class _Choice:
    """A tagged field of a schema, and the keys in ``data`` that lie beside it.

    Attributes
    ----------
    owners : dict of str to list of str
        For each key of the tagged dataclasses, the tags whose dataclass has it.
    """

    def __init__(
        self, field: dataclasses.Field, common: Mapping[str, Any], data: Mapping[str, Any], where: str
    ) -> None:
        self.name = field.name
        self._data = data
        self._where = where
        self._classes: Mapping[str, type] = field.metadata[_CLASSES]()
        self._default = field.default_factory
        self.owners: dict[str, list[str]] = {}
        for tag, each in self._classes.items():
            for key in _fields(each):
                assert key not in common, f"{each.__name__}.{key} is also a key of what it lies in"
                self.owners.setdefault(key, []).append(tag)

    def build(self) -> Any:
        """Return the dataclass of the tag, built from its keys; raise ConfigError for keys of other tags."""
        tag = self._tag()
        for key, owners in self.owners.items():
            if tag not in owners and self._says_something(key, owners):
                others = " or ".join(f"{self._where}{self.name}={owner}" for owner in owners)
                raise ConfigError(
                    f"{self._where}{key} is given, but {self._where}{self.name} is {tag}; leave it out, or set {others}"
                )
        own = {key: self._data[key] for key in _fields(self._classes[tag]) if key in self._data}
        for key, field in _fields(self._classes[tag]).items():
            if _required(field) and own.get(key) is None:
                raise ConfigError(f"{self._where}{self.name} is {tag}, which needs {self._where}{key}; give it")
        return build(self._classes[tag], own, self._where)

    def _tag(self) -> str:
        if self.name not in self._data:
            return tag_of(self._classes, self._default())  # type: ignore[operator]
        tag = self._data[self.name]
        if not isinstance(tag, str) or tag not in self._classes:
            expected = ", ".join(self._classes)
            hint = did_you_mean(str(tag), self._classes)
            raise ConfigError(f"{self._where}{self.name} is {tag!r}{hint}; expected one of {expected}")
        return tag

    def _says_something(self, key: str, owners: Sequence[str]) -> bool:
        """Return whether a key that does not belong to the tag has another value than null or its default."""
        if self._data.get(key) is None:
            return False
        return all(to_dict(self._data[key]) != to_dict(_default_of(_fields(self._classes[o])[key])) for o in owners)


def tag_of(classes: Mapping[str, type], value: Any) -> str:
    """Return the tag under which the class of ``value`` is known."""
    return next(tag for tag, each in classes.items() if type(value) is each)


def to_dict(config: Any) -> Any:
    """Return nested plain containers that ``build`` turns back into the same configuration."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        tree: dict[str, Any] = {}
        for name, field in _fields(type(config)).items():
            value = getattr(config, name)
            if _CLASSES in field.metadata:
                tree[name] = tag_of(field.metadata[_CLASSES](), value)
                tree.update(to_dict(value))
            else:
                tree[name] = to_dict(value)
        return tree
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return config


def identity(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of all fields marked ``IDENTITY`` by dotted name, nested dataclasses included."""
    values: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value, name = getattr(config, each.name), f"{prefix}{each.name}"
        if each.metadata.get("identity"):
            values[name] = to_dict(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            values |= identity(value, f"{name}.")
    return values


def to_yaml(config: Any) -> str:
    """Return the configuration as YAML, fields in the order of the dataclass."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(
            f"override {override!r} is not of the form key=value, for example optimizer.learning_rate=2e-4"
        )
    *parents, last = key.split(".")
    for parent in parents:
        data = _below(data, parent, f"override {override!r}: {parent}")
    try:
        data[last] = parse_yaml(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value: {reason}") from None


def _below(data: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    """Return the mapping under a key; an absent or empty one is made."""
    if data.get(key) is None:
        data[key] = {}
    if not isinstance(data[key], dict):
        raise ConfigError(f"{what} is {data[key]!r}, it has no keys below it")
    below: dict[str, Any] = data[key]
    return below


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if hint is Any:
        return value
    if origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(
            f"{where} is {value!r}{did_you_mean(str(value), map(str, arguments))}; expected {_spell(hint)}"
        )
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return build(hint, value, f"{where}.")
    elif origin in _MAPPINGS:
        if isinstance(value, Mapping):
            return {str(key): _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    else:
        return _scalar(hint, value, where)
    raise ConfigError(f"{where} is {value!r}, expected {_spell(hint)}")


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    options = [argument for argument in arguments if argument is not type(None)]
    if len(options) == 1:
        return _convert(options[0], value, where)
    for option in options:
        try:
            return _convert(option, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} is {value!r}, expected {' or '.join(map(_spell, arguments))}")


def _scalar(hint: Any, value: Any, where: str) -> Any:
    """Check a scalar; numbers may be written as 2e-4 or 10e9, which YAML 1.1 reads as text."""
    if hint in (int, float):
        number = _number(value)
        if number is not None and (hint is float or number.is_integer()):
            return number if hint is float else value if isinstance(value, int) else int(number)
    elif isinstance(value, hint):
        return value
    raise ConfigError(f"{where} is {value!r}, expected {_spell(hint)}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _fields(schema: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(schema) if field.init}


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def check_range(name: str, value: float | None, least: float, most: float) -> None:
    """Raise ConfigError for a number outside [least, most], and for NaN; None is not checked."""
    if value is None or least <= value <= most:
        return
    bound = f"at most {_spelt(most)}" if value > most else f"at least {_spelt(least)}"
    raise ConfigError(f"{name} is {value}, expected {bound}")


def _spelt(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def suggest(key: str, known: Any) -> str:
    """Return the end of a message about an unknown name: the nearest known one, else all of them."""
    known = [str(name) for name in known]
    return did_you_mean(key, known) or f"; known here: {', '.join(known)}"


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """Return the part of a message that names the nearest known name, empty where none is near."""
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint) or typing.get_origin(hint) in _MAPPINGS:
        return "keys and values"
    if typing.get_origin(hint) is tuple:
        return "a list"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint) or str(hint).replace("typing.", "")

"""YAML with keys as they are written: ``no:``, ``010:`` and ``2020-01-01:`` are names, and no name comes twice.

YAML 1.1 reads a bare ``no`` as false and ``010`` as 8, so a domain of that name would be called ``False`` or ``8``. Of
a key listed twice PyYAML keeps the last value. Values keep the types of YAML 1.1.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

_MERGE_TAG = "tag:yaml.org,2002:merge"


def parse_yaml(text: str) -> Any:
    """Return what a YAML document holds; every key is a string.

    Raises
    ------
    yaml.YAMLError
        For text that is no YAML, a value its type does not allow (the date 2020-13-01), or a key listed twice.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from None


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse duplicates here: merging (``<<``) later adds keys that the mapping's own are meant to replace."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"the key {key.value} stands in line {lines[key.value]} and again in line {line}; leave one out"
                )
            lines[key.value] = line
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct the values, and take each key as it is written."""
        self.flatten_mapping(node)
        return {_written(key): self.construct_object(value, deep=deep) for key, value in node.value}


def _written(key: yaml.Node) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise yaml.YAMLError(f"the key in line {key.start_mark.line + 1} is a list or a mapping, expected a name")
    return str(key.value)

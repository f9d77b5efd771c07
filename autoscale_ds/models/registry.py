"""Model families by the name a configuration gives. A new family is one folder and one line here."""

from __future__ import annotations

from autoscale_ds.errors import ConfigError
from autoscale_ds.models.gpt2.spec import GPT2Config
from autoscale_ds.models.spec import ModelSpec

FAMILIES: dict[str, type[ModelSpec]] = {"gpt2": GPT2Config}


def family(name: str) -> type[ModelSpec]:
    """Return a family's spec class; raises ConfigError for an unknown name."""
    if name not in FAMILIES:
        raise ConfigError(f"model.family is {name!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]

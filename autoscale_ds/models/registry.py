"""Model families by the name a configuration gives. A new family is one folder and one line here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoscale_ds.errors import CheckpointError, ConfigError
from autoscale_ds.models.gpt2.spec import GPT2Config
from autoscale_ds.models.spec import ModelSpec

FAMILIES: dict[str, type[ModelSpec]] = {"gpt2": GPT2Config}


def family(name: str) -> type[ModelSpec]:
    """Return a family's spec class; raises ConfigError for an unknown name."""
    if name not in FAMILIES:
        raise ConfigError(f"model.family is {name!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def spec_of_hf(folder: Path) -> ModelSpec:
    """Return the spec of the model in a Hugging Face folder, from its ``config.json`` alone.

    Raises
    ------
    CheckpointError
        When the file cannot be read, or no family is of its ``model_type``.
    """
    raw = _hf_config(folder)
    by_type = {spec.hf_model_type: spec for spec in FAMILIES.values() if spec.hf_model_type}
    if raw["model_type"] not in by_type:
        raise CheckpointError(
            f"{folder / 'config.json'} describes a model of type {raw['model_type']!r}, expected one of "
            f"{', '.join(by_type)}"
        )
    return by_type[raw["model_type"]].from_hf_config(raw)


def hf_end_of_document(folder: Path) -> int | None:
    """Return the id that ends documents for the model in a Hugging Face folder; None where it does not say."""
    end = _hf_config(folder).get("eos_token_id")
    return end if isinstance(end, int) else None


def _hf_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not say what model this is: {str(error).splitlines()[0]}") from None
    return dict(raw)

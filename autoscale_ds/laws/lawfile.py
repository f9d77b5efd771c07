"""law.json: fitted laws as one self-contained file that people can read and other programs can evaluate.

``targets.<name>.parameters`` holds the numbers of ``formula`` in natural units, by domain name where there is one for
each domain; w are weights, D and N are tokens and parameters over ``scales.tokens`` and ``scales.parameters``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import write_json
from autoscale_ds.laws import trees
from autoscale_ds.laws.base import Setting
from autoscale_ds.laws.fitting import Fit, internal, natural
from autoscale_ds.laws.model import Average, LossModel, TargetModel
from autoscale_ds.laws.registry import LAWS
from autoscale_ds.laws.scales import Scales
from autoscale_ds.laws.trees import TreeFit
from autoscale_ds.mixture.weightsfile import read_json

KIND, VERSION = "autoscale_ds law", 1


def save(model: LossModel, path: str | Path) -> None:
    """Write law.json atomically."""
    try:
        write_json(path, encode(model))
    except OSError as error:
        raise MixtureError(f"cannot write {path}: {error.strerror or error}") from None


def load(path: str | Path) -> LossModel:
    """Read law.json; raises MixtureError when it is none, damaged, or of another version."""
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise MixtureError(f"{path} is no fitted law; make one with: fit_mixture.py fit RUNS --out law.json")
    if raw.get("version") != VERSION:
        raise MixtureError(
            f"{path}: version {raw.get('version')!r}, this program reads version {VERSION}; fit it again"
        )
    try:
        return decode(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MixtureError(f"{path} lacks or misnames a field: {error}; fit it again") from None


def encode(model: LossModel) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "kind": KIND,
        "version": VERSION,
        "law": model.law,
        "domains": list(model.domains),
        "scales": model.scales.as_dict(),
        "source": dict(model.source),
        "selection": [dict(row) for row in model.selection],
        "targets": {name: _encode_target(fitted) for name, fitted in model.targets.items()},
    }


def decode(raw: dict[str, Any]) -> LossModel:
    """Return the model of a JSON form."""
    domains, scales = tuple(raw["domains"]), Scales(**raw["scales"])
    targets = {name: _decode_target(entry, domains, scales) for name, entry in raw["targets"].items()}
    return LossModel(raw["law"], domains, scales, targets, raw.get("selection", ()), raw.get("source", {}))


def _encode_target(fitted: TargetModel) -> dict[str, Any]:
    if isinstance(fitted, Average):
        parts = [_encode_target(part) for part in fitted.parts]
        return {"law": "average", "shares": list(fitted.shares), "parts": parts}
    if isinstance(fitted, TreeFit):
        own = fitted.setting.domains[fitted.setting.own]
        return {
            "law": trees.NAME,
            "own": own,
            "noise": fitted.noise,
            "model": fitted.model,
            "draws": list(fitted.draws),
        }
    assert isinstance(fitted, Fit)
    return {
        "law": fitted.law.name,
        "formula": fitted.law.formula,
        "own": fitted.setting.domains[fitted.setting.own],
        "noise": fitted.noise,
        "parameters": _by_name(fitted),
        # Internal parameters of the ensemble in the order above, one line a draw; seven digits are beyond their spread.
        "draws": [" ".join(f"{number:.7g}" for number in draw) for draw in fitted.draws],
    }


def _by_name(fitted: Fit) -> dict[str, Any]:
    values = natural(fitted.layout, fitted.theta, fitted.setting)
    return {
        name: float(v) if v.ndim == 0 else dict(zip(fitted.setting.domains, map(float, v), strict=True))
        for name, v in values.items()
    }


def _decode_target(entry: dict[str, Any], domains: tuple[str, ...], scales: Scales) -> TargetModel:
    if entry["law"] == "average":
        parts = tuple(_decode_target(part, domains, scales) for part in entry["parts"])
        return Average(parts, tuple(entry["shares"]))
    setting = Setting(
        domains,
        domains.index(entry["own"]),
        scales.tokens,
        scales.parameters,
        scales.tokens_vary,
        scales.parameters_vary,
    )
    if entry["law"] == trees.NAME:
        return TreeFit(setting, entry["model"], float(entry["noise"]), tuple(entry["draws"]))
    law = LAWS[entry["law"]]
    layout = law.parameters(setting, np.array([1.0, 2.0]))  # only names and forms are used after fitting
    draws = np.array([[float(number) for number in line.split()] for line in entry["draws"]])
    values = {
        name: [value[domain] for domain in domains] if isinstance(value, dict) else value
        for name, value in entry["parameters"].items()
    }
    return Fit(law, setting, layout, internal(layout, values), float(entry["noise"]), draws)

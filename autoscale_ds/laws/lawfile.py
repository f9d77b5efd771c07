"""law.json: fitted laws as one self-contained file that people can read and other programs can evaluate.

``targets.<name>.parameters`` holds the numbers of ``formula`` in natural units, by domain name where there is one for
each domain; w are weights, D and N are tokens and parameters over ``scales.tokens`` and ``scales.parameters``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import write_json
from autoscale_ds.laws.base import Law, Setting, TargetModel
from autoscale_ds.laws.calibration import Calibration
from autoscale_ds.laws.fitting import Fit
from autoscale_ds.laws.model import Average, LossModel
from autoscale_ds.laws.registry import LAWS
from autoscale_ds.laws.scales import Scales
from autoscale_ds.laws.trees import TreeFit
from autoscale_ds.mixture.weightsfile import read_json

KIND, VERSION = "autoscale_ds law", 3


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
        "calibration": model.calibration.as_dict(),
        "selection": [dict(row) for row in model.selection],
        "targets": {name: _encode_target(fitted) for name, fitted in model.targets.items()},
    }


def decode(raw: dict[str, Any]) -> LossModel:
    """Return the model of a JSON form."""
    domains, scales = tuple(raw["domains"]), Scales(**raw["scales"])
    targets = {name: _decode_target(entry, domains, scales) for name, entry in raw["targets"].items()}
    calibration = Calibration(**raw["calibration"])
    return LossModel(raw["law"], domains, scales, targets, raw.get("selection", ()), raw.get("source", {}), calibration)


def _encode_target(fitted: TargetModel) -> dict[str, Any]:
    if isinstance(fitted, Average):
        parts = [_encode_target(part) for part in fitted.parts]
        return {"law": "average", "shares": list(fitted.shares), "parts": parts}
    assert isinstance(fitted, (Fit, TreeFit))
    law: Law = fitted.law
    return {"law": law.name, **law.encode(fitted)}


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
    decoded: TargetModel = LAWS[entry["law"]].decode(entry, setting)
    return decoded

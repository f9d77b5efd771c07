"""law.json: fitted laws as one self-contained file that people can read and other programs can evaluate.

``targets.<name>.parameters`` holds the numbers of ``formula`` in natural units, by domain name where there is one for
each domain; w are weights, D and N are tokens and parameters over ``scales.tokens`` and ``scales.parameters``, and U
the unique tokens of a domain over ``scales.tokens``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Law, Setting, TargetModel
from autoscale_ds.laws.calibration import Calibration
from autoscale_ds.laws.fitting import Fit
from autoscale_ds.laws.model import AVERAGE, Average, LossModel
from autoscale_ds.laws.registry import LAWS
from autoscale_ds.laws.scales import Scales
from autoscale_ds.laws.trees import TreeFit
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.jsonfiles import Field, read_versioned, write_or_say

# Ten times what a table's losses may be (``losskinds.LARGEST``).
ABSURD = 200.0
KIND, VERSION = "autoscale_ds law", 3
WHAT = "is no fitted law; make one with: fit_mixture.py fit RUNS --out law.json"


def save(model: LossModel, path: str | Path) -> None:
    """Write law.json atomically."""
    write_or_say(path, encode(model))


def load(path: str | Path) -> LossModel:
    """Read law.json; raises MixtureError when it is none, damaged, or of another version."""
    return read_versioned(path, KIND, VERSION, WHAT, decode)


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
    """Return the model of a JSON form; raises ValueError naming a field that is missing or cannot be."""
    file = Field(raw)
    domains = tuple(each.text() for each in file["domains"].items(fewest=2))
    scales = _decode_scales(file["scales"])
    targets = {name: _decode_target(each, domains, scales) for name, each in file["targets"].mapping(fewest=1).items()}
    model = LossModel(
        _law_name(file["law"]),
        domains,
        scales,
        targets,
        [{name: each.value for name, each in row.mapping().items()} for row in file["selection"].items()],
        _decode_source(file["source"], domains),
        _decode_calibration(file["calibration"]),
    )
    _refuse_other_averages(model)
    _refuse_absurd(model)
    return model


def _refuse_other_averages(model: LossModel) -> None:
    """Raise ValueError unless every target is an average of as many laws as are named, or none is one."""
    named = len(model.law.removeprefix(AVERAGE).split(", ")) if model.law.startswith(AVERAGE) else 0
    for name, fitted in model.targets.items():
        parts = len(fitted.parts) if isinstance(fitted, Average) else 0
        if parts != named:
            raise ValueError(f"targets.{name} is an average of {parts} laws, expected {named} as law says")


def _refuse_absurd(model: LossModel) -> None:
    """Raise ValueError where the law, or a draw, predicts no loss at the uniform mixture: a number was edited."""
    if not model.smooth:
        return
    m = len(model.domains)
    without_end = np.full(m, np.inf)  # text that is never repeated
    x = model.inputs(np.full((1, m), 1 / m), model.scales.tokens, model.scales.parameters, without_end)
    for name, fitted in model.targets.items():
        with np.errstate(all="ignore"):
            predicted = np.array([each.predict(x)[0] for each in (fitted, *fitted.members())])
        if not np.isfinite(predicted).all() or abs(predicted[0]) > ABSURD:
            wrong = predicted[0] if not abs(predicted[0]) <= ABSURD else predicted[~np.isfinite(predicted)][0]
            raise ValueError(f"targets.{name} predicts a loss of {wrong:g} at the uniform mixture")


def _law_name(field: Field) -> str:
    name = field.text()
    for part in name.removeprefix(AVERAGE).split(", "):
        Field(part, field.place).text(LAWS)
    return name


def _decode_scales(field: Field) -> Scales:
    sizes = field["parameters_vary"].flag()
    return Scales(
        tokens=field["tokens"].number(above=0),
        parameters=field["parameters"].number(above=0) if sizes else field["parameters"].number(least=0),
        tokens_vary=field["tokens_vary"].flag(),
        parameters_vary=sizes,
        largest_tokens=field["largest_tokens"].number(above=0),
        largest_parameters=field["largest_parameters"].number(least=0),
    )


def _decode_source(field: Field, domains: tuple[str, ...]) -> dict[str, Any]:
    source = {name: each.value for name, each in field.mapping().items()}
    if "largest_weights" in source:
        source["largest_weights"] = {name: field["largest_weights"][name].number(least=0) for name in domains}
    if "bundle" in source:
        shares = {name: each.number(least=0) for name, each in field["bundle"]["shares"].mapping(fewest=1).items()}
        source["bundle"] = {"name": field["bundle"]["name"].text(), "shares": shares}
        try:
            Bundle.from_json(source["bundle"]).refuse_overlap(domains)
        except MixtureError as error:
            raise ValueError(f"source.bundle: {error}") from None
    if "warnings" in source:
        source["warnings"] = [each.text() for each in field["warnings"].items()]
    return source


def _decode_calibration(field: Field) -> Calibration:
    return Calibration(
        {name: each.number(above=0) for name, each in field["inside"].mapping().items()},
        field["tokens"].number(least=0),
        field["parameters"].number(least=0),
        {name: int(each.number(least=0)) for name, each in field["origins"].mapping().items()},
    )


def _encode_target(fitted: TargetModel) -> dict[str, Any]:
    if isinstance(fitted, Average):
        parts = [_encode_target(part) for part in fitted.parts]
        return {"law": "average", "shares": list(fitted.shares), "parts": parts}
    assert isinstance(fitted, (Fit, TreeFit))
    law: Law = fitted.law
    return {"law": law.name, **law.encode(fitted)}


def _decode_target(field: Field, domains: tuple[str, ...], scales: Scales) -> TargetModel:
    name = field["law"].text([*LAWS, "average"])
    if name == "average":
        parts = tuple(_decode_target(part, domains, scales) for part in field["parts"].items(fewest=1))
        shares = tuple(share.number(least=0) for share in field["shares"].items())
        if len(shares) != len(parts) or not sum(shares) > 0:
            raise field["shares"].wrong(f"{len(parts)} numbers above 0 in all, one for each part")
        return Average(parts, shares)
    own = domains.index(field["own"].text(domains))
    setting = Setting(domains, own, scales.tokens, scales.parameters, scales.tokens_vary, scales.parameters_vary)
    decoded: TargetModel = LAWS[name].decode(field, setting)
    return decoded

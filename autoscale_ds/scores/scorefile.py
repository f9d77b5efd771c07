"""scores.json: the curves of every task as one self-contained file that people can read.

``tasks.<name>.bits`` and ``.score`` hold the numbers of the two formulas; N and D are parameters and tokens over
``units``, which are 0 where the runs had one size, or one length.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError, ScoreError
from autoscale_ds.laws import estimation
from autoscale_ds.mixture.jsonfiles import Field, read_versioned, write_or_say
from autoscale_ds.scores import curves
from autoscale_ds.scores.curves import BitsCurve, ScoreCurve
from autoscale_ds.scores.model import Check, ScoreModel, TaskModel

KIND, VERSION = "autoscale_ds scores", 1
WHAT = "holds no fitted scores; make it with: predict_scores.py fit RUNS --out scores.json"
BITS = "E + A / N^alpha + B_D / D^beta"
SCORE = "low + (high - low) / (1 + exp(k (bits - middle)))"


def save(model: ScoreModel, path: str | Path) -> None:
    """Write scores.json atomically."""
    try:
        write_or_say(path, encode(model))
    except MixtureError as error:
        raise ScoreError(str(error)) from None


def load(path: str | Path) -> ScoreModel:
    """Read scores.json; raises ScoreError when it is none, damaged, or of another version."""
    try:
        return read_versioned(path, KIND, VERSION, WHAT, decode)
    except MixtureError as error:
        raise ScoreError(str(error)) from None


def encode(model: ScoreModel) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "kind": KIND,
        "version": VERSION,
        "formulas": {"bits": BITS, "score": SCORE},
        "source": {"files": list(model.files)},
        "parameters": list(model.parameters),
        "tokens": list(model.tokens),
        "compute": model.compute,
        "widen": model.widen,
        "chance": dict(model.chance),
        "tasks": {name: _encode_task(task) for name, task in model.tasks.items()},
    }


def decode(raw: dict[str, Any]) -> ScoreModel:
    """Return the model of a JSON form; raises ValueError naming a field that is missing or cannot be."""
    file = Field(raw)
    chance = {name: share.number(least=0) for name, share in file["chance"].mapping().items()}
    return ScoreModel(
        {name: _decode_task(entry, chance.get(name)) for name, entry in file["tasks"].mapping(fewest=1).items()},
        chance,
        file["widen"].number(least=0),
        _pair(file["parameters"]),
        _pair(file["tokens"]),
        file["compute"].number(above=0),
        tuple(name.text() for name in file["source"]["files"].items()),
    )


def _encode_task(task: TaskModel) -> dict[str, Any]:
    units = {"parameters": task.bits.parameters, "tokens": task.bits.tokens}
    return {
        "units": units,
        "bits": curves.encode(task.bits.layout, task.bits.found),
        "score": curves.encode(task.score.layout, task.score.found),
        "check": asdict(task.check),
    }


def _decode_task(entry: Field, chance: float | None) -> TaskModel:
    units = (entry["units"]["parameters"].number(least=0), entry["units"]["tokens"].number(least=0))
    # Of the layouts only names and forms are used after fitting.
    some = np.array([1.0, 2.0])
    layout, score_layout = curves.bits_layout(*units, some), curves.score_layout(some, some / 10, chance)
    check = {field.name: entry["check"][field.name].number() for field in fields(Check)}
    return TaskModel(
        BitsCurve(*units, layout, estimation.decode(layout, entry["bits"])),
        ScoreCurve(score_layout, estimation.decode(score_layout, entry["score"])),
        Check(**check | {"runs": int(check["runs"])}),  # type: ignore[arg-type]
    )


def _pair(field: Field) -> tuple[float, float]:
    ends = [end.number(above=0) for end in field.items()]
    if len(ends) != 2:
        raise field.wrong("two numbers")
    return ends[0], ends[1]

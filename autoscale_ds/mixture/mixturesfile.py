"""Mixtures to predict: a run table without losses, or a weights file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.rows import weights_problem, without_rests
from autoscale_ds.mixture.tablefile import WEIGHT, number, read_cells
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile


@dataclass(frozen=True)
class Mixtures:
    """Named mixtures: weights (n, m) in the order of ``domains``; tokens and parameters (n,), NaN where not given."""

    names: tuple[str, ...]
    domains: tuple[str, ...]
    weights: Array
    tokens: Array
    parameters: Array


def read_mixtures(path: str | Path, domains: tuple[str, ...], bundle: Bundle | None = None) -> Mixtures:
    """Read mixtures of these domains; where one of them stands for several, also mixtures of those.

    ``path`` is a weights file (.json), or a table as runs have it: the columns ``weight/<domain>``, and ``run``,
    ``tokens`` and ``parameters`` where there are any. Others are not read. Rounded weights are scaled to sum to 1.

    Raises
    ------
    MixtureError
        For other domains, weights that sum to 1 not even as rounded ones do (see ``RunTable``), or a cell that is no
        number.
    """
    path = Path(path)
    if path.suffix == ".json":
        file = WeightsFile.read(path)
        given_weights = file.weights if bundle is None else bundle.reduced(file.weights)
        given_weights.check_domains(list(domains))
        rows = np.array([[given_weights[name] for name in domains]])
        return Mixtures((path.stem,), domains, rows, np.array([file.tokens or math.nan]), np.array([math.nan]))
    header, cells = read_cells(path, "final")
    given = {name.removeprefix(WEIGHT) for name in header if name.startswith(WEIGHT)}
    real = bundle is not None and bundle.name not in given
    read = (*bundle.shares, *(name for name in domains if name != bundle.name)) if bundle and real else domains
    if given != set(read):
        odd = sorted(given ^ set(read))[0]
        raise MixtureError(f"{path}: domain {odd!r} is in only one of law and file; expected: {', '.join(domains)}")
    column = {name: index for index, name in enumerate(header)}
    names, weights, scales = [], [], []
    for line, row in enumerate(cells, 2):
        names.append(str(row[column["run"]]) if "run" in column else f"row{line}")

        def value(name: str, row: list = row, at: str = names[-1]) -> float:
            if name not in column:
                return math.nan
            try:
                return number(row[column[name]], blank=math.nan, nan=math.nan)
            except (TypeError, ValueError):
                raise MixtureError(
                    f"{path}, mixture {at!r}: {name} is {row[column[name]]!r}, expected a number"
                ) from None

        row_weights = without_rests(np.array([value(WEIGHT + name) for name in read]))
        if wrong := weights_problem(read, row_weights):
            raise MixtureError(f"{path}, mixture {names[-1]!r}: {wrong}; mend the row")
        mixture = DomainWeights.normalised(dict(zip(read, map(float, row_weights), strict=True)))
        mixture = mixture if bundle is None else bundle.reduced(mixture)
        weights.append([mixture[name] for name in domains])
        scales.append([value("tokens"), value("parameters")])
    if not names:
        raise MixtureError(f"{path} has a header but no mixtures")
    twice = {name for name, count in Counter(names).items() if count > 1}  # checkpoints of one run
    names = [f"{name} (line {line})" if name in twice else name for line, name in enumerate(names, 2)]
    both = np.array(scales)
    return Mixtures(tuple(names), domains, np.array(weights), both[:, 0], both[:, 1])

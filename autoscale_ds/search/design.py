"""Plan the runs of a sweep: which mixtures to train, how far, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import write_json
from autoscale_ds.laws.prior import prior_values
from autoscale_ds.mixture.simplex import Bounds, dirichlet
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search.surface import Surface

# Kaplan et al., arXiv 2001.08361: a token costs 2 N forward and 4 N backward.
FLOPS_PER_PARAMETER = 6
KINDS = ("ddo", "dirichlet", "axis", "d-optimal")
# Mixtures a D-optimal design chooses among, and the noise of a run in units of what mixtures change.
CANDIDATES, NOISE = 512, 0.05


@dataclass(frozen=True)
class ProbeRun:
    """One run to train: ``weights`` for ``tokens`` tokens at ``parameters`` (None where not planned)."""

    run: str
    weights: DomainWeights
    tokens: float
    parameters: float | None = None


def plan(
    kind: str,
    prior: DomainWeights,
    tokens: float,
    *,
    runs: int | None = None,
    low: float = 1 / 3,
    high: float = 3.0,
    floor: float = 0.0,
    caps: Mapping[str, float] | None = None,
    parameters: float | None = None,
    seed: int = 0,
) -> list[ProbeRun]:
    """Return the runs of a design by its kind; options that do not apply to the kind are ignored.

    Raises
    ------
    MixtureError
        For a kind that needs the number of runs and is not given it, and as the kinds themselves.
    """
    if kind == "ddo":
        return ddo_plan(prior, tokens, low=low, high=high, parameters=parameters)
    if runs is None or runs < 1:
        raise MixtureError(f"--kind {kind} needs the number of mixtures: give --runs K of at least 1")
    if kind == "axis":
        return axis_plan(prior, runs, tokens, floor=floor, parameters=parameters)
    kinds = {"dirichlet": dirichlet_plan, "d-optimal": optimal_plan}
    return kinds[kind](prior, runs, tokens, floor=floor, caps=caps, parameters=parameters, seed=seed)


def ddo_plan(
    base: DomainWeights, tokens: float, *, low: float = 1 / 3, high: float = 3.0, parameters: float | None = None
) -> list[ProbeRun]:
    """Return AutoScale's 2m + 1 runs: the base, then each domain's tokens times ``low`` and times ``high``.

    Only that domain's tokens change, so the total does too: a run's tokens are ``tokens (1 + w_i (factor - 1))``.

    Raises
    ------
    MixtureError
        Unless ``0 <= low < 1 < high`` and every base weight is positive.
    """
    if not (0 <= low < 1 < high and math.isfinite(high)):
        raise MixtureError(f"factors are low {low:g} and high {high:g}, expected 0 <= low < 1 < high")
    off = [name for name, weight in base.items() if weight == 0]
    if off:
        raise MixtureError(f"the base mixture has no {off[0]!r}, so no factor can change its tokens; give it a weight")
    runs = [ProbeRun("base", base, tokens, parameters)]
    for kind, factor in (("low", low), ("high", high)):
        for name in base:
            amounts = {d: w * tokens * (factor if d == name else 1.0) for d, w in base.items()}
            weights = DomainWeights.normalised(amounts)
            runs.append(ProbeRun(f"{kind}/{name}", weights, math.fsum(amounts.values()), parameters))
    return runs


def dirichlet_plan(
    prior: DomainWeights,
    runs: int,
    tokens: float,
    *,
    floor: float = 0.0,
    caps: Mapping[str, float] | None = None,
    parameters: float | None = None,
    seed: int = 0,
) -> list[ProbeRun]:
    """Return low-discrepancy mixtures around a prior, within floor and caps; the prior itself comes first.

    Half of the runs are drawn wide (concentration 1/2 a domain on average: near edges and corners) and half near the
    prior (concentration 2), so that a law sees both what a domain is worth and how the neighbourhood bends.
    """
    bounds = Bounds.of(list(prior), floor, caps)
    centre = np.array(list(prior.values()))
    m, more, free = len(centre), runs - 1, 1 - floor * len(centre)
    smoothed = np.maximum(centre - floor, 1 / (10 * m))
    smoothed = smoothed / smoothed.sum() * m
    drawn = np.vstack([dirichlet(0.5 * smoothed, runs, seed)[: more // 2], dirichlet(2 * smoothed, runs, seed + 1)])
    # Shares above the floor are drawn, not clipped to it: clipping would give the same vertex many times.
    points = bounds.scale_in(np.vstack([centre[None], floor + free * drawn[:more]]))
    names = ["prior", *(f"dirichlet{i + 1:03d}" for i in range(more))]
    return [_probe(run, prior, point, tokens, parameters) for run, point in zip(names, points, strict=True)]


def optimal_plan(
    prior: DomainWeights,
    runs: int,
    tokens: float,
    *,
    floor: float = 0.0,
    caps: Mapping[str, float] | None = None,
    parameters: float | None = None,
    seed: int = 0,
) -> list[ProbeRun]:
    """Return the prior, then the mixtures that together tell most of a law, by a greedy D-optimal design.

    Before any run nothing but the law's own prior says how losses of mixtures go together. Chosen are mixtures of a
    Dirichlet design of ``CANDIDATES``.
    """
    candidates = dirichlet_plan(prior, max(CANDIDATES, runs), tokens, floor=floor, caps=caps, seed=seed)
    weights = np.array([list(probe.weights.values()) for probe in candidates])
    belief = Surface.of_draws(prior_values(weights, seed=seed)).after_run(0, NOISE)
    chosen = belief.most_telling(range(1, len(candidates)), runs - 1, NOISE)
    probes = [candidates[0], *(candidates[i] for i in chosen)]
    names = ["prior", *(f"d-optimal{i + 1:03d}" for i in range(len(chosen)))]
    return [replace(probe, run=name, parameters=parameters) for probe, name in zip(probes, names, strict=True)]


def axis_plan(
    prior: DomainWeights, runs: int, tokens: float, *, floor: float = 0.0, parameters: float | None = None
) -> list[ProbeRun]:
    """Return the prior, then runs that take one domain to each of several shares, the others in prior proportion."""
    m = len(prior)
    steps = max((runs - 1) // m, 1)
    bounds = Bounds.of(list(prior), floor)
    centre = np.array(list(prior.values()))
    probes = [_probe("prior", prior, bounds.scale_in(centre[None])[0], tokens, parameters)]
    for step in range(1, steps + 1):
        for i, name in enumerate(prior):
            share = centre[i] + (1 - centre[i]) * step / (steps + 1)
            rest = np.delete(centre, i)
            rest = np.full(m - 1, 1 / (m - 1)) if rest.sum() == 0 else rest / rest.sum()
            point = np.insert((1 - share) * rest, i, share)
            probes.append(
                _probe(f"axis/{name}/{share:.3g}", prior, bounds.scale_in(point[None])[0], tokens, parameters)
            )
    return probes


def cost(
    runs: Sequence[ProbeRun], *, target_tokens: float | None = None, target_parameters: float | None = None
) -> dict[str, Any]:
    """Return tokens, FLOPs (6 N D, where sizes are planned) and the share of the target run they come to."""
    tokens = math.fsum(run.tokens for run in runs)
    sized = [run for run in runs if run.parameters]
    flops = FLOPS_PER_PARAMETER * math.fsum(run.tokens * (run.parameters or 0) for run in sized)
    whole = len(sized) == len(runs)
    costs: dict[str, Any] = {"runs": len(runs), "tokens": tokens, "flops": flops if whole else None}
    if target_tokens:
        costs["share_of_target_tokens"] = tokens / target_tokens
        if target_parameters and whole:
            costs["share_of_target_flops"] = flops / (FLOPS_PER_PARAMETER * target_tokens * target_parameters)
    return costs


def write_plan(path: str | Path, runs: Sequence[ProbeRun], kind: str, costs: Mapping[str, Any]) -> dict[str, Any]:
    """Write plan.json (``kind``, ``cost`` and ``runs``, one mapping a ProbeRun) and return its content."""
    content = {
        "kind": kind,
        "cost": dict(costs),
        "runs": [
            {"run": r.run, "weights": r.weights.as_dict(), "tokens": r.tokens, "parameters": r.parameters} for r in runs
        ],
    }
    try:
        write_json(path, content)
    except OSError as error:
        raise MixtureError(f"cannot write {path}: {error.strerror or error}") from None
    return content


def _probe(run: str, prior: DomainWeights, point: np.ndarray, tokens: float, parameters: float | None) -> ProbeRun:
    return ProbeRun(run, DomainWeights.normalised(dict(zip(prior, map(float, point), strict=True))), tokens, parameters)

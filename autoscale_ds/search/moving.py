"""Whether to leave the last known optimum: towards AutoScale's path or a law's optimum, as far as a law shows a gain.

Where real runs could be compared, following the path to a larger budget was worse than keeping the last optimum in most
cases (docs/mixtures.md). So the last optimum is kept unless a law fitted to several scales shows otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.search.solver import Goal
from autoscale_ds.search.uncertainty import ends_of_90

# A move has to be a gain with this probability.
SURE = 0.9
STEPS = 20
NO_EVIDENCE = (
    "keep: no law of several scales is given (--law), and without one the path is no better than the last optimum"
)


@dataclass(frozen=True)
class Move:
    """A decision.

    Attributes
    ----------
    weights : DomainWeights
        The mixture decided for.
    towards : str
        Name of the mixture it moves towards, empty where the last optimum is kept.
    share : float
        Part of the way, 0 to 1.
    gain : (float, float, float)
        Expected decrease of the objective and its 90 % interval; zeros where nothing was moved.
    probability : float
        Of a gain.
    reason : str
        One sentence.
    """

    weights: DomainWeights
    towards: str
    share: float
    gain: tuple[float, float, float]
    probability: float
    reason: str


def supported(last: DomainWeights, path: DomainWeights, draws: Sequence[DomainWeights]) -> float:
    """Return the share of the way from the last optimum to the path's that the optima's uncertainty supports.

    Positive-part James–Stein shrinkage of the vector of log ratios: ``1 - (m - 2) / m * variance / moved^2``.
    """
    if not draws:
        return 0.0
    names = list(path)
    base = np.array([last[name] for name in names])
    moved = np.log(np.maximum([path[name] for name in names], 1e-9) / np.maximum(base, 1e-9))
    drawn = np.log(np.maximum([[each[name] for name in names] for each in draws], 1e-9))
    variance, size = float(drawn.var(0).sum()), float((moved**2).sum())
    return max(1 - max(len(names) - 2, 1) / len(names) * variance / size, 0.0) if size > 0 else 0.0


def decide(last: DomainWeights, candidates: Mapping[str, tuple[DomainWeights, float]], goal: Goal) -> Move:
    """Return the mixture between the last optimum and a candidate whose gain is the surest, or the last optimum.

    Parameters
    ----------
    last : DomainWeights
        Optimum of the largest scale known.
    candidates : mapping of str to (DomainWeights, float)
        Where to move, by name, and the largest share of the way.
    goal : Goal
        What is minimised at the target scale, with a law that knows several scales.

    Notes
    -----
    Over the law's ensemble, the step with the largest 10 % quantile of the gain is taken, if it is above zero.
    """
    names = goal.model.domains
    start = np.array([last[name] for name in names])
    members = [replace(goal, model=member) for member in goal.model.members()]
    best: tuple[float, str, float, Array] | None = None
    for towards, (weights, most) in candidates.items():
        end = np.array([weights[name] for name in names])
        shares = np.linspace(0, most, STEPS + 1)[1:] if most > 0 else np.zeros(0)
        points = start + shares[:, None] * (end - start)
        if not len(points) or np.abs(end - start).max() < 1e-9:
            continue
        gains = np.array([float(each.value(start[None])[0]) - each.value(points) for each in members])
        lower = np.quantile(gains, 1 - SURE, axis=0)
        step = int(np.argmax(lower))
        if lower[step] > 0 and (best is None or lower[step] > best[0]):
            best = (float(lower[step]), towards, float(shares[step]), gains[:, step])
    if best is None:
        return Move(last, "", 0.0, (0.0, 0.0, 0.0), 0.0, f"keep: no step is a gain with probability {SURE:g}")
    _, towards, share, gain = best
    end = np.array([candidates[towards][0][name] for name in names])
    moved = dict(zip(names, map(float, start + share * (end - start)), strict=True))
    low, high = ends_of_90(gain[:, None])[:, 0]
    mean = float(gain.mean())
    reason = f"move {share:.0%} of the way to the {towards}: expected gain {mean:.2g}, 90 % {low:.2g} to {high:.2g}"
    return Move(
        DomainWeights.normalised(moved),
        towards,
        share,
        (mean, float(low), float(high)),
        float((gain > 0).mean()),
        reason,
    )

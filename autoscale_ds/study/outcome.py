"""What came out of a study: the decision, and what it gained where a baseline was trained beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscale_ds.mixture import Objective
from autoscale_ds.report.compare import tokens_to_reach
from autoscale_ds.run_paths import RunPaths
from autoscale_ds.study.config import StudyConfig
from autoscale_ds.study.steps import Paths
from autoscale_ds.training.metrics import read_metrics

# (tokens, value of the objective) at every evaluation.
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Outcome:
    """Gain of the main run over the baseline.

    Attributes
    ----------
    predicted : (float, float, float)
        Expected gain and the ends of its 90 % interval, from before the runs.
    measured : float
        Difference of the last values, baseline less main run: one seed, so its noise is that of two runs.
    tokens : float or None
        Tokens at which the main run reached the baseline's last value; None when it never did.
    budget : float
        Tokens of the baseline.
    """

    predicted: tuple[float, float, float]
    measured: float
    tokens: float | None
    budget: float

    @property
    def lines(self) -> list[str]:
        """The outcome in words."""
        mean, low, high = self.predicted
        held = "inside" if low <= self.measured <= high else "outside"
        said = [f"gain predicted {mean:.3g} (90 % {low:.3g} to {high:.3g}), measured {self.measured:.3g}: {held}"]
        if self.tokens:
            times = self.budget / self.tokens
            said.append(f"the baseline's last value was reached after {self.tokens:,.0f} tokens: {times:.2f}x fewer")
        else:
            said.append("the baseline's last value was not reached")
        return said


def decision(study: StudyConfig) -> Mapping[str, object]:
    """Return what was decided, as ``fit_mixture.py decide --json`` said it."""
    raw: Mapping[str, object] = json.loads(Paths(Path(study.folder)).decision.read_text(encoding="utf-8"))
    return raw


def outcome(study: StudyConfig) -> Outcome:
    """Return how the main run compares with the baseline."""
    paths = Paths(Path(study.folder))
    asked = str(paths.objective) if study.targets else study.objective
    main, baseline = (objective_curve(run, asked) for run in (paths.main, paths.baseline))
    gain: Mapping[str, float] = decision(study)["expected_gain"]  # type: ignore[assignment]
    tokens, values = zip(*main, strict=True)
    budget, last = baseline[-1]
    predicted = gain["value"], gain["low"], gain["high"]
    return Outcome(predicted, last - main[-1][1], tokens_to_reach(tokens, values, last), budget)


def objective_curve(run: Path, objective: str) -> Curve:
    """Return an objective, see ``Objective.named``, at every evaluation of a run."""
    losses: dict[float, dict[str, float]] = {}
    for record in read_metrics(RunPaths(run).metrics):
        if record["kind"] in ("validation", "targets"):
            of_kind = record["domain_loss" if record["kind"] == "validation" else "target_loss"]
            losses.setdefault(record["tokens"], {}).update(of_kind)
    names = tuple(next(iter(losses.values())))
    goal = Objective.named(objective, names)
    return sorted((t, float(goal.value(np.array([each[n] for n in names]), names))) for t, each in losses.items())

"""Let the results of a sweep say which runs to train next, and when no more are worth it.

``launch/sweep.py next`` fills a ``SearchRequest`` from its command line; everything is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.table import RunTable
from autoscale_ds.search.design import ProbeRun
from autoscale_ds.search.next_probes import LAWS, Advice, Question, advise
from autoscale_ds.search.surface import Points, Scale
from autoscale_ds.stream.dataset import count_windows
from autoscale_ds.sweep.designs import named_mixture
from autoscale_ds.sweep.plan import PlannedRun, SweepPlan, Target, tokens_label, with_seeds
from autoscale_ds.sweep.progress import survey
from autoscale_ds.sweep.results import TABLE_FILE, collect

# Exit code of ``launch/sweep.py next`` when no more runs are worth it.
SEARCH_OVER = 3
# Names of the runs that are planned here begin with it.
NEXT = "next"


@dataclass(frozen=True)
class SearchRequest:
    """What to ask a sweep. The options of ``launch/sweep.py next`` have the same names.

    Attributes
    ----------
    sweep : Path
        Sweep folder; some of its runs must have finished.
    runs : int
        How many runs to add.
    objective : str or None
        A kind of objective or a file, see ``Objective.named``; None is the mean loss.
    against : str
        What one would train otherwise, see ``named_mixture``.
    tokens : sequence of float
        Budgets of the runs that may be added; empty for those of the sweep.
    target_tokens, target_parameters : float or None
        The run the mixture is for; None as the sweep was planned.
    corpus : path or None
        Where the corpus lies, if not where the plan says.
    floor : float
        Smallest weight of any mixture.
    laws : sequence of str
        Laws to judge by, each as likely; empty for ``search.next_probes.LAWS``.
    stop_share : float
        Enough is known when the expected regret is below this share of the expected gain, or below one run's noise.
    max_share : float or None
        The most that all runs of the sweep together may cost, as a share of the target run's cost.
    seed : int
        Seed of draws.
    """

    sweep: Path
    runs: int = 4
    objective: str | None = None
    against: str = "uniform"
    tokens: Sequence[float] = ()
    target_tokens: float | None = None
    target_parameters: float | None = None
    corpus: Path | None = None
    floor: float = 0.0
    laws: Sequence[str] = ()
    stop_share: float = 0.1
    max_share: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """What a sweep says.

    Attributes
    ----------
    plan : SweepPlan
        The plan with the runs added.
    added : list of PlannedRun
        Those runs; empty when the search is over.
    advice : Advice
        What is believed now.
    pending : int
        Planned runs without a result, which count as made.
    over : str or None
        Why the search is over, in words; None where runs were added.
    """

    plan: SweepPlan
    added: list[PlannedRun]
    advice: Advice
    pending: int
    over: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        added = [
            {"run": run.run, "tokens": run.tokens, "weights": run.weights.as_dict(), "worth": worth}
            for run, worth in zip(self.added, self.advice.worth, strict=False)
        ]
        return {
            "added": added,
            "best": self.advice.best.as_dict(),
            "expected_regret": self.advice.regret,
            "expected_gain": self.advice.gain,
            "noise": self.advice.noise,
            "pending": self.pending,
            "over": self.over,
        }


def find_next(request: SearchRequest) -> Found:
    """Return what to train next; of the sweep only the table of results is written.

    Raises
    ------
    ConfigError, MixtureError
        For a sweep without a target or without enough finished runs, an unknown target of the objective, a search
        budget that no run fits into, or budgets that the sweep cannot train.
    """
    plan = SweepPlan.read(request.sweep)
    plan = replace(plan, target=_target(request, plan))
    corpus = Corpus(request.corpus or plan.config["data"]["corpus"])
    plan.check_corpus(request.sweep, corpus)
    collect(request.sweep, plan)
    table = RunTable.read(request.sweep / TABLE_FILE).with_domains(plan.domains(corpus))
    size = float(np.median(table.parameters))
    of_target, at_scale = _scales(plan, corpus, table, size)
    budget = Budget.of(plan, size, request.max_share)
    scales = [tokens for tokens in request.tokens or sorted({run.scale for run in plan.runs}) if budget.holds(tokens)]
    if not scales:
        budget.refuse_if_new(plan)
    pending = [state.run for state in survey(request.sweep, plan) if state.state not in ("done", "failed")]
    advice = advise(
        table,
        _question(request, plan, corpus, table, of_target),
        [at_scale(tokens) for tokens in scales or [float(table.tokens.min())]],
        request.runs,
        pending=_points(plan, pending, table.domains, at_scale),
        laws=request.laws or LAWS,
        seed=request.seed,
    )
    if advice.is_enough(request.stop_share):
        return Found(plan, [], advice, len(pending), _enough(advice))
    added = _named(plan, budget.cut(advice.probes)) if scales else []
    whole = plan.extended(replace(plan, runs=tuple(added)))
    whole.check(request.sweep, corpus)
    return Found(whole, added, advice, len(pending), None if added else budget.spent_in_words)


@dataclass(frozen=True)
class Budget:
    """What all runs of a sweep may cost, in tokens of a run of the sweep's size; infinite without a limit."""

    limit: float
    planned: float

    @classmethod
    def of(cls, plan: SweepPlan, size: float, share: float | None) -> Budget:
        """Return the budget that is a share of the target run's cost (tokens times size)."""
        tokens, parameters = float(plan.target.tokens or math.inf), plan.target.parameters or size
        limit = math.inf if share is None else share * tokens * parameters / size
        return cls(limit, math.fsum(run.tokens for run in plan.runs))

    def holds(self, tokens: float) -> bool:
        """Return whether there is room for a run."""
        return self.planned + tokens <= self.limit * (1 + 1e-9)

    def cut(self, probes: Sequence[ProbeRun]) -> list[ProbeRun]:
        """Return the probes that fit, taken in their order."""
        left, kept = self, []
        for probe in probes:
            if left.holds(probe.tokens):
                kept.append(probe)
                left = replace(left, planned=left.planned + probe.tokens)
        return kept

    @property
    def spent_in_words(self) -> str:
        """Why nothing is added."""
        return (
            f"the search budget is spent: {tokens_label(self.planned)} tokens are planned, --max-share allows "
            f"{tokens_label(self.limit)}"
        )

    def refuse_if_new(self, plan: SweepPlan) -> None:
        """Raise ConfigError when the budget was too small from the start."""
        if not _found_before(plan):
            raise ConfigError(f"{self.spent_in_words}: no room for a run; raise it, or give smaller --tokens")


def _target(request: SearchRequest, plan: SweepPlan) -> Target:
    tokens = request.target_tokens or plan.target.tokens
    if not tokens:
        raise ConfigError("which run is the mixture for? give --target-tokens, 10e9 for example")
    return Target(tokens, request.target_parameters or plan.target.parameters)


def _scales(plan: SweepPlan, corpus: Corpus, table: RunTable, size: float) -> tuple[Scale, Callable[[float], Scale]]:
    """Return the target's scale, and the scale of probes of a budget.

    The target draws from all text of the corpus, a probe from the share that the sweep gives it. One size in the table:
    nothing is known of others.
    """
    length = int(plan.config["data"]["sequence_length"])
    windows = count_windows(corpus, length)
    of_domain = {name: float(count * length) for name, count in windows.items()}
    of_domain = of_domain if plan.bundle is None else plan.bundle.tokens(of_domain)
    text = np.array([of_domain[name] for name in table.domains])
    known = table.unique is not None

    def at_scale(tokens: float) -> Scale:
        return Scale(tokens, size, plan.window_share(tokens) * text if known else None)

    target = Scale(float(plan.target.tokens or 0), plan.target.parameters or size, text if known else None)
    return target, at_scale


def _question(request: SearchRequest, plan: SweepPlan, corpus: Corpus, table: RunTable, target: Scale) -> Question:
    kind = request.objective or "mean-loss"
    if request.against == "uniform":
        against = DomainWeights.uniform(list(table.domains))
    else:
        against = plan.reduced(named_mixture(request.against, corpus)[1])
    return Question(
        Objective.named(kind, table.targets, corpus.bytes_per_token_of(table.targets)),
        target,
        against,
        Bounds.of(list(table.domains), request.floor),
    )


def _points(
    plan: SweepPlan, runs: Sequence[PlannedRun], domains: Sequence[str], at_scale: Callable[[float], Scale]
) -> Points:
    """Return planned runs as points."""
    points = Points.at(np.empty((0, len(domains))), at_scale(1.0))
    for run in runs:
        mixture = plan.reduced(run.weights)
        weights = np.array([[mixture[name] for name in domains]])
        points += Points.at(weights, at_scale(run.scale)._replace(tokens=run.tokens))
    return points


def _named(plan: SweepPlan, probes: Sequence[ProbeRun]) -> list[PlannedRun]:
    """Return probes as runs of the sweep's first seed, numbered on from those added before."""
    number = len(_found_before(plan))
    seed = min(run.seed for run in plan.runs)
    runs = []
    for place, probe in enumerate(probes):
        named = replace(probe, run=f"{NEXT}{number + place + 1:03d}", weights=plan.expanded(probe.weights))
        runs += with_seeds([named], probe.tokens, [seed])
    return runs


def _found_before(plan: SweepPlan) -> set[str]:
    """Return the designs that a search has added."""
    return {run.design for run in plan.runs if run.design.startswith(f"{tokens_label(run.scale)}/{NEXT}")}


def _enough(advice: Advice) -> str:
    reason = "less than the noise of one run" if advice.regret <= advice.noise else "a small part of the expected gain"
    return f"enough is known: further runs could improve the choice by {advice.regret:.2g}, {reason}"

"""Fitting the law again on the way, in worlds whose law is known."""

import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from paths import Run

from autoscale_ds.controllers import AutoScaleTarget, Budget
from autoscale_ds.controllers import refit as refit_module
from autoscale_ds.controllers.refit import Evidence, Refit, shares_until
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.search.predictor import Constant
from autoscale_ds.search.solver import Goal, minimum

sys.path.insert(0, str(Path(__file__).parents[1] / "mixture"))
from synthetic import World

LAW = "exposure"
BUDGET = Budget(10**7, 800)
NOISE = 0.003


class Setup:
    """A world, probe runs of it at 1e9 and 2e9 tokens, and a run of 8e9 that is validated every 50 steps."""

    def __init__(self, folder, start_weights=None, seed=3, **options):
        self.world = World(LAW, m=4, targets=4, seed=seed, tokens=(1e9, 2e9))
        self.runs = self.world.table(40, noise=NOISE)
        self.evidence = Evidence(self.runs, LAW, 1e8, (0.0, 7e9))
        start = start_weights or self.best(fit_law(self.runs, LAW, draws=2))
        controller = Refit(AutoScaleTarget(Constant(start), BUDGET, "law.json"), self.evidence, BUDGET, 1e9, 0.1)
        self.run = Run(folder, controller, BUDGET, self.world.domains, 10, validation=self.validation, **options)

    def best(self, law):
        goal = Goal(law, Objective.of_kind("mean-loss", tuple(law.targets)), BUDGET.tokens, 1e8)
        return minimum(goal, Bounds.of(law.domains))

    def losses(self, shares, tokens):
        weights = np.array([[shares[name] for name in self.world.domains]])
        return self.world.losses(weights, np.array([float(tokens)]), np.array([1e8]))[0]

    def validation(self):
        rng = np.random.default_rng(0)
        records = []
        for step in range(0, self.run.planner.next_step, 50):
            noise = NOISE * rng.normal(size=4)
            shares = shares_until(self.run.journal.events, step, BUDGET) if step else self.run.journal.events[0].weights
            found = self.losses(shares, max(step, 1) * 1e7) + noise
            losses = dict(zip(self.world.targets, found.tolist(), strict=True))
            records.append({"kind": "validation", "step": step, "tokens": step * 10**7, "domain_loss": losses})
        return records

    def finish(self):
        *_, counts = self.run.steps(BUDGET.total_steps)
        return dict(zip(self.run.planner.names, counts / counts.sum(), strict=True))

    def true_best(self):
        return self.best(fit_law(self.world.table(300, noise=0.0, seed=9), LAW, draws=2))


def distance(left, right):
    return sum(abs(left[name] - right[name]) for name in right) / 2


WRONG = DomainWeights({"domain0": 0.7, "domain1": 0.1, "domain2": 0.1, "domain3": 0.1})


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_wrong_predictor_is_corrected_towards_the_truth_in_bounded_steps(tmp_path, seed):
    setup = Setup(tmp_path, WRONG, seed)
    end, best = setup.finish(), setup.true_best()
    events = setup.run.journal.events
    assert len(events) > 2
    moves = [distance(after.weights, before.weights) for before, after in pairwise(events)]
    assert max(moves) <= 0.1 + 1e-9
    assert distance(events[-1].weights, best) < 0.6 * distance(WRONG, best)
    # Most of the loss that the wrong weights cost is won back, though the run began with them.
    wrong, ended, least = (setup.losses(weights, BUDGET.tokens).mean() for weights in (WRONG, end, best))
    assert ended - least < 0.5 * (wrong - least)
    said = r"refit at 2,000,000,000 tokens with 4\d rows: predicted gain \S+ nats \(90 % \S+ to \S+\); "
    assert any(re.fullmatch(said + "moved 0.10 of 0.\\d\\d", event.reason) for event in events)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_where_nothing_is_gained_nothing_is_proposed(tmp_path, caplog, seed):
    caplog.set_level("INFO")
    setup = Setup(tmp_path, seed=seed)
    setup.finish()
    assert len(setup.run.journal.events) == 1
    assert "no change of weights: " in caplog.text


def test_a_dry_run_writes_nothing_into_the_journal(tmp_path):
    setup = Setup(tmp_path, WRONG, dry_run=True)
    setup.finish()
    assert len(setup.run.journal.events) == 1
    assert all(record["reason"].startswith("refit at") for _, record in setup.run.records)
    assert setup.run.records


def test_only_losses_of_the_constant_phase_within_the_scales_of_the_table_are_used(tmp_path):
    setup = Setup(tmp_path)
    list(setup.run.steps(790))
    table = setup.evidence.with_own(setup.run.adviser._view())
    own = table.take(np.arange(len(setup.runs), len(table)))
    assert own.tokens.tolist() == [step * 1e7 for step in range(100, 701, 50)]
    assert own.weights.sum(1) == pytest.approx(1)
    assert own.runs[0] == "this run at 1,000,000,000 tokens"


def test_losses_of_targets_that_are_no_domains_are_used(tmp_path):
    setup = Setup(tmp_path)
    list(setup.run.steps(790))
    known = setup.runs
    more = replace(known, targets=(*known.targets, "exams"), losses=np.column_stack([known.losses, known.losses[:, 0]]))
    view = setup.run.adviser._view()
    records = [{**record, "target_loss": {"exams": 2.5}} for record in view.validation()]
    table = replace(setup.evidence, runs=more).with_own(replace(view, validation=lambda: records))
    assert table.losses[len(known) :, -1].tolist() == [2.5] * (len(table) - len(known))
    assert len(table) > len(known)


def test_before_its_first_validation_the_run_is_left_alone(tmp_path, monkeypatch):
    setup = Setup(tmp_path, WRONG)
    monkeypatch.setattr(refit_module, "fit_law", None)
    list(setup.run.steps(60))
    assert setup.run.controller.propose(setup.run.adviser._view()) is None


def test_a_fit_that_breaks_down_leaves_the_weights_alone(tmp_path, monkeypatch, caplog):
    def broken(*arguments, **options):
        raise np.linalg.LinAlgError("singular matrix")

    setup = Setup(tmp_path, WRONG)
    monkeypatch.setattr(refit_module, "fit_law", broken)
    setup.finish()
    assert len(setup.run.journal.events) == 1
    assert "the law cannot be fitted at 2,000,000,000 tokens: singular matrix" in caplog.text


def test_shares_by_the_journal_are_those_realised_within_a_sample(tmp_path):
    setup = Setup(tmp_path, WRONG)
    setup.run.controller.knots = ()
    for step, counts in enumerate(setup.run.steps(100), 1):
        if step in (20, 50):
            setup.run.accept(DomainWeights.uniform(setup.run.planner.names), "user")
        shares = shares_until(setup.run.journal.events, step, BUDGET)
        asked = np.array([shares[name] for name in setup.run.planner.names]) * step * 10
        assert np.abs(counts - asked).max() <= 1

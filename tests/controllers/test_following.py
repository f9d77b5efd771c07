"""Following the predicted optimum, on the real planner."""

import numpy as np
import pytest
from paths import Moving, Run, planned_path, random_path

from autoscale_ds.controllers import AutoScaleAnytime, AutoScaleTarget, Budget
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.predictor import Constant

LENGTH = 16


def anytime(rng, m, batch, steps, interval, evenness=1.0):
    budget = Budget(batch * LENGTH, steps)
    path = random_path(rng, m, budget.tokens, evenness)
    return path, budget, AutoScaleAnytime(path, budget, "autoscale.json", interval * budget.tokens_per_step)


@pytest.mark.parametrize("seed", range(40))
def test_realised_tokens_stay_within_one_sample_of_the_planned_path_at_every_step(seed, tmp_path):
    rng = np.random.default_rng(seed)
    m, batch, steps, interval = (int(rng.integers(*ends)) for ends in ((3, 51), (4, 513), (60, 200), (1, 21)))
    path, budget, controller = anytime(rng, m, batch, steps, interval, evenness=rng.choice([0.3, 1.0, 5.0]))
    run = Run(tmp_path, controller, budget, path.domains, batch)
    names = run.planner.names
    planned = planned_path(path, names, [*range(0, steps, interval), steps], budget.tokens_per_step)
    for step, counts in enumerate(run.steps(steps), 1):
        assert np.abs(counts * LENGTH - planned[step]).max() <= LENGTH
    assert step == steps


def test_the_path_ends_at_the_optimum_of_the_budget_where_nothing_had_to_be_unseen(tmp_path):
    rng = np.random.default_rng(0)
    path, budget, controller = anytime(rng, 8, 64, 300, 3, evenness=20.0)
    run = Run(tmp_path, controller, budget, path.domains, 64)
    *_, counts = run.steps(300)
    wanted = path.predict(budget.tokens)
    assert counts * LENGTH == pytest.approx([wanted[name] * budget.tokens for name in run.planner.names], abs=LENGTH)
    target = AutoScaleTarget(path, budget, "autoscale.json").initial().weights
    assert max(abs(wanted[name] - target[name]) for name in wanted) < 1e-9
    assert max(abs(run.journal.events[0].weights[name] - target[name]) for name in wanted) > 0.02


def test_a_domain_ahead_of_its_optimum_waits_and_is_named(tmp_path):
    class Shrinking:
        domains = ("a", "b")

        def predict(self, tokens):
            return DomainWeights({"a": 0.8, "b": 0.2} if tokens <= 800 else {"a": 0.1, "b": 0.9})

    budget = Budget(80, 30)
    run = Run(tmp_path, AutoScaleAnytime(Shrinking(), budget, "f.json", 800), budget, ("a", "b"), 5)
    counts = list(run.steps(30))
    assert counts[9].tolist() == [40, 10]  # samples of 16 tokens: 50 a knot
    assert counts[19].tolist() == [40, 60]  # the optimum has 10 of 100
    assert counts[29].tolist() == [40, 110]
    assert "ahead of it and waiting: a" in run.journal.events[1].reason


def test_missed_knots_and_weights_of_a_user_are_made_good_by_the_next_knot(tmp_path):
    budget = Budget(32 * LENGTH, 100)
    path = Moving(budget)
    controller = AutoScaleAnytime(path, budget, "f.json", 10 * budget.tokens_per_step)
    run = Run(tmp_path, controller, budget, path.domains, 32, ahead=13)
    planned = planned_path(path, run.planner.names, [*range(0, 100, 10), 100], budget.tokens_per_step)
    for step, counts in enumerate(run.steps(100), 1):
        if run.planner.next_step == 44 and run.journal.current.source != "user":
            run.accept(DomainWeights.uniform(run.planner.names), "user")
        if step in (30, 40, 60, 70, 80, 90, 100):
            assert np.abs(counts * LENGTH - planned[step]).max() <= LENGTH, step
    assert [event.effective_step for event in run.journal.events] == [0, 14, 20, 30, 40, 44, *range(50, 100, 10)]


def test_a_constant_predictor_changes_nothing(tmp_path):
    budget = Budget(128, 50)
    predictor = Constant(DomainWeights({"a": 0.3, "b": 0.7}))
    run = Run(tmp_path, AutoScaleAnytime(predictor, budget, "weights.json"), budget, ("a", "b"), 8)
    list(run.steps(50))
    assert len(run.journal.events) == 1


def test_the_target_mode_never_asks_again():
    budget = Budget(128, 50)
    controller = AutoScaleTarget(Constant(DomainWeights({"a": 0.3, "b": 0.7})), budget, "weights.json")
    assert not controller.knots
    assert controller.initial().reason == "optimum for 6,400 tokens by weights.json"

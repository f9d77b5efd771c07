"""Stages of the user's choice."""

import math

import pytest
from paths import Run

from autoscale_ds.controllers import Budget, Staged
from autoscale_ds.mixture import DomainWeights

BUDGET = Budget(64, 100)


def weights(a):
    return DomainWeights({"a": a, "b": 1 - a})


def journal(tmp_path, *stages, interval_tokens=None):
    controller = Staged([(weights(a), until, transition) for a, until, transition in stages], BUDGET, interval_tokens)
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    list(run.steps(100))
    return [(event.effective_step, event.weights["a"]) for event in run.journal.events], run


def test_steps_change_at_the_first_step_after_the_stage_and_nowhere_else(tmp_path):
    found, run = journal(tmp_path, (0.5, 640, "step"), (0.2, 1000, "step"), (0.8, None, "step"))
    assert found == [(0, 0.5), (10, 0.2), (16, 0.8)]  # 1000 tokens end within step 15
    assert [event.reason for event in run.journal.events] == [
        "mixture.stages: stage 1 of 3, step, until 640 tokens",
        "stage 2 of 3, step, until 1,024 tokens",
        "stage 3 of 3, step, until 6,400 tokens",
    ]


def test_a_linear_transition_has_the_weights_of_the_middle_of_each_interval_and_arrives(tmp_path):
    found, run = journal(
        tmp_path, (0.5, 640, "step"), (0.9, 30 * 64, "linear"), (0.9, None, "step"), interval_tokens=5 * 64
    )
    assert [step for step, _ in found] == [0, 10, 15, 20, 25, 30]
    assert [a for _, a in found] == pytest.approx([0.5, 0.55, 0.65, 0.75, 0.85, 0.9])
    # The tokens of a straight line: 10 steps at .5, 20 from .5 to .9, 70 at .9.
    assert run.planner.target_counts()["a"] / 4 == pytest.approx(10 * 0.5 + 20 * 0.7 + 70 * 0.9)


def test_a_cosine_transition_follows_half_a_cosine_to_the_end_of_the_budget(tmp_path):
    found, _ = journal(tmp_path, (0.0, 50 * 64, "step"), (1.0, None, "cosine"), interval_tokens=10 * 64)
    assert [step for step, _ in found] == [0, 50, 60, 70, 80, 90]
    middles = [(1 - math.cos(math.pi * share)) / 2 for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert [a for _, a in found[1:]] == pytest.approx(middles)


def test_the_last_weights_stay_when_the_stages_end_before_the_budget(tmp_path):
    found, _ = journal(tmp_path, (0.5, 640, "step"), (0.9, 20 * 64, "linear"), interval_tokens=10 * 64)
    assert found == [(0, 0.5), (10, pytest.approx(0.7)), (20, 0.9)]


def test_weights_of_a_user_stay_until_the_next_stage(tmp_path):
    controller = Staged([(weights(0.5), 640, "step"), (weights(0.2), None, "step")], BUDGET)
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    for _ in run.steps(100):
        if run.planner.next_step == 5 and len(run.journal.events) == 1:
            run.accept(weights(0.9), "user")
    assert [(e.effective_step, e.weights["a"]) for e in run.journal.events] == [(0, 0.5), (5, 0.9), (10, 0.2)]


def test_a_stage_that_begins_after_the_budget_is_warned_of(caplog):
    weights = DomainWeights({"a": 0.5, "b": 0.5})
    Staged([(weights, 9e9, "step"), (weights, None, "step")], Budget(64, 60))
    assert "stage 2 of 2 begins after the budget of 3,840 tokens and is never reached" in caplog.text

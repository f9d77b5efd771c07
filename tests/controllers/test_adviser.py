"""Every knot is decided once, in whatever pieces a run is done."""

import numpy as np
import pytest
from paths import Run, random_path

from autoscale_ds.controllers import AutoScaleAnytime, Budget, Stateless, StepLosses, Suggestion
from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DomainWeights

BUDGET = Budget(64, 60)
HALF = DomainWeights({"a": 0.5, "b": 0.5})


class Scripted(Stateless):
    """Says what it is told at its knots."""

    name = "scripted"

    def __init__(self, knots, answers):
        self.knots, self.answers, self.seen = knots, list(answers), []

    def initial(self):
        return Suggestion(HALF, "first")

    def propose(self, view):
        self.seen.append(view)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Suggestion(DomainWeights({"a": answer, "b": 1 - answer}), "next") if answer is not None else None


def test_a_controller_is_asked_once_a_knot_and_sees_the_tokens_planned(tmp_path):
    controller = Scripted((10, 20, 21), [0.25, None, 0.75])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    list(run.steps(60))
    assert [view.next_step for view in controller.seen] == [10, 20, 21]
    assert controller.seen[1].planned == {"a": 64 * (10 / 2 + 10 / 4), "b": 64 * (10 / 2 + 30 / 4)}
    assert [(event.effective_step, event.weights["a"]) for event in run.journal.events] == [
        (0, 0.5),
        (10, 0.25),
        (21, 0.75),
    ]
    assert run.journal.current.source == "controller:scripted"


def test_knots_that_were_read_past_are_decided_once_at_the_first_step_still_open(tmp_path):
    controller = Scripted((2, 4, 20), [0.25, 0.75])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4, ahead=6)
    list(run.steps(60))
    assert [view.next_step for view in controller.seen] == [7, 20]


def test_a_controller_that_fails_is_said_so_once_and_the_weights_stay(tmp_path, caplog):
    controller = Scripted((10, 20, 30), [MixtureError("no"), MixtureError("no"), 0.25])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    list(run.steps(60))
    assert caplog.text.count("controller scripted failed and the weights stay: no") == 1
    assert [event.effective_step for event in run.journal.events] == [0, 30]


def test_weights_for_a_domain_without_text_are_refused_like_any_failure(tmp_path, caplog):
    controller = Scripted((10,), [0.25])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    run.planner.spec.num_windows["a"] = 0
    list(run.steps(60))
    assert "holds not one window" in caplog.text
    assert len(run.journal.events) == 1


def test_a_dry_run_records_what_it_would_do_and_leaves_the_journal_alone(tmp_path, caplog):
    caplog.set_level("INFO")
    run = Run(tmp_path, Scripted((10, 20), [0.25, None]), BUDGET, ("a", "b"), 4, dry_run=True)
    list(run.steps(60))
    assert len(run.journal.events) == 1
    ((kind, record),) = run.records
    assert kind == "proposal"
    assert record == {
        "effective_step": 10,
        "weights": {"a": 0.25, "b": 0.75},
        "source": "controller:scripted",
        "reason": "next",
    }
    assert "dry run: new weights from step 10 would be: next" in caplog.text


def resume(run, folder, state, advised):
    again = Run(folder, run.controller, run.budget, run.planner.names, run.planner.spec.global_batch)
    again.planner.restore(state)
    again.adviser.restore(advised.get("decided_step", 0), advised.get("controller"))
    return again


PIECES = [(saved, killed) for saved in (0, 10, 11, 20) for killed in (3, 11, 20, 21, 37, 59) if saved <= killed]


@pytest.mark.parametrize(("checkpoint", "killed_at"), PIECES)
def test_a_run_killed_and_started_again_from_its_checkpoint_ends_with_the_same_journal(tmp_path, checkpoint, killed_at):
    rng = np.random.default_rng(2)
    path = random_path(rng, 5, BUDGET.tokens, 1.0)
    controller = AutoScaleAnytime(path, BUDGET, "autoscale.json", 3 * 64)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = Run(tmp_path / "whole", controller, BUDGET, path.domains, 4)
    *_, expected = whole.steps(60)
    killed = Run(tmp_path / "killed", controller, BUDGET, path.domains, 4)
    state, advised = killed.planner.state(), killed.adviser.state()
    for step, _ in enumerate(killed.steps(killed_at), 1):
        if step == checkpoint:
            state, advised = killed.planner.state(), killed.adviser.state()
    again = resume(killed, tmp_path / "killed", state, advised)
    for _ in again.steps(60):
        pass
    assert again.journal.events == whole.journal.events
    cursors = again.planner.state()["cursors"]
    assert [cursors[name] for name in again.planner.names] == expected.tolist()


def test_a_decision_to_change_nothing_is_not_taken_again_after_a_restart(tmp_path):
    controller = Scripted((10,), [None])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    list(run.steps(12))
    again = resume(run, tmp_path, run.planner.state(), run.adviser.state())
    list(again.steps(60))
    assert len(controller.seen) == 1


def test_steps_done_again_before_a_later_event_of_a_user_decide_nothing_anew(tmp_path):
    controller = Scripted((10,), [None])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    state = run.planner.state()
    list(run.steps(15))
    run.accept(DomainWeights({"a": 0.1, "b": 0.9}), "user")
    again = resume(run, tmp_path, state, {})
    list(again.steps(60))
    assert len(controller.seen) == 1


def test_a_checkpoint_of_before_controllers_had_a_state_is_continued(tmp_path):
    controller = Scripted((10,), [None])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    list(run.steps(12))
    again = resume(run, tmp_path, run.planner.state(), {"decided_step": 10})
    list(again.steps(60))
    assert len(controller.seen) == 1


def test_asking_whether_a_knot_is_due_changes_nothing(tmp_path):
    controller = Scripted((10,), [None])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    run.planner.next_step = 10
    before = run.adviser.state()
    assert [run.adviser.due() for _ in range(3)] == [True] * 3
    assert run.adviser.state() == before
    assert controller.seen == []


def test_an_event_of_the_controller_below_one_of_a_user_counts_as_decided(tmp_path):
    controller = Scripted((10,), [0.25])
    run = Run(tmp_path, controller, BUDGET, ("a", "b"), 4)
    state = run.planner.state()
    list(run.steps(10))
    run.accept(HALF, "user")  # the same effective step
    again = resume(run, tmp_path, state, {})
    list(again.steps(60))
    assert len(controller.seen) == 1


class Counting(Scripted):
    """Counts the steps it observes."""

    total = 0

    def observe(self, losses):
        self.total += sum(losses.counts.values())

    def state(self):
        return {"total": self.total}

    def restore(self, state):
        self.total = state["total"]


def test_the_state_of_a_controller_goes_through_the_checkpoint(tmp_path):
    run = Run(tmp_path, Counting((), []), BUDGET, ("a", "b"), 4)
    list(run.steps(12))
    assert run.adviser.state() == {"decided_step": 0, "controller": {"name": "scripted", "state": {"total": 48}}}
    run.controller.total = 0
    again = resume(run, tmp_path, run.planner.state(), {"controller": {"name": "scripted", "state": {"total": 48}}})
    assert again.controller.total == 48


def test_the_state_of_another_controller_is_not_taken(tmp_path, caplog):
    run = Run(tmp_path, Counting((), []), BUDGET, ("a", "b"), 4)
    run.adviser.restore(0, {"name": "toy", "state": {"mean": 1.0}})
    assert run.controller.total == 0
    assert "the checkpoint holds the state of controller toy; scripted starts without any" in caplog.text


def test_losses_that_are_not_finite_are_not_observed(tmp_path):
    run = Run(tmp_path, Counting((), []), BUDGET, ("a", "b"), 4)
    run.adviser.observe(StepLosses(0, {"a": float("nan"), "b": 1.0}, {"a": 2, "b": 2}))
    run.adviser.observe(StepLosses(1, {"a": 1.0, "b": 1.0}, {"a": 2, "b": 2}))
    assert run.controller.total == 4

"""A controller with a state, in one file: everything a new one needs is here, and one line in the registry."""

import json
import math
from dataclasses import dataclass
from unittest import mock

import pytest
from jobs import consumed, losses, read_metrics

from autoscale_ds import config
from autoscale_ds.controllers import ControllerConfig, MixtureConfig, Suggestion, build, registry
from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import read_events


@dataclass(frozen=True)
class ToyConfig(ControllerConfig):
    """Keys beside ``mixture.controller: toy``; the first weights are those of ``mixture.weights``."""

    every_steps: int
    memory: float = 0.8

    def __post_init__(self):
        if not 0 <= self.memory < 1:
            raise ConfigError(f"mixture.memory is {self.memory:g}, expected at least 0 and less than 1")


class Toy:
    """Reads more of domains whose loss is high: softmax of an exponential moving average of each domain's loss."""

    name = "toy"

    def __init__(self, first, budget, every_steps, memory):
        self.knots = range(every_steps, budget.total_steps, every_steps)
        self._first = first
        self._memory = memory
        self._means = {}

    def initial(self):
        return self._first

    def observe(self, losses):
        for name, count in losses.counts.items():
            if count:
                loss = losses.sums[name] / count
                before = self._means.get(name, loss)
                self._means[name] = self._memory * before + (1 - self._memory) * loss

    def propose(self, view):
        scores = {name: math.exp(self._means.get(name, 0.0)) for name in view.current.weights}
        return Suggestion(DomainWeights.normalised(scores), f"losses {self._means}")

    def state(self):
        return {"means": self._means}

    def restore(self, state):
        self._means = dict(state["means"])


def build_toy(settings, run):
    return Toy(run.configured(), run.budget, settings.every_steps, settings.memory)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(registry.CONTROLLERS, "toy", (ToyConfig, build_toy))


def settings_of_toy(**changes):
    mixture = {"controller": "toy", "every_steps": 4, "memory": 0.7}
    return {**{f"mixture.{key}": value for key, value in mixture.items()}, **changes}


class Killed(Exception):
    pass


def kill_at_swap(trainer, step):
    """Raise after the controller's event for ``step`` is in the journal."""

    def watch(record):
        if record["kind"] == "swap" and record["effective_step"] == step:
            raise Killed

    trainer.on_record = watch
    with pytest.raises(Killed):
        trainer.fit()
    trainer.folder.release()


def journal(run):
    events = [json.loads(event.to_json()) for event in read_events(run / "mixture" / "journal.jsonl")]
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


def saved_state(run, step):
    return json.loads((run / f"checkpoints/step-{step:08d}/run.json").read_text())["controller"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_killed_run_ends_like_an_undisturbed_one(make_trainer, workers):
    changes = settings_of_toy(**{"data.workers": workers})
    whole = make_trainer(folder="whole", **changes)
    assert whole.fit() == 0
    first = make_trainer(folder="pieces", **changes)
    kill_at_swap(first, 24)  # the newest checkpoint is of step 20
    path = first.folder.path
    ahead = journal(path)[-1]["effective_step"]
    newest = max(int(folder.name.removeprefix("step-")) for folder in (path / "checkpoints").glob("step-*"))
    assert (newest, ahead) == (20, 24)
    assert make_trainer(folder="pieces", **changes).fit() == 0
    assert [event["effective_step"] for event in journal(path)] == [0, *range(4, 30, 4)]
    assert journal(path) == journal(whole.folder.path)
    assert consumed(path) == consumed(whole.folder.path)
    assert losses(path) == losses(whole.folder.path)
    assert saved_state(path, 30) == saved_state(whole.folder.path, 30)
    assert len({json.dumps(event["weights"]) for event in journal(path)}) == len(journal(path))


def test_the_state_in_a_checkpoint_is_the_average_of_the_logged_losses(make_trainer):
    trainer = make_trainer(**settings_of_toy())
    assert trainer.fit() == 0
    means = {}
    for record in read_metrics(trainer.folder.path, "train"):
        for name, loss in record["domain_loss"].items():
            means[name] = 0.7 * means.get(name, loss) + 0.3 * loss
    saved = saved_state(trainer.folder.path, 30)
    assert saved["name"] == "toy"
    assert saved["state"]["means"] == pytest.approx(means, rel=1e-12)


def test_asking_twice_gives_the_same_and_changes_no_state(make_trainer):
    trainer = make_trainer(**settings_of_toy())
    assert trainer.fit() == 0
    adviser = trainer.loop._swap.adviser
    controller = adviser._controller
    before = json.dumps(controller.state())
    view = adviser._view()
    assert controller.propose(view) == controller.propose(view)
    assert json.dumps(controller.state()) == before
    assert trainer.parts.beginning.controller().state() == {"means": {}}  # what a roll back starts from


def test_a_rolled_back_run_has_the_state_of_its_checkpoint(make_trainer):
    from autoscale_ds.training.faults import RollBack
    from autoscale_ds.training.loop import TrainingLoop

    trainer = make_trainer(**settings_of_toy(**{"faults.policy": "rollback"}))
    train_step = TrainingLoop.train_step
    failed = []

    def fail_once(loop, batch):
        report = train_step(loop, batch)
        if batch.plan.step == 13 and not failed:
            failed.append(13)
            raise RollBack
        return report

    with mock.patch.object(TrainingLoop, "train_step", fail_once):
        assert trainer.fit() == 0
    whole = make_trainer(folder="whole", **settings_of_toy())
    assert whole.fit() == 0
    assert failed == [13]
    assert journal(trainer.folder.path) == journal(whole.folder.path)
    assert saved_state(trainer.folder.path, 30) == saved_state(whole.folder.path, 30)


def test_its_keys_are_checked_like_those_of_any_controller():
    mixture = config.build(MixtureConfig, {"controller": "toy", "every_steps": 4}, "mixture.")
    assert mixture.controller == ToyConfig(4)
    assert config.build(MixtureConfig, config.to_dict(mixture), "mixture.") == mixture
    for data, message in [
        ({"controller": "toy"}, "mixture.controller is toy, which needs mixture.every_steps"),
        ({"every_steps": 4}, "mixture.every_steps is given, but mixture.controller is fixed; .*controller=toy"),
        ({"controller": "toy", "every_steps": "x"}, "mixture.every_steps is 'x', expected a whole number"),
        ({"controller": "toy", "every_step": 4}, "unknown key mixture.every_step; did you mean every_steps"),
        ({"controller": "toy", "every_steps": 4, "memory": 1}, "mixture.memory is 1, expected at least 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            config.build(MixtureConfig, data, "mixture.")


def test_the_registry_builds_it():
    class Facts:
        budget = type("Budget", (), {"total_steps": 10})()

        def configured(self):
            return "first"

    assert isinstance(build(ToyConfig(4), Facts()), Toy)

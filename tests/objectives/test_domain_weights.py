import pytest
import torch
from jobs import losses, read_metrics, settings

from autoscale_ds import config
from autoscale_ds.errors import ConfigError, TrainingError
from autoscale_ds.objectives import OBJECTIVES, Objective, Prepared, normalised_weights, objective
from autoscale_ds.training.config import RunConfig


def test_weights_are_scaled_so_that_their_mean_over_sampled_tokens_is_one():
    scaled = normalised_weights({"a": 3.0, "b": 1.0}, {"a": 0.25, "b": 0.5, "c": 0.25})
    assert scaled == pytest.approx({"a": 2.0, "b": 2 / 3, "c": 2 / 3})  # 3, 1, 1 over 1.5


def test_a_domain_that_is_not_sampled_does_not_change_the_scale():
    assert normalised_weights({"a": 5.0}, {"a": 0.0, "b": 1.0}) == {"a": 5.0, "b": 1.0}


def test_reduce_weighs_counts_and_averages_over_positions():
    per_token = torch.tensor([[1.0, 2.0], [3.0, float("nan")]])
    counted = torch.tensor([[True, True], [True, False]])
    value = objective("causal").reduce(per_token, counted, torch.tensor([0, 1]), torch.tensor([0.5, 2.0]))
    assert value.item() == pytest.approx((0.5 * 1 + 0.5 * 2 + 2 * 3) / 4)


def test_equal_weights_change_nothing_and_others_change_what_is_learned(make_trainer):
    def run(folder, weights):
        trainer = make_trainer(folder=folder, **{"objective.domain_weights": weights})
        assert trainer.fit() == 0
        trainer.close()
        return losses(trainer.folder.path)

    plain, equal = run("plain", None), run("equal", {"web": 2.0, "code": 2.0, "books": 2.0})
    assert [loss for loss, _ in equal.values()] == pytest.approx([loss for loss, _ in plain.values()], abs=1e-5)
    only_books = run("books", {"web": 0.0, "code": 0.0})
    assert only_books[30][1]["books"] < plain[30][1]["books"] - 0.05
    assert only_books[30][1]["web"] > plain[30][1]["web"] + 0.3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"wbe": 2.0}, "objective.domain_weights names 'wbe'; the domains are: web, code, books"),
        ({"web": 0.0, "code": 0.0, "books": 0.0}, "is 0 for every domain"),
    ],
)
def test_weights_that_do_not_fit_the_corpus_are_refused_before_step_0(make_trainer, weights, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(**{"objective.domain_weights": weights})


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_that_is_no_share_is_refused(weight):
    with pytest.raises(ConfigError, match=r"objective\.domain_weights\.web is .*, expected a finite number"):
        config.build(RunConfig, settings("run", "corpus", **{"objective.domain_weights": {"web": weight}}))


def test_an_unknown_objective_is_refused(make_trainer):
    with pytest.raises(ConfigError, match=r"objective\.kind is 'casual', expected one of causal"):
        make_trainer(**{"objective.kind": "casual"})


def test_the_scaled_weights_are_in_the_records_and_the_given_ones_are_printed(make_trainer, caplog):
    caplog.set_level("INFO")
    trainer = make_trainer(**{"objective.domain_weights": {"web": 3.0}})
    assert trainer.fit() == 0
    assert "loss       weights by domain before scaling: web 3; others 1" in caplog.text
    expected = {"web": 1.5, "code": 0.5, "books": 0.5}  # 3, 1, 1 over .5 x 3 + .3 + .2
    assert read_metrics(trainer.folder.path, "train")[-1]["loss_weights"] == pytest.approx(expected)


class Sometimes(Objective):
    """Counts all positions of some batches and half of those of others."""

    def prepare(self, batch):
        inputs, targets, _ = objective("causal").prepare(batch)
        whole = bool((batch.domains == batch.domains[0]).all())
        half = torch.zeros_like(targets, dtype=torch.bool)
        half[:, ::2] = True
        return Prepared(inputs, targets, None if whole else half)


class Spelled(Sometimes):
    """The same, every mask spelled out."""

    def prepare(self, batch):
        inputs, targets, counted = super().prepare(batch)
        return Prepared(inputs, targets, torch.ones_like(targets, dtype=torch.bool) if counted is None else counted)


def test_no_mask_means_that_every_position_counts(make_trainer, monkeypatch):
    runs = []
    for name, each in {"sometimes": Sometimes, "spelled": Spelled}.items():
        monkeypatch.setitem(OBJECTIVES, name, each)
        trainer = make_trainer(folder=name, **{"objective.kind": name})
        assert trainer.fit() == 0
        trainer.close()
        runs.append([(r["loss"], r["gradient_norm"]) for r in read_metrics(trainer.folder.path, "train")])
    assert runs[0] == runs[1]


class Nothing(Objective):
    def prepare(self, batch):
        inputs, targets, _ = objective("causal").prepare(batch)
        return Prepared(inputs, targets, torch.zeros_like(targets, dtype=torch.bool))


def test_steps_without_a_counted_token_are_left_out_as_faults(make_trainer, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "nothing", Nothing)
    trainer = make_trainer(**{"objective.kind": "nothing", "faults.max_skips": 2})
    with pytest.raises(TrainingError, match="the loss of step 2 is nan"):
        trainer.fit()

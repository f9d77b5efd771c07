"""Settings and files that change between the starts of a run."""

import json
import shutil

import pytest
from jobs import SIZES, STOP_AT, consumed, journal, of, replayed, tool

from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.predictor import save_optima
from autoscale_ds.training.config import DataConfig, ModelConfig, RunConfig
from autoscale_ds.training.differences import changed_settings
from autoscale_ds.training.setup import unique_windows


def test_files_that_a_run_needs_once_may_go_or_change(until, tmp_path, caplog):
    exported = tmp_path / "hf"
    first = until(STOP_AT, folder="first")
    tool("export_hf.py", first.folder.path, "--output", exported).check_returncode()
    weights, stage = tmp_path / "weights.json", tmp_path / "stage.json"
    weights.write_text(json.dumps({"weights": {"web": 0.25, "code": 0.5, "books": 0.25}}))
    stage.write_text(json.dumps({"weights": {"web": 0.5, "code": 0.25, "books": 0.25}}))
    fixed = {"folder": "fixed", "mixture.weights": str(weights), "model.initial_weights": str(exported)}
    stages = [{"weights": str(weights), "until_tokens": 15 * 256}, {"weights": str(stage)}]
    staged = {"folder": "staged", "mixture": {"controller": "staged", "stages": stages, "poll_seconds": 0}}
    for changes in (fixed, staged):
        until(STOP_AT, **changes)
    shutil.rmtree(exported)
    weights.unlink()
    stage.write_text(json.dumps({"weights": {"web": 0.1, "code": 0.1, "books": 0.8}}))
    assert journal(until(20, **fixed))[-1].weights["code"] == 0.5
    caplog.clear()
    trainer = until(20, **staged)
    assert f"{stage} has changed since this run first read it; the run keeps its own copy" in caplog.text
    assert [event.weights["code"] for event in journal(trainer)] == [0.5, 0.25]
    assert [event.effective_step for event in journal(trainer)] == [0, 15]


def test_a_moved_predictor_is_the_same_and_a_longer_budget_gets_its_own_optimum(until, tmp_path, caplog):
    predictor = tmp_path / "autoscale.json"
    optima = [
        (1000, {"web": 0.2, "code": 0.3, "books": 0.5}),
        (4000, {"web": 0.5, "code": 0.3, "books": 0.2}),
    ]
    save_optima(predictor, [(tokens, DomainWeights(weights)) for tokens, weights in optima], 0.0)
    follow = {"mixture": {"controller": "autoscale", "predictor": str(predictor), "poll_seconds": 0}}
    until(STOP_AT, **follow)
    predictor.rename(tmp_path / "elsewhere.json")
    run = until(STOP_AT + 2, **follow).folder.path
    longer = until(40, **follow)
    assert "mixture" not in caplog.text
    events = journal(longer)
    assert [event.source for event in events] == ["controller:autoscale"] * 3
    assert [event.effective_step for event in events] == [0, 10, 12]
    wanted = longer.parts.beginning.controller()._predictor.predict(40 * 256)
    lines = consumed(run)
    for name, weight in wanted.items():
        assert len(of(lines, name)) / len(lines) == pytest.approx(weight, abs=2 / len(lines))


@pytest.mark.parametrize("mode", ["target", "anytime"])
def test_a_run_that_follows_a_predictor_goes_on_with_a_domain_that_it_does_not_know(until, corpus_of, tmp_path, mode):
    weights = [(1000, {"web": 0.2, "code": 0.3, "books": 0.5}), (4000, {"web": 0.5, "code": 0.3, "books": 0.2})]
    save_optima(tmp_path / "a.json", [(tokens, DomainWeights(each)) for tokens, each in weights], 0.0)
    follow = {"controller": "autoscale", "predictor": str(tmp_path / "a.json"), "mode": mode, "poll_seconds": 0}
    run = until(STOP_AT, mixture=follow).folder.path
    trainer = until(20, mixture=follow, **{"data.corpus": str(corpus_of(SIZES | {"papers": 3000}))})
    assert {event.source for event in journal(trainer)} == {"controller:autoscale", "start"}
    assert all(event.weights.get("papers", 0.0) == 0 for event in journal(trainer))
    assert (len(journal(trainer)) > 10) == (mode == "anytime")
    assert replayed(run, 20) == consumed(run)


def test_settings_that_changed_are_said_and_count_on_every_path(until, caplog):
    first = until(STOP_AT, **{"schedule.kind": "cosine"})
    caplog.set_level("INFO", "autoscale_ds")
    new = {"optimizer.weight_decay": 0.5, "optimizer.betas": [0.8, 0.9], "optimizer.epsilon": 1e-6}
    second = until(20, **new, **{"schedule.kind": "cosine"})
    for line in (
        "since the last start: optimizer.weight_decay 0.01 -> 0.5",
        "since the last start: optimizer.betas [0.9, 0.95] -> [0.8, 0.9]",
        "since the last start: budget_tokens 2,560 -> 5,120",
        "the learning rate jumps at step 10, from 0.0003 to 0.00233, and the loss may with it\n",
    ):
        assert line in caplog.text, caplog.text
    group = second.parts.engine._guard.param_groups[0]
    assert (group["weight_decay"], tuple(group["betas"]), group["eps"]) == (0.5, (0.8, 0.9), 1e-6)
    assert second.parts.engine._guard.param_groups[1]["weight_decay"] == 0
    caplog.clear()
    until(20, **new, **{"schedule.kind": "cosine"})
    assert "since the last start" not in caplog.text
    until(20, ds={"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}}, **new)
    assert "since the last start: train_micro_batch_size_per_gpu 2 -> 4" in caplog.text
    assert first.loop.step == STOP_AT


def test_settings_read_as_people_write_them():
    last = {"budget_tokens": 2560.0, "optimizer": {"learning_rate": 1e6, "betas": [0.9, 0.95]}, "seed": 1}
    now = {"budget_tokens": 1e10, "optimizer": {"learning_rate": 3e-4, "betas": None}, "seed": 1000}
    assert changed_settings(now, last) == [
        "budget_tokens 2,560 -> 10,000,000,000",
        "optimizer.learning_rate 1e+06 -> 0.0003",
        "optimizer.betas [0.9, 0.95] -> null",
        "seed 1 -> 1,000",
    ]


def test_a_refused_start_changes_nothing_that_later_starts_compare_with(until, corpus_of):
    run = until(STOP_AT).folder.path
    before = (run / "config.yaml").read_text()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mixture\.weights is no longer what this run was started with"):
            until(20, **{"mixture.weights": "uniform"})
        with pytest.raises(ConfigError, match="other text in code"):
            until(20, **{"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))})
    assert (run / "config.yaml").read_text() == before


def test_a_share_gives_every_domain_windows_to_the_nearest_one_or_is_refused():
    sizes = {"web": 1000, "code": 8, "empty": 0}
    assert unique_windows(1.0, sizes) == {}
    assert unique_windows(0.29, sizes) == {"web": 290, "code": 2, "empty": 0}
    assert unique_windows(1 / 8, sizes) == {"web": 125, "code": 1, "empty": 0}
    with pytest.raises(ConfigError, match=r"data.window_share is 0.1, which leaves domain 'code' \(8 windows\)"):
        unique_windows(0.1, sizes)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"data.window_share is .*, expected above 0 and at most 1"):
            RunConfig("run", 1e9, DataConfig("corpus", window_share=share), ModelConfig())

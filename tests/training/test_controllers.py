"""Controllers in a real run: the same journal, samples and losses in whatever pieces it is done."""

import json

import numpy as np
import pytest
import yaml
from jobs import Job, consumed, losses, read_metrics, settings, tool

from autoscale_ds import config
from autoscale_ds.controllers import (
    AutoScaleConfig,
    FixedConfig,
    MixtureConfig,
    RefitConfig,
    StageConfig,
    StagedConfig,
)
from autoscale_ds.errors import ConfigError, MixtureError
from autoscale_ds.laws import lawfile
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, RunTable, WeightsFile
from autoscale_ds.search.predictor import save_optima
from autoscale_ds.stream.journal import read_events
from autoscale_ds.training.config import RunConfig

STEP = 8 * 32
SMALL = DomainWeights({"web": 0.2, "code": 0.3, "books": 0.5})
LARGE = DomainWeights({"web": 0.6, "code": 0.3, "books": 0.1})


@pytest.fixture
def predictor(tmp_path):
    save_optima(tmp_path / "autoscale.json", [(5 * STEP, SMALL), (20 * STEP, LARGE)], 0.0)
    return str(tmp_path / "autoscale.json")


def following(predictor, **changes):
    mixture = {"controller": "autoscale", "predictor": predictor, "mode": "anytime", "interval_tokens": 4 * STEP}
    return {"mixture.weights": None, **{f"mixture.{key}": value for key, value in mixture.items()}, **changes}


def journal(run):
    events = [json.loads(event.to_json()) for event in read_events(run / "mixture" / "journal.jsonl")]
    return [{key: value for key, value in event.items() if key != "time"} for event in events]


class Killed(Exception):
    pass


def at_step(trainer, step, action):
    def watch(record):
        if record["kind"] == "train" and record["step"] == step:
            action()

    trainer.on_record = watch


def stop(trainer):
    at_step(trainer, 13, lambda: setattr(trainer.stop, "requested", True))
    assert trainer.fit() == 75


def kill(trainer):
    """End in the middle of step 13: the newest checkpoint is of step 10, the journal is ahead of it."""

    def die():
        raise Killed

    at_step(trainer, 13, die)
    with pytest.raises(Killed):
        trainer.fit()


@pytest.mark.parametrize("interruption", [stop, kill])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_anytime_run_ends_like_one_that_was_not(make_trainer, predictor, interruption, workers):
    changes = following(predictor, **{"data.workers": workers})
    assert make_trainer(folder="whole", **changes).fit() == 0
    first = make_trainer(folder="pieces", **changes)
    interruption(first)
    first.folder.release()
    assert make_trainer(folder="pieces", **changes).fit() == 0
    whole, pieces = (first.folder.path.parent / name for name in ("whole", "pieces"))
    assert [event["effective_step"] for event in journal(whole)] == [0, *range(4, 30, 4)]
    assert journal(pieces) == journal(whole)
    assert consumed(pieces) == consumed(whole)
    assert losses(pieces) == losses(whole)
    swaps = [record["effective_step"] for record in read_metrics(pieces, "swap")]
    assert sorted(swaps) == list(range(4, 30, 4))


def test_the_tools_understand_a_run_with_a_controller(make_trainer, predictor):
    trainer = make_trainer(**following(predictor))
    assert trainer.fit() == 0
    run = trainer.folder.path
    replayed = tool("replay_stream.py", run, "--steps", "0:30")
    assert replayed.stdout.splitlines() == consumed(run)
    shown = tool("swap_weights.py", run).stdout
    assert "version 7, effective from step 28 (7,168 tokens), by controller:autoscale: towards the optimum for" in shown


def test_a_dry_run_trains_by_the_configured_weights_and_records_what_it_would_do(make_trainer, predictor):
    trainer = make_trainer(**following(predictor, **{"mixture.dry_run": True, "mixture.weights": "uniform"}))
    assert trainer.fit() == 0
    (first,) = journal(trainer.folder.path)
    assert first["weights"] == pytest.approx({"web": 1 / 3, "code": 1 / 3, "books": 1 / 3})
    proposals = read_metrics(trainer.folder.path, "proposal")
    assert [record["effective_step"] for record in proposals] == list(range(4, 30, 4))
    assert all(record["source"] == "controller:autoscale" for record in proposals)


def test_stages_change_the_weights_of_a_run(make_trainer):
    stages = [
        {"weights": SMALL.as_dict(), "until_tokens": 10 * STEP},
        {"weights": LARGE.as_dict(), "until_tokens": 20 * STEP, "transition": "linear"},
        {"weights": "uniform"},
    ]
    mixture = {"mixture.weights": None, "mixture.controller": "staged", "mixture.stages": stages}
    trainer = make_trainer(**mixture, **{"mixture.interval_tokens": 5 * STEP})
    assert trainer.fit() == 0
    events = journal(trainer.folder.path)
    assert [event["effective_step"] for event in events] == [0, 10, 15, 20]
    assert [event["weights"]["web"] for event in events] == pytest.approx([0.2, 0.3, 0.5, 1 / 3])
    assert {event["source"] for event in events} == {"controller:staged"}


def test_the_target_mode_starts_with_the_optimum_of_the_budget(make_trainer, predictor):
    trainer = make_trainer(**following(predictor, **{"mixture.mode": "target", "budget_tokens": 20 * STEP}))
    assert trainer.fit() == 0
    (first,) = journal(trainer.folder.path)
    assert first["weights"] == pytest.approx(LARGE.as_dict(), abs=1e-6)
    assert first["reason"] == "optimum for 5,120 tokens by autoscale.json"


def test_a_restart_with_another_predictor_is_refused_by_its_key(make_trainer, predictor, tmp_path):
    trainer = make_trainer(**following(predictor))
    assert trainer.fit() == 0
    trainer.folder.release()
    WeightsFile(LARGE).write(tmp_path / "other.json")
    other = make_trainer(**following(str(tmp_path / "other.json"), budget_tokens=40 * STEP))
    with pytest.raises(ConfigError, match=r"mixture.predictor is no longer what this run was started with"):
        other.fit()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"web": 0.5, "code": 0.5}, ConfigError, "for other domains than the corpus: domain 'books' has no weight"),
        ({"web": 0.5, "code": 0.6}, MixtureError, "sum to 1.1"),
        ({"kind": "plan"}, MixtureError, "predicts no weights"),
    ],
)
def test_a_predictor_that_does_not_fit_is_refused_at_once(make_trainer, tmp_path, content, error, message):
    (tmp_path / "predictor.json").write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        make_trainer(**following(str(tmp_path / "predictor.json")))


STAGE = {"weights": "uniform"}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"controller": "autoscale"}, "which needs mixture.predictor"),
        ({"controller": "staged"}, "which needs mixture.stages"),
        ({"predictor": "law.json"}, "mixture.predictor is given, but mixture.controller is fixed; .*=autoscale"),
        ({"stages": [STAGE]}, "mixture.stages is given, but mixture.controller is fixed; .*controller=staged"),
        (
            {"controller": "autoscale", "predictor": "law.json", "weights": "uniform"},
            "mixture.weights is given, but controller autoscale starts with those of mixture.predictor, which counts",
        ),
        ({"controller": "staged", "stages": [STAGE, STAGE]}, r"stages\[0\].until_tokens is null, which only the last"),
        (
            {"controller": "staged", "stages": [{**STAGE, "until_tokens": 9}, {**STAGE, "until_tokens": 8}]},
            r"stages\[1\].until_tokens is 8, expected more than 9",
        ),
        ({"controller": "staged", "stages": [{**STAGE, "transition": "linear"}]}, "no stage is before it"),
        ({"controller": "autoscale", "predictor": "law.json", "interval_tokens": 0}, "interval_tokens is 0"),
        (
            {"refit": {"runs": ["a.csv"], "every_tokens": 1}},
            "mixture.refit is given, but mixture.controller is fixed; .*controller=autoscale",
        ),
        (
            {
                "controller": "autoscale",
                "predictor": "law.json",
                "mode": "anytime",
                "refit": {"runs": ["a.csv"], "every_tokens": 1},
            },
            "needs mixture.controller=autoscale and mixture.mode=target",
        ),
        ({"controller": "autoscale", "predictor": None}, "which needs mixture.predictor"),
        ({"interval_tokens": 5}, "interval_tokens is given, .* set mixture.controller=staged or .*=autoscale"),
        (
            {"controller": "staged", "stages": [STAGE], "mode": "anytime"},
            "mixture.mode is given, but mixture.controller is staged; leave it out, .* mixture.controller=autoscale",
        ),
        (
            {"controller": "stagd", "stages": [STAGE]},
            "controller is 'stagd'; did you mean staged.; expected one of fixed, staged, autoscale",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, mixture, message):
    tree = settings(tmp_path / "run", tmp_path, mixture=mixture)
    with pytest.raises(ConfigError, match=message):
        config.build(RunConfig, tree)


WRITTEN_BEFORE = {  # the mixture section of a config.yaml as it was when every controller's keys were in it
    "weights": None,
    "poll_seconds": 1.0,
    "controller": "fixed",
    "predictor": None,
    "floor": 0.0,
    "mode": "target",
    "interval_tokens": None,
    "stages": [],
    "refit": None,
    "dry_run": False,
}


@pytest.mark.parametrize(
    ("changes", "controller"),
    [
        ({"weights": {"web": 1.0}}, FixedConfig()),
        ({"controller": "staged", "stages": [STAGE]}, StagedConfig((StageConfig("uniform"),))),
        (
            {"controller": "autoscale", "predictor": "a.json", "mode": "anytime", "interval_tokens": 5},
            AutoScaleConfig("a.json", mode="anytime", interval_tokens=5.0),
        ),
        (
            {"controller": "autoscale", "predictor": "a.json", "refit": {"runs": ["a.csv"], "every_tokens": 1}},
            AutoScaleConfig("a.json", refit=RefitConfig(("a.csv",), 1.0)),
        ),
    ],
)
def test_a_mixture_section_written_before_is_read_and_written_again(changes, controller):
    mixture = config.build(MixtureConfig, {**WRITTEN_BEFORE, **changes}, "mixture.")
    assert mixture.controller == controller
    written = yaml.safe_load(config.to_yaml(mixture))
    assert config.build(MixtureConfig, written, "mixture.") == mixture
    known = {**WRITTEN_BEFORE, **changes}
    assert {key: known[key] for key in written if key not in ("stages", "refit")} == {
        key: value for key, value in written.items() if key not in ("stages", "refit")
    }


@pytest.mark.job
def test_a_stage_with_bad_weights_is_one_line_and_exit_code_2(small_corpus, tmp_path):
    stages = [{"weights": {"web": 0.5, "code": 0.5, "boks": 0.0}}]
    tree = settings(tmp_path / "run", small_corpus, mixture={"controller": "staged", "stages": stages})
    job = Job(tmp_path / "a", tree)
    assert job.wait() == [2]
    (line,) = [line for line in job.logs[0].read_text().splitlines() if line.startswith("error:")]
    assert "mixture.stages[0].weights: unknown domain 'boks'" in line


@pytest.fixture(scope="module")
def law_and_runs(tmp_path_factory):
    """Runs at 2 and 4 kilotokens in which books matter most, and a law that takes it to be web."""
    folder = tmp_path_factory.mktemp("law")
    lawfile.save(fit_law(probe_runs(0.9, 0.3, 0.1), "exposure-budget", draws=4), folder / "law.json")
    probe_runs(0.1, 0.3, 0.9).write(folder / "final.csv")
    header, *rows = (folder / "final.csv").read_text().splitlines()
    text = "\n".join([header + ",phase", *(row + ",constant" for row in rows)])
    (folder / "runs.csv").write_text(text + "\n")
    return folder


def probe_runs(*heights):
    names, rng = ("web", "code", "books"), np.random.default_rng(0)
    weights, tokens = rng.dirichlet(np.ones(3), 40), np.repeat([8.0 * STEP, 16.0 * STEP], 20)
    losses = 3 + np.array(heights) * (tokens[:, None] / 2000 * (weights + 0.05)) ** -0.4
    runs = tuple(f"r{i}" for i in range(40))
    return RunTable(runs, names, names, weights, tokens, np.full(40, np.nan), losses + 0.003 * rng.normal(size=(40, 3)))


def refitting(folder, law="law.json", runs="runs.csv", **changes):
    refit = {"runs": [str(folder / runs)], "every_tokens": 5 * STEP}
    mixture = {"controller": "autoscale", "predictor": str(folder / law), "refit": refit}
    schedule = {"schedule.kind": "constant_with_cooldown", "schedule.cooldown_tokens": 5 * STEP}
    return {
        **{"mixture.weights": None, **{f"mixture.{key}": value for key, value in mixture.items()}},
        **{**schedule, "evaluation.every_steps": 5, **changes},
    }


@pytest.mark.parametrize("interruption", [stop, kill])
def test_an_interrupted_run_that_refits_ends_like_one_that_was_not(make_trainer, law_and_runs, caplog, interruption):
    caplog.set_level("INFO")
    changes = refitting(law_and_runs)
    assert make_trainer(folder="whole", **changes).fit() == 0
    first = make_trainer(folder="pieces", **changes)
    interruption(first)
    first.folder.release()
    assert make_trainer(folder="pieces", **changes).fit() == 0
    whole, pieces = (first.folder.path.parent / name for name in ("whole", "pieces"))
    assert journal(pieces) == journal(whole)
    assert len(journal(whole)) > 2
    assert losses(pieces) == losses(whole)
    assert "refit at 3,840 tokens with 41 rows took" in caplog.text
    assert "failed" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"runs": "none.csv"}, MixtureError, "none.csv does not exist"),
        ({"runs": "final.csv"}, MixtureError, "no column 'phase', so its losses are taken as final; constant ones"),
        ({"schedule.kind": "cosine"}, ConfigError, "schedule.kind is cosine: losses in mid-schedule lie above"),
        ({"evaluation.every_steps": None}, ConfigError, "learns from validation losses; give evaluation.every_steps"),
        ({"mixture.mode": "anytime"}, ConfigError, "needs mixture.controller=autoscale and mixture.mode=target"),
        ({"law": "weights.json"}, ConfigError, "needs the law.json of one law as mixture.predictor, and weights.json"),
    ],
)
def test_a_refit_without_what_it_needs_is_refused(make_trainer, law_and_runs, changes, error, message):
    WeightsFile(SMALL).write(law_and_runs / "weights.json")
    with pytest.raises(error, match=message):
        make_trainer(**refitting(law_and_runs, **changes))

"""Going on with a longer budget, and from another run."""

import shutil
from unittest import mock

import pytest
from jobs import SIZES, STOP_AT, consumed, journal, losses, of, read_metrics, replayed, tool

from autoscale_ds.errors import CheckpointError, ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.samples import sample_lines
from autoscale_ds.stream.spec import StreamSpec
from autoscale_ds.training.hot_swap import first_event
from autoscale_ds.training.loop import TrainingLoop

CONSTANT = {"schedule.kind": "constant_with_cooldown", "schedule.cooldown_tokens": 5 * 256}


@pytest.mark.parametrize("kept", [True, False])
def test_a_longer_budget_goes_on_from_before_the_cooldown(until, caplog, kept):
    settings = CONSTANT | {
        "checkpoints.keep_before_cooldown": kept,
        "checkpoints.every_steps": 2,
        "checkpoints.keep": 1,
    }
    whole = until(40, folder="whole", **settings).folder.path
    trainer = until(20, **settings)
    run = trainer.folder.path
    names = sorted(path.name for path in trainer.folder.checkpoints.glob("step-*"))
    assert ("step-00000015" in names) == kept
    until(10, **settings)  # by mistake: nothing is trained, and nothing forgotten
    caplog.clear()
    until(40, **settings)
    assert ("going on from step 15, before the cooldown" in caplog.text) == kept
    assert ("the learning rate jumps at step 20" in caplog.text) == (not kept)
    assert consumed(run) == consumed(whole)
    if kept:
        assert losses(run) == losses(whole)
        assert read_metrics(run, "train")[-1]["step"] == 40
        done = tool("export_hf.py", run, "--step", 20, "--output", run.parent / "cooled")
        assert done.returncode == 0, done.stderr


def test_a_smaller_budget_by_mistake_throws_no_step_away(until, caplog):
    until(0, budget_tokens=20 * 256, **{**CONSTANT, "schedule.cooldown_tokens": 0})
    until(18, **CONSTANT)
    trainer = until(40, **CONSTANT)
    assert "going on from step" not in caplog.text
    assert not list(trainer.folder.checkpoints.glob("cooled-*"))


def test_a_second_stage_takes_weights_and_if_wanted_moments_and_the_place_in_the_data(until, corpus_of):
    first = until(20)
    run = first.folder.path
    anneal = {"mixture.weights": {"web": 0.2, "code": 0.3, "books": 0.5}, "evaluation.every_steps": 5}
    plain = until(10, folder="plain", start_from=str(run), **anneal)
    both = until(10, folder="both", start_from=f"{run}@15", start_with=["optimizer", "stream"], **anneal)
    last = {record["step"]: record["loss"] for record in read_metrics(run, "validation")}
    assert read_metrics(plain.folder.path, "validation")[0]["loss"] == pytest.approx(last[20], abs=1e-6)
    assert (plain.parts.engine.updates, both.parts.engine.updates) == (10, 25)
    assert consumed(plain.folder.path)[0].split()[3] == "0"
    stage = consumed(both.folder.path)
    assert replayed(both.folder.path, 10) == stage
    for name, size in (("web", 281), ("code", 156), ("books", 62)):
        before = [line.split()[3:] for line in of(consumed(run), name) if int(line.split()[0]) < 15]
        after = [line.split()[3:] for line in of(stage, name)]
        alone = MixturePlanner(
            StreamSpec(3, len(before) + len(after), {name: size}), [first_event(DomainWeights({name: 1.0}), "")]
        )
        assert sorted(before + after) == sorted(line.split()[3:] for line in sample_lines(alone.plan(), [name]))
    shutil.rmtree(run)
    assert (
        until(15, folder="both", start_from=f"{run}@15", start_with=["optimizer", "stream"], **anneal).loop.step == 15
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": "RUN@7"}, "no checkpoint of step 7, it holds those of steps 10, 5"),
        ({"start_from": "RUN", "model.layers": 3}, "model has another shape"),
        ({"start_from": "RUN", "start_with": ["stream"], "seed": 4}, "seed is 4 and .* has 3"),
        ({"start_from": "nowhere"}, "nowhere is no run folder"),
        ({"start_from": "RUN", "model.initial_weights": "hf"}, "both give the first weights"),
    ],
)
def test_a_second_stage_that_cannot_be_is_refused(until, changes, message):
    run = until(STOP_AT).folder.path
    changes["start_from"] = changes["start_from"].replace("RUN", str(run))
    with pytest.raises((ConfigError, CheckpointError), match=message):
        until(10, folder="second", **changes)
    assert not (run.parent / "second").exists()


def test_a_second_stage_knows_the_text_of_the_checkpoint_it_starts_from(until, corpus_of):
    until(STOP_AT)
    other = {"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))}
    run = until(20, accept_new_text=True, **other).folder.path
    stages = [
        until(5, folder=f"stage{i}", start_from=f"{run}@10", start_with=["stream"], **c)
        for i, c in enumerate(({}, other))
    ]
    assert [set(journal(stage)[0].stream.cursors) for stage in stages] == [{"web", "code", "books"}, {"web", "books"}]


def test_a_second_stage_goes_on_in_a_domain_that_the_first_run_had_dropped(until, corpus_of):
    run = until(STOP_AT).folder.path
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    until(20, **{"data.corpus": str(corpus_of(SIZES | {"books": 0}))})
    stage = until(5, folder="stage", start_from=str(run), start_with=["stream"])
    given = len(of(consumed(run), "books"))
    assert journal(stage)[0].stream.cursors["books"] == given > 0
    assert until(5, folder="first", start_from=f"{stage.folder.path}@0", start_with=["stream"])


def test_a_second_stage_that_crashed_at_once_goes_on_from_the_checkpoint_it_began_with(until, make_trainer):
    run = until(STOP_AT).folder.path
    stage = {"start_from": str(run), "start_with": ["optimizer", "stream"], "folder": "stage"}
    crashed = make_trainer(budget_tokens=10 * 256, **{**stage, "schedule.kind": "constant_with_cooldown"})
    plain = TrainingLoop.train_step

    def train_step(loop, batch):
        if batch.plan.step == 3:
            raise RuntimeError("crash")
        return plain(loop, batch)

    with mock.patch.object(TrainingLoop, "train_step", train_step), pytest.raises(RuntimeError, match="crash"):
        crashed.fit()
    crashed.close()
    until(20)  # the first run goes on meanwhile
    again = until(10, **stage)
    assert again.parts.engine.updates == STOP_AT + 10
    assert sum(journal(again)[0].stream.cursors.values()) == STOP_AT * 8


@pytest.mark.parametrize(
    ("tokenizer", "vocabulary", "message"),
    [
        ("another", 97, "trained on ids of the tokenizer random:97:0"),
        ("another", 128, "trained on ids of the tokenizer"),
    ],
)
def test_a_second_stage_on_ids_of_another_tokenizer_is_refused(until, corpus_of, tokenizer, vocabulary, message):
    run = until(STOP_AT).folder.path
    other = corpus_of(SIZES, tokenizer=tokenizer, vocabulary=vocabulary)
    with pytest.raises(ConfigError, match=message):
        until(10, folder="second", start_from=str(run), **{"data.corpus": str(other)})
    with pytest.raises(ConfigError, match="which mean other text"):
        until(20, **{"data.corpus": str(other)})


@pytest.mark.parametrize("change", ["domain", "text", "tokenizer"])
def test_a_refused_extension_changes_nothing_in_the_run(until, corpus_of, change):
    settings = CONSTANT | {"checkpoints.keep_before_cooldown": True}
    run = until(20, **settings).folder.path
    before = contents(run)
    other = {
        "domain": lambda: corpus_of({name: size for name, size in SIZES.items() if name != "code"}),
        "text": lambda: corpus_of(SIZES, seeds={"code": 1}),
        "tokenizer": lambda: corpus_of(SIZES, tokenizer="another"),
    }
    with pytest.raises(ConfigError):
        until(40, **settings, **{"data.corpus": str(other[change]())})
    assert contents(run) == before
    until(40, **settings)
    assert (run / "checkpoints" / "cooled-step-00000020").is_dir()


def contents(run):
    """Return what decides how a run goes on: checkpoints, journal, configuration, metrics and samples."""
    names = [path.name for path in sorted((run / "checkpoints").iterdir())]
    files = ["config.yaml", "mixture/journal.jsonl", "metrics.jsonl"]
    return names, [(run / name).read_text() for name in files], consumed(run)

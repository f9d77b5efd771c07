"""A run that knows its data: corpora, batches and limits that change between starts, told apart and replayed."""

import json
import random
import shutil

import pytest
from jobs import consumed, losses, read_metrics, tool

from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.predictor import save_optima
from autoscale_ds.stream.journal import read_events
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.samples import sample_lines
from autoscale_ds.stream.spec import StreamSpec
from autoscale_ds.training.hot_swap import first_event

SIZES = {"web": 9000, "code": 5000, "books": 2000}
STOP_AT = 10


@pytest.fixture
def until(make_trainer):
    """Return a function that trains a run until some step, and returns the finished trainer."""

    def train(steps, **changes):
        changes.setdefault("budget_tokens", steps * 256)
        trainer = make_trainer(**{"schedule.kind": "constant_with_cooldown", **changes})
        try:
            assert trainer.fit() == 0
        finally:
            trainer.close()
        return trainer

    return train


def replayed(run, steps, corpus=None):
    done = tool("replay_stream.py", run, "--steps", f"0:{steps}", *(["--corpus", corpus] if corpus else []))
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def of(lines, domain):
    return [line for line in lines if line.split()[2] == domain]


def journal(trainer):
    return read_events(trainer.folder.journal)


def test_a_run_that_nothing_changed_has_one_event_that_says_everything(until, small_corpus):
    trainer = until(STOP_AT)
    until(20)
    (event,) = journal(trainer)
    assert set(event.stream.domains) == set(SIZES)
    assert (event.stream.global_batch, event.stream.when_exhausted, event.stream.max_epochs) == (8, "stop", {})
    state = json.loads((trainer.folder.checkpoints / "step-00000020" / "run.json").read_text())
    assert state["journal"][0]["stream"] == event.stream.to_json()


def test_a_moved_corpus_is_the_same(until, small_corpus, tmp_path):
    until(STOP_AT)
    copied = shutil.copytree(small_corpus, tmp_path / "copied")
    trainer = until(20, **{"data.corpus": str(copied)})
    assert len(journal(trainer)) == 1
    assert replayed(trainer.folder.path, 20) == consumed(trainer.folder.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": {"code": 1}}, r"other text in code than this run was trained on.*--accept-new-text"),
        ({"seeds": {"code": 1, "web": 2}}, r"other text in code, web"),
        ({"tokenizer": "another"}, r"the tokenizer of .*\(another\) is another:97:0, .* trained on ids of random:97:0"),
    ],
)
def test_a_rebuilt_corpus_is_refused_by_name(until, corpus_of, changes, message):
    run = until(STOP_AT).folder.path
    before = (run / "mixture" / "journal.jsonl").read_text()
    with pytest.raises(ConfigError, match=message):
        until(20, **{"data.corpus": str(corpus_of(SIZES, **changes))})
    assert (run / "mixture" / "journal.jsonl").read_text() == before
    assert len(losses(until(20).folder.path)) == 20  # with the corpus as it was


def test_accepted_new_text_is_read_from_its_beginning_and_the_others_go_on(until, corpus_of):
    whole = consumed(until(20, folder="whole").folder.path)
    until(STOP_AT)
    other = corpus_of(SIZES | {"code": 6000}, seeds={"code": 1})
    trainer = until(20, accept_new_text=True, **{"data.corpus": str(other)})
    run = trainer.folder.path
    lines = consumed(run)
    assert replayed(run, 20) == lines
    assert [of(lines, name) for name in ("web", "books")] == [of(whole, name) for name in ("web", "books")]
    first = int(of(lines, "code")[0].split()[0])
    again = [line.split()[2:] for line in of(lines, "code") if int(line.split()[0]) >= STOP_AT]
    assert first < STOP_AT
    assert {epoch for _, epoch, _ in again} == {"0"}
    assert journal(trainer)[1].reason == "other text, read from its beginning: code"
    assert list(journal(trainer)[1].stream.domains) == ["code"]


def test_a_new_domain_joins_at_weight_zero_and_a_proposal_turns_it_on(until, corpus_of, caplog):
    whole = consumed(until(20, folder="whole").folder.path)
    run = until(STOP_AT, **{"logging.every_steps": 7}).folder.path
    more = {"data.corpus": str(corpus_of(SIZES | {"papers": 3000})), "logging.every_steps": 7}
    trainer = until(20, **more)
    assert "new in the corpus, with weight 0 until a proposal names them: papers" in caplog.text
    assert consumed(run) == whole
    assert journal(trainer)[1].weights["papers"] == 0
    proposed = tool("swap_weights.py", run, "--set", "papers=0.4", "--rescale")
    assert "no job runs, so the next start takes it up" in proposed.stdout, proposed.stderr
    until(30, **more)
    lines = consumed(run)
    assert abs(len(of(lines, "papers")) - 0.4 * 8 * 10) <= 1
    assert replayed(run, 30) == lines
    assert "papers" in read_metrics(run, "train")[-1]["domain_loss"]


def test_a_proposal_may_name_a_domain_that_joins_at_the_next_start(until, corpus_of):
    run = until(STOP_AT).folder.path
    inbox = run / "mixture" / "inbox"
    (inbox / "p.json").write_text(
        json.dumps({"weights": {"web": 0.4, "code": 0.2, "books": 0.2, "papers": 0.2}, "based_on_version": 0})
    )
    until(20, **{"data.corpus": str(corpus_of(SIZES | {"papers": 3000}))})
    assert not list(inbox.iterdir())
    assert {line.split()[0] for line in of(consumed(run), "papers")} <= {str(step) for step in range(10, 20)}
    assert len(of(consumed(run), "papers")) == 16


def test_a_domain_leaves_when_its_weight_is_zero_and_the_message_says_how(until, corpus_of):
    run = until(STOP_AT).folder.path
    fewer = {
        "data.corpus": str(corpus_of(SIZES | {"books": 0})),
        "objective.domain_weights": {"books": 2.0},
        "data.max_epochs": {"books": 9},
    }
    with pytest.raises(ConfigError, match=r"no longer holds books, .* weight 0.2: .* --drop-domain books"):
        until(20, **fewer)
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    trainer = until(20, **fewer)
    assert [event.source for event in journal(trainer)] == ["config", "user", "start"]
    assert journal(trainer)[-1].weights == {"web": 0.625, "code": 0.375}
    until(30)  # with the whole corpus again: books comes back, off, and goes on where it was
    tool("swap_weights.py", run, "--set", "books=0.2", "--rescale").check_returncode()
    until(40)
    lines = consumed(run)
    assert replayed(run, 40) == lines
    given = sorted(line.split()[2:] for line in of(lines, "books"))
    alone = MixturePlanner(StreamSpec(3, len(given), {"books": 62}), [first_event(DomainWeights({"books": 1.0}), "")])
    assert given == sorted(line.split()[2:] for line in sample_lines(alone.plan(), ["books"]))
    assert not [line for line in of(lines, "books") if STOP_AT <= int(line.split()[0]) < 30]


def test_splitting_a_domain_is_removing_one_and_adding_two(until, corpus_of):
    run = until(STOP_AT).folder.path
    split = corpus_of(SIZES | {"books": 0, "novels": 1200, "poems": 900})
    weights = {"web": 0.5, "code": 0.3, "novels": 0.1, "poems": 0.1}
    (run / "mixture" / "inbox" / "split.json").write_text(json.dumps({"weights": {**weights, "books": 0}}))
    trainer = until(20, **{"data.corpus": str(split)})
    assert journal(trainer)[-1].weights == weights
    assert replayed(run, 20) == consumed(run)
    assert of(consumed(run), "web") == of(consumed(until(20, folder="whole").folder.path), "web")


def test_the_batch_may_change_and_tokens_are_counted_exactly(until):
    until(STOP_AT)
    trainer = until(0, budget_tokens=(10 * 8 + 5 * 16) * 32, **{"data.global_batch": 16})
    run = trainer.folder.path
    assert trainer.step == 15
    assert [record["tokens"] for record in read_metrics(run, "train")][-3:] == [4096, 4608, 5120]
    lines = consumed(run)
    assert len(lines) == 10 * 8 + 5 * 16
    assert replayed(run, 15) == lines
    trainer = until(0, budget_tokens=(10 * 8 + 5 * 16 + 10 * 4) * 32, **{"data.global_batch": 4})
    assert trainer.step == 25
    assert replayed(run, 25) == consumed(run)
    assert [event.stream.global_batch for event in journal(trainer)] == [8, 16, 4]
    assert read_metrics(run, "train")[-1]["tokens"] == trainer.budget.tokens == 200 * 32


def test_a_used_up_domain_is_revived_by_a_higher_limit(until):
    limited = {"data.max_epochs": {"books": 0.2}, "data.when_exhausted": "renormalise"}
    run = until(20, **limited).folder.path
    assert len(of(consumed(run), "books")) == 12
    refused = tool("swap_weights.py", run, "--set", "books=0.5", "--rescale")
    assert not refused.stderr
    until(25, **limited)
    (reason,) = (run / "mixture" / "rejected").glob("*.reason")
    assert "has given all its 0.2 epochs by step 20" in reason.read_text()
    until(40, **{**limited, "data.max_epochs": {"books": 0.5}})
    assert 12 < len(of(consumed(run), "books")) <= 31
    assert replayed(run, 40) == consumed(run)


@pytest.mark.parametrize("how", ["swap", "limit"])
def test_a_run_ended_by_its_data_is_revived(until, how):
    limited = {"data.max_epochs": {"books": 0.3}, "budget_tokens": 30 * 256}
    trainer = until(30, **limited)
    run, ended = trainer.folder.path, trainer.step
    assert ended < 30
    if how == "swap":
        tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    else:
        limited["data.max_epochs"] = {"books": 2}
    assert until(30, **limited).step == 30
    assert len(losses(run)) == 30
    assert replayed(run, 30) == consumed(run)


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
    wanted = longer._beginning.controller()._predictor.predict(40 * 256)
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
        "the learning rate jumps at step 10, from 0.0003 to ",
    ):
        assert line in caplog.text, caplog.text
    group = second.engine._guard.param_groups[0]
    assert (group["weight_decay"], tuple(group["betas"]), group["eps"]) == (0.5, (0.8, 0.9), 1e-6)
    assert second.engine._guard.param_groups[1]["weight_decay"] == 0
    caplog.clear()
    until(20, **new, **{"schedule.kind": "cosine"})
    assert "since the last start" not in caplog.text
    assert first.step == STOP_AT


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


def test_a_second_stage_takes_weights_and_if_wanted_moments_and_the_place_in_the_data(until, corpus_of):
    first = until(20)
    run = first.folder.path
    anneal = {"mixture.weights": {"web": 0.2, "code": 0.3, "books": 0.5}, "evaluation.every_steps": 5}
    plain = until(10, folder="plain", start_from=str(run), **anneal)
    both = until(10, folder="both", start_from=f"{run}@15", start_with=["optimizer", "stream"], **anneal)
    last = {record["step"]: record["loss"] for record in read_metrics(run, "validation")}
    assert read_metrics(plain.folder.path, "validation")[0]["loss"] == pytest.approx(last[20], abs=1e-6)
    assert (plain.engine.updates, both.engine.updates) == (10, 25)
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
    assert until(15, folder="both", start_from=f"{run}@15", start_with=["optimizer", "stream"], **anneal).step == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_from": "RUN@7"}, "holds checkpoints of steps 10, 5"),
        ({"start_from": "RUN", "model.layers": 3}, "model has another shape"),
        ({"start_from": "RUN", "start_with": ["stream"], "seed": 4}, "seed is 4 and .* has 3"),
        ({"start_from": "nowhere"}, "nowhere is no run folder"),
        ({"start_from": "RUN", "model.initial_weights": "hf"}, "both give the first weights"),
    ],
)
def test_a_second_stage_that_cannot_be_is_refused(until, changes, message):
    run = until(STOP_AT).folder.path
    changes["start_from"] = changes["start_from"].replace("RUN", str(run))
    with pytest.raises(ConfigError, match=message):
        until(10, folder="second", **changes)


def test_a_refused_start_changes_nothing_that_later_starts_compare_with(until, corpus_of):
    run = until(STOP_AT).folder.path
    before = (run / "config.yaml").read_text()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"mixture\.weights is no longer what this run was started with"):
            until(20, **{"mixture.weights": "uniform"})
        with pytest.raises(ConfigError, match="other text in code"):
            until(20, **{"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))})
    assert (run / "config.yaml").read_text() == before


class Killed(Exception):
    """What ends a run between two saves."""


@pytest.mark.parametrize("chance", [0, 1, 2])
def test_whatever_happens_between_starts_replay_gives_every_sample(make_trainer, corpus_of, chance):
    rng = random.Random(chance)
    sizes, seeds = dict(SIZES), {}
    changes = {"checkpoints.every_steps": 3, "checkpoints.keep": 9, "evaluation.every_steps": None}
    changes |= {"data.when_exhausted": "renormalise", "data.workers": 2 * (chance == 1)}
    folder, tokens = None, 0
    for start in range(9):
        tokens += rng.randrange(3, 9) * 256
        action = rng.choice(["join", "text", "leave", "batch", "limit", "swap", "nothing"])
        held = [name for name, size in sizes.items() if size]
        if action == "join" and folder:
            sizes |= {rng.choice(["papers", "poems"]): 3000}
        if action == "text" and folder:
            seeds |= {rng.choice(held): start}
        if action == "leave" and len(held) > 2 and folder:
            gone = rng.choice(held)
            dropped = tool("swap_weights.py", folder, "--drop-domain", gone)
            if dropped.returncode == 0:  # not the only one that is on
                sizes[gone] = 0
        if action == "batch":
            changes["data.global_batch"] = rng.choice([4, 8, 16])
        if action == "limit":
            changes["data.max_epochs"] = rng.choice([None, 0.5, 1.5, {"web": 0.1}])
        if action == "swap" and folder:
            weights = DomainWeights.normalised({name: rng.random() for name in held})
            inbox = {"weights": weights.as_dict()}
            (folder / "mixture" / "inbox" / f"{start}.json").write_text(json.dumps(inbox))
        corpus = corpus_of(sizes, seeds=seeds)
        trainer = make_trainer(accept_new_text=True, budget_tokens=tokens, **changes, **{"data.corpus": str(corpus)})
        folder = trainer.folder.path
        kill_at, plain = (rng.randrange(1, 12) if rng.random() < 0.4 else None), trainer._train_step

        def step(batch, left=[kill_at], plain=plain):  # noqa: B006 - counts down
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return plain(batch)

        trainer._train_step = step
        try:
            assert trainer.fit() == 0
        except Killed:
            pass
        except ConfigError as error:  # without it, nothing could be read: it stays
            if "no longer holds" not in str(error):
                raise
            sizes |= {name: 3000 for name, size in sizes.items() if not size}
        trainer.close()
    changes["faults.policy"] = "skip"
    trainer = make_trainer(budget_tokens=tokens + 1024, **changes, **{"data.corpus": str(corpus)})
    assert trainer.fit() == 0
    trainer.close()
    lines = consumed(folder)
    assert replayed(folder, trainer.step) == lines
    assert len(lines) * 32 == read_metrics(folder, "train")[-1]["tokens"]
    restarts = {e.effective_step for e in journal(trainer) if e.stream and any(e.stream.domains.values())}
    seen = set()
    for line in lines:
        at, _, *sample = line.split()
        if int(at) in restarts:
            seen = set()  # a text that is new begins at its first epoch again
            restarts.discard(int(at))
        assert tuple(sample) not in seen
        seen.add(tuple(sample))


def test_going_back_behind_a_change_of_batch_decides_it_anew(until):
    """A start without a budget left recorded another batch; the cooldown then put off goes back before it."""
    settings = {**CONSTANT, "checkpoints.every_steps": 5}
    until(20, **settings)
    until(20, **settings, **{"data.global_batch": 16})
    trainer = until(0, budget_tokens=40 * 256, **settings, **{"data.global_batch": 16})
    run = trainer.folder.path
    assert trainer.step == 15 + 25 // 2
    lines = consumed(run)
    assert len(lines) == 15 * 8 + 12 * 16
    assert replayed(run, trainer.step) == lines
    assert read_metrics(run, "train")[-1]["tokens"] == len(lines) * 32


@pytest.mark.parametrize("batch", [8, 16])
def test_a_damaged_checkpoint_behind_a_change_goes_on_either_way(until, batch):
    until(STOP_AT)
    trainer = until(0, budget_tokens=(10 * 8 + 5 * 16) * 32, **{"data.global_batch": 16})
    for step in (10, 15):
        shutil.rmtree(trainer.folder.checkpoints / f"step-{step:08d}")
    trainer = until(0, budget_tokens=40 * 256, **{"data.global_batch": batch})
    assert replayed(trainer.folder.path, trainer.step) == consumed(trainer.folder.path)
    assert trainer.step == (40 if batch == 8 else 5 + 35 // 2)


def test_there_and_back_again_without_a_step_changes_nothing(until, corpus_of):
    whole = consumed(until(20, folder="whole").folder.path)
    until(STOP_AT)
    until(STOP_AT, accept_new_text=True, **{"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))})
    trainer = until(20)
    assert consumed(trainer.folder.path) == whole
    assert replayed(trainer.folder.path, 20) == whole


def test_a_second_stage_knows_the_text_of_the_checkpoint_it_starts_from(until, corpus_of):
    until(STOP_AT)
    other = {"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))}
    run = until(20, accept_new_text=True, **other).folder.path
    stages = [
        until(5, folder=f"stage{i}", start_from=f"{run}@10", start_with=["stream"], **c)
        for i, c in enumerate(({}, other))
    ]
    assert [set(journal(stage)[0].stream.cursors) for stage in stages] == [{"web", "code", "books"}, {"web", "books"}]


def test_a_smaller_budget_by_mistake_throws_no_step_away(until, caplog):
    until(0, budget_tokens=20 * 256, **{**CONSTANT, "schedule.cooldown_tokens": 0})
    until(18, **CONSTANT)
    trainer = until(40, **CONSTANT)
    assert "going on from step" not in caplog.text
    assert not list(trainer.folder.checkpoints.glob("cooled-*"))


def strip_the_record(run):
    """Make a run look like one from before journals said what it reads."""
    paths = [run / "mixture" / "journal.jsonl", *(run / "checkpoints").glob("*/run.json")]
    for path in paths:
        text = path.read_text()
        raw = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        for event in raw if isinstance(raw, list) else raw["journal"]:
            event.pop("stream", None)
        path.write_text("".join(json.dumps(e) + "\n" for e in raw) if isinstance(raw, list) else json.dumps(raw))


def test_a_run_from_before_goes_on_and_is_on_record_from_then_on(until, corpus_of):
    whole = consumed(until(20, folder="whole").folder.path)
    run = until(STOP_AT).folder.path
    strip_the_record(run)
    with pytest.raises(ConfigError, match="start it once with 8, then change it"):
        until(20, **{"data.global_batch": 16})
    with pytest.raises(ConfigError, match=r"does not hold books, .* start it once with the corpus as it was"):
        until(20, **{"data.corpus": str(corpus_of(SIZES | {"books": 0}))})
    with pytest.raises(ConfigError, match="does not say which text it read up to step 10"):
        until(5, folder="stage", start_from=str(run), start_with=["stream"])
    trainer = until(20)
    assert consumed(run) == whole == replayed(run, 20)
    assert journal(trainer)[-1].source == "start"
    with pytest.raises(ConfigError, match="other text in code"):
        until(30, **{"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))})

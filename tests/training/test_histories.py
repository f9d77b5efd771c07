"""Whole histories of runs: random ones, starts that go back, journals from before."""

import json
import random
import shutil
from unittest import mock

import pytest
from jobs import SIZES, STOP_AT, consumed, journal, read_metrics, replayed, tool

from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.training.loop import TrainingLoop


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
        kill_at, plain = (rng.randrange(1, 12) if rng.random() < 0.4 else None), TrainingLoop.train_step

        def step(loop, batch, left=[kill_at], plain=plain):  # noqa: B006 - counts down
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return plain(loop, batch)

        try:
            with mock.patch.object(TrainingLoop, "train_step", step):
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
    assert replayed(folder, trainer.loop.step) == lines
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
    settings = {"schedule.cooldown_tokens": 5 * 256, "checkpoints.every_steps": 5}
    until(20, **settings)
    until(20, **settings, **{"data.global_batch": 16})
    trainer = until(0, budget_tokens=40 * 256, **settings, **{"data.global_batch": 16})
    run = trainer.folder.path
    assert trainer.loop.step == 15 + 25 // 2
    lines = consumed(run)
    assert len(lines) == 15 * 8 + 12 * 16
    assert replayed(run, trainer.loop.step) == lines
    assert read_metrics(run, "train")[-1]["tokens"] == len(lines) * 32


@pytest.mark.parametrize("batch", [8, 16])
def test_a_damaged_checkpoint_behind_a_change_goes_on_either_way(until, batch):
    until(STOP_AT)
    trainer = until(0, budget_tokens=(10 * 8 + 5 * 16) * 32, **{"data.global_batch": 16})
    for step in (10, 15):
        shutil.rmtree(trainer.folder.checkpoints / f"step-{step:08d}")
    trainer = until(0, budget_tokens=40 * 256, **{"data.global_batch": batch})
    assert replayed(trainer.folder.path, trainer.loop.step) == consumed(trainer.folder.path)
    assert trainer.loop.step == (40 if batch == 8 else 5 + 35 // 2)


def test_there_and_back_again_without_a_step_changes_nothing(until, corpus_of):
    whole = consumed(until(20, folder="whole").folder.path)
    until(STOP_AT)
    until(STOP_AT, accept_new_text=True, **{"data.corpus": str(corpus_of(SIZES, seeds={"code": 1}))})
    trainer = until(20)
    assert consumed(trainer.folder.path) == whole
    assert replayed(trainer.folder.path, 20) == whole


def strip_the_record(run):
    """Make a run look like one from before journals said what it reads."""
    paths = [run / "mixture" / "journal.jsonl", *(run / "checkpoints").glob("*/run.json")]
    for path in paths:
        text = path.read_text()
        raw = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        if isinstance(raw, dict):
            del raw["crc32"]
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

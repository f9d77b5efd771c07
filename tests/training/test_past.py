"""A run that knows its data: corpora, batches and limits that change between starts, told apart and replayed."""

import json
import shutil

import pytest
from jobs import SIZES, STOP_AT, consumed, everything, journal, losses, of, read_metrics, replayed, tool

from autoscale_ds.errors import ConfigError, StreamError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.samples import sample_lines
from autoscale_ds.stream.spec import StreamSpec
from autoscale_ds.training.hot_swap import first_event


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
    caplog.set_level("WARNING", "autoscale_ds")  # as --quiet does
    until(30, **more)
    assert "weights version 2 from step 20: proposed by user" in caplog.text
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


def test_a_domain_leaves_when_its_weight_is_zero_and_the_message_says_how(until, corpus_of, caplog):
    run = until(STOP_AT).folder.path
    fewer = {
        "data.corpus": str(corpus_of(SIZES | {"books": 0})),
        "objective.domain_weights": {"books": 2.0},
        "data.max_epochs": {"books": 9},
    }
    with pytest.raises(ConfigError, match=r"no longer holds books, .* weight 0.2: .* --drop-domain books"):
        until(20, **fewer)
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    caplog.set_level("WARNING", "autoscale_ds")  # as --quiet does
    trainer = until(20, **fewer)
    assert "weights version 2 from step 10: no longer in the corpus: books" in caplog.text
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


def test_a_refused_start_changes_nothing_and_its_advice_works(until, corpus_of):
    run = until(STOP_AT).folder.path
    metrics, samples = run / "metrics.jsonl", run / "samples" / "rank-00000.txt"
    line = metrics.read_text().splitlines()[-1].replace(f'"step": {STOP_AT}', '"step": 13')
    metrics.write_text(metrics.read_text() + line + "\n")  # of a step after the last checkpoint
    samples.write_text(samples.read_text() + samples.read_text().splitlines()[-1].replace("9 ", "11 ", 1) + "\n")
    tool("swap_weights.py", run, "--set", "web=0.6", "--rescale").check_returncode()  # waits, and leaves books on
    fewer = {"data.corpus": str(corpus_of(SIZES | {"books": 0}))}
    before = everything(run)
    with pytest.raises(ConfigError, match="no longer holds books"):
        until(20, **fewer)
    assert everything(run) == before
    samples.write_text(samples.read_text().replace("\n", "\n?\n", 1))
    before = everything(run)
    with pytest.raises(StreamError, match=r"rank-00000\.txt:2: '\?' is no sample"):
        until(20)
    assert everything(run) == before
    samples.write_text(samples.read_text().replace("\n?\n", "\n", 1))
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    until(20, **fewer)
    assert line not in metrics.read_text()
    until(30, **fewer)
    until(40)
    assert replayed(run, 40) == consumed(run)


def test_a_start_that_goes_back_behind_the_end_of_a_domain_is_refused_before_anything_changes(until, corpus_of):
    cooled = {"schedule.kind": "constant_with_cooldown", "schedule.cooldown_tokens": 5 * 256}
    run = until(20, **cooled).folder.path
    fewer = {"data.corpus": str(corpus_of(SIZES | {"books": 0}))}
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    until(20, **cooled, **fewer)
    before = everything(run)
    with pytest.raises(ConfigError, match="no longer holds books, which the steps 15 to 19 read"):
        until(30, **cooled, **fewer)
    assert everything(run) == before
    until(30, **cooled)
    assert replayed(run, 30) == consumed(run)


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
    assert trainer.loop.step == 15
    assert [record["tokens"] for record in read_metrics(run, "train")][-3:] == [4096, 4608, 5120]
    lines = consumed(run)
    assert len(lines) == 10 * 8 + 5 * 16
    assert replayed(run, 15) == lines
    trainer = until(0, budget_tokens=(10 * 8 + 5 * 16 + 10 * 4) * 32, **{"data.global_batch": 4})
    assert trainer.loop.step == 25
    assert replayed(run, 25) == consumed(run)
    assert [event.stream.global_batch for event in journal(trainer)] == [8, 16, 4]
    assert read_metrics(run, "train")[-1]["tokens"] == trainer.loop.budget.tokens == 200 * 32


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
    run, ended = trainer.folder.path, trainer.loop.step
    assert ended < 30
    if how == "swap":
        tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    else:
        limited["data.max_epochs"] = {"books": 2}
    assert until(30, **limited).loop.step == 30
    assert len(losses(run)) == 30
    assert replayed(run, 30) == consumed(run)


def test_a_domain_that_comes_back_with_other_text_is_refused_like_any_other(until, corpus_of):
    run = until(STOP_AT).folder.path
    tool("swap_weights.py", run, "--drop-domain", "books").check_returncode()
    until(15, **{"data.corpus": str(corpus_of(SIZES | {"books": 0}))})
    with pytest.raises(ConfigError, match="other text in books"):
        until(20, **{"data.corpus": str(corpus_of(SIZES, seeds={"books": 1}))})
    assert "back in the corpus, with weight 0 until a proposal names them: books" in journal(until(20))[-1].reason

"""Proposals and the swap tool against a real run."""

import os
import threading
import time

import pytest
from jobs import journal, losses, read_metrics, tool


def test_bad_proposals_are_refused_with_their_reason_while_training_goes_on(make_trainer):
    trainer = make_trainer(budget_tokens=60 * 256)
    inbox = trainer.folder.inbox
    (inbox.folder / "broken.json").write_text('{"weights": {,}}')
    inbox.put({"web": 0.5, "code": 0.5, "wiki": 0.0}, "test", "", None)
    inbox.put({"web": 0.2, "code": 0.2, "books": 0.6}, "test", "the good one", 0)
    inbox.put({"web": 0.3, "code": 0.1, "books": 0.6}, "test", "too late", 0)
    os.utime(inbox.folder / "broken.json", (time.time() - 60,) * 2)
    assert trainer.fit() == 0
    (swap,) = read_metrics(trainer.folder.path, "swap")
    assert (swap["reason"], swap["effective_step"]) == ("the good one", 0)
    reasons = sorted(path.read_text() for path in inbox.rejected.glob("*.reason"))
    assert [reason.split(":")[0].split(";")[0].strip() for reason in reasons] == [
        "broken JSON at line 1, column 14",
        "it is older than the current weights",
        "unknown domain 'wiki'",
    ]
    assert len(losses(trainer.folder.path)) == 60


def test_thousands_of_bad_proposals_hold_nothing_up(make_trainer):
    trainer = make_trainer(budget_tokens=60 * 256)
    inbox = trainer.folder.inbox
    for number in range(2000):
        (inbox.folder / f"junk-{number:04d}.json").write_text("[]")
    assert trainer.fit() == 0
    assert len(losses(trainer.folder.path)) == 60
    refused = len(list(inbox.rejected.glob("*.reason")))
    assert refused == 2000  # fifty a step
    assert refused + len(list(inbox.folder.iterdir())) == 2000


def test_a_proposal_that_can_be_neither_read_nor_moved_is_left_alone(make_trainer, caplog):
    if os.geteuid() != 0:
        pytest.skip("only root can take on another user's rights")
    trainer = make_trainer()
    loop = trainer.restored()
    inbox, swap = trainer.folder.inbox, loop._swap
    foreign = inbox.folder / "foreign.json"
    foreign.write_text("{}")
    foreign.chmod(0)
    for parent in foreign.parents:
        if "pytest" in str(parent):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        assert swap.waiting()
        assert [swap.take_up(), swap.take_up()] == [[], []]
        assert not swap.waiting()
    finally:
        os.seteuid(0)
        loop.close()
    assert caplog.text.count("foreign.json cannot be handled and is left alone") == 1
    assert foreign.exists()


def test_the_swap_tool_waits_for_the_event_or_the_refusal(make_trainer):
    trainer = make_trainer(
        budget_tokens=3000 * 256, **{"checkpoints.every_steps": None, "evaluation.every_steps": None}
    )
    answers = {}

    def propose():
        while not read_metrics(trainer.folder.path, "train"):
            time.sleep(0.05)
        answers["good"] = tool("swap_weights.py", trainer.folder.path, "--set", "web=0.1", "--rescale", "--wait")
        bad = trainer.folder.inbox.put({"web": 1.0, "code": 0.0, "books": 0.0}, "user", "", 0)
        while trainer.folder.inbox.rejection(bad) is None:
            time.sleep(0.05)
        trainer.stop.requested = True

    helper = threading.Thread(target=propose)
    helper.start()
    assert trainer.fit() == 75
    helper.join()
    assert answers["good"].returncode == 0
    assert "web    0.500000 -> 0.100000" in answers["good"].stdout
    assert "version 1, effective from step" in answers["good"].stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "books=0.9"], "sum to 1.7, expected 1 within 1e-06; give the other domains too, or --rescale"),
        (["--set", "boks=0.9"], "unknown domain 'boks'"),
        (["--set", "books"], "not of the form DOMAIN=WEIGHT"),
        (["--set", "books=-1", "--rescale"], "'books' is -1"),
        (["--weights", "none.json"], "cannot read none.json"),
    ],
)
def test_the_swap_tool_refuses_nonsense_in_one_line(make_trainer, arguments, message):
    trainer = make_trainer()
    loop = trainer.restored()
    loop.begin()
    loop.close()
    done = tool("swap_weights.py", trainer.folder.path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert trainer.folder.inbox.pending() == []


def test_waiting_for_a_swap_of_a_run_without_a_job_ends_at_once(make_trainer):
    trainer = make_trainer()
    assert trainer.fit() == 0
    trainer.folder.release()
    began = time.monotonic()
    done = tool("swap_weights.py", trainer.folder.path, "--set", "web=0.1", "--rescale", "--wait")
    assert done.returncode == 2
    assert "no job runs in" in done.stderr
    assert "is taken up when the run goes on" in done.stderr
    assert time.monotonic() - began < 60  # the tool's own limit is 600 s
    assert len(trainer.folder.inbox.pending()) == 1


def test_proposals_made_one_after_the_other_before_a_start_are_all_taken_up(until):
    run = until(2).folder.path
    first = tool("swap_weights.py", run, "--set", "web=0.1", "--rescale")
    second = tool("swap_weights.py", run, "--drop-domain", "code")
    assert "1 before this one not judged yet; it builds on the last of them: web 0.1" in second.stdout, first.stderr
    shown = tool("swap_weights.py", run).stdout
    assert shown.count("waits to be judged") == 2
    trainer = until(4)
    assert [event.proposal for event in journal(trainer)[1:]] == [
        line.split("/")[-1].split(";")[0] for line in (first.stdout, second.stdout.splitlines()[-1])
    ]
    weights = journal(trainer)[-1].weights
    assert weights["code"] == 0
    assert weights["web"] == pytest.approx(0.1 / 0.46)
    assert "waits" not in tool("swap_weights.py", run).stdout

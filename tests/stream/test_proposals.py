import json
import os
import time
from dataclasses import replace

import pytest
from streams import event

from autoscale_ds.errors import ProposalError
from autoscale_ds.stream import proposals
from autoscale_ds.stream.journal import START, Journal
from autoscale_ds.stream.proposals import Inbox, checked_weights, read_proposal

DOMAINS = ["web", "code", "books"]
GOOD = {"web": 0.5, "code": 0.25, "books": 0.25}


@pytest.fixture
def inbox(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.create()
    return inbox


def put_raw(inbox, text, age=60):
    path = inbox.folder / "p.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def journal(inbox, version=3, weights=GOOD, starts=0):
    """A journal at a version; its last ``starts`` events only say what starts of the run changed."""
    kept = Journal(inbox.folder.parent / "journal.jsonl")
    for number in range(version + 1):
        source = START if number > version - starts else "user"
        kept.append(replace(event(number, number, weights), source=source))
    return kept


def judged(inbox, text, version=3):
    proposal = read_proposal(put_raw(inbox, text))
    assert checked_weights(proposal, DOMAINS, journal(inbox, version)) == proposal.weights
    return proposal


def test_what_the_tool_writes_is_read_back(inbox):
    name = inbox.put(GOOD, "user", "because", 3)
    (path,) = inbox.pending()
    assert path.name == name
    proposal = read_proposal(path)
    assert (proposal.weights.as_dict(), proposal.source, proposal.reason) == (GOOD, "user", "because")
    assert checked_weights(proposal, DOMAINS, journal(inbox)) == proposal.weights


def test_a_start_that_kept_the_weights_makes_no_proposal_old(inbox):
    known = journal(inbox, version=4, starts=2)
    for version in (2, 3, 4):
        proposal = read_proposal(put_raw(inbox, json.dumps({"weights": GOOD, "based_on_version": version})))
        assert checked_weights(proposal, DOMAINS, known) == proposal.weights
    proposal = read_proposal(put_raw(inbox, json.dumps({"weights": GOOD, "based_on_version": 1})))
    with pytest.raises(ProposalError, match="based on version 1, the run is at version 4"):
        checked_weights(proposal, DOMAINS, known)


def test_a_domain_that_is_off_may_be_left_out_and_one_that_left_may_be_named_with_zero(inbox):
    known = journal(inbox, weights={"web": 0.5, "code": 0.5, "books": 0.0, "papers": 0.0})
    proposal = read_proposal(put_raw(inbox, json.dumps({"weights": {"web": 0.75, "code": 0.25, "papers": 0}})))
    weights = checked_weights(proposal, DOMAINS, known)
    assert weights == {"web": 0.75, "code": 0.25, "books": 0.0}
    for wrong, message in (
        ({"web": 1.0, "books": 0}, "'code' has no weight"),
        ({"web": 0.5, "code": 0.4, "papers": 0.1}, "unknown domain 'papers'"),
        ({"web": 0.5, "code": 0.5, "poems": 0}, "unknown domain 'poems'"),
    ):
        with pytest.raises(ProposalError, match=message):
            checked_weights(read_proposal(put_raw(inbox, json.dumps({"weights": wrong}))), DOMAINS, known)


def test_the_predictors_weights_file_is_a_proposal_as_it_is(inbox):
    text = json.dumps({"weights": GOOD, "tokens": 1e10, "source": "autoscale", "intervals": {"web": [0.4, 0.6]}})
    assert judged(inbox, text).source == "autoscale"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"weights": {**GOOD, "wiki": 0.0}}), "unknown domain 'wiki'"),
        (json.dumps({"weights": {"web": 0.5, "code": 0.5}}), "'books' has no weight"),
        (json.dumps({"weights": {"web": 1.2, "code": -0.2, "books": 0}}), "'code' is -0.2"),
        (json.dumps({"weights": {"web": float("nan"), "code": 0.5, "books": 0.5}}), "'web' is nan"),
        (json.dumps({"weights": {"web": float("inf"), "code": 0.5, "books": 0.5}}), "'web' is inf"),
        (json.dumps({"weights": {"web": 0.5, "code": 0.25, "books": 0.2}}), "sum to 0.95"),
        (json.dumps({"weights": {"web": "half", "code": 0.5, "books": 0}}), "expected a number"),
        (json.dumps({"weights": {"web": True, "code": 0, "books": 0}}), "expected a number"),
        ('{"weights": {"web": 0.5, oops}}', "broken JSON at line 1, column 26"),
        ('{"weights": {"web": 0.5, "co', "half-written"),
        ("", "half-written"),
        ('{"weights": {"web": 0.5, "web": 0.5}}', "'web' is given twice"),
        (json.dumps({"weights": GOOD, "based_on_version": 2}), "older than the current weights: based on version 2"),
        (json.dumps({"weights": GOOD, "based_on_version": 9}), "only at version 3"),
        (json.dumps({"weights": GOOD, "based_on_version": "3"}), "expected a whole number"),
        (json.dumps([1, 2]), 'has no "weights"'),
        (json.dumps({"weights": {}}), "must be a mapping"),
        ("[" * 100_000, "nested too deep|half-written"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_each_bad_proposal_is_refused_with_its_own_message(inbox, text, message):
    with pytest.raises(ProposalError, match=message):
        judged(inbox, text)


def test_a_file_still_being_written_is_left_alone_for_a_moment(inbox):
    path = put_raw(inbox, '{"weights": {"web"', age=0)
    assert read_proposal(path) is None
    os.utime(path, (time.time() - 2 * proposals.SETTLE_SECONDS,) * 2)
    with pytest.raises(ProposalError, match="half-written"):
        read_proposal(path)


def test_a_file_from_the_future_is_judged_like_others(inbox):
    path = put_raw(inbox, '{"weights": {"web"', age=0)
    os.utime(path, (time.time() + 86400,) * 2)
    with pytest.raises(ProposalError, match="half-written"):
        read_proposal(path)


def test_links_folders_pipes_and_giants_are_refused_unread(inbox, tmp_path):
    target = tmp_path / "secret"
    target.write_text(json.dumps({"weights": GOOD}))
    (inbox.folder / "link.json").symlink_to(target)
    (inbox.folder / "folder.json").mkdir()
    os.mkfifo(inbox.folder / "pipe.json")
    with open(inbox.folder / "giant.json", "wb") as file:
        file.truncate(10 << 30)
    paths = inbox.pending()
    assert len(paths) == 4
    for path in paths:
        with pytest.raises(ProposalError):
            read_proposal(path)
        inbox.reject(path, "no")
    assert inbox.pending() == []
    assert target.read_text()
    assert inbox.rejection("link.json") == "no"


def test_only_finished_names_count_and_the_oldest_comes_first(inbox):
    for age, name in [(10, "b.json"), (20, "c.json"), (30, ".hidden.json"), (40, "a.json.partial")]:
        path = inbox.folder / name
        path.write_text("{}")
        os.utime(path, (time.time() - age,) * 2)
    assert [path.name for path in inbox.pending()] == ["c.json", "b.json"]

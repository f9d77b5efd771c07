import pytest
from streams import event

from autoscale_ds.errors import StreamError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import START, Event, Journal, history, read_events
from autoscale_ds.stream.spec import SpecChange

WEIGHTS = {"web": 3, "code": 1}


def written(path, *events):
    journal = Journal(path)
    for item in events:
        journal.append(item)
    return journal


def test_events_survive_the_file(tmp_path):
    events = [event(0, 0, WEIGHTS), event(1, 5, {"web": 1, "code": 2})]
    written(tmp_path / "j", *events)
    assert Journal(tmp_path / "j").events == events
    assert Event.from_json(events[1].to_json()) == events[1]


def test_a_journal_without_a_whole_event_is_refused_once_a_run_has_started(tmp_path):
    path = tmp_path / "j"
    path.write_text(event(0, 0, WEIGHTS).to_json()[:40])
    assert Journal(path).events == []  # a start begins it anew, or finds that a checkpoint's copy is longer
    with pytest.raises(StreamError, match=r"j is damaged: it holds no whole event; restore it from the copy"):
        read_events(path)


def test_a_last_line_torn_by_a_crash_is_left_out_and_repaired(tmp_path):
    path = tmp_path / "j"
    written(path, event(0, 0, WEIGHTS))
    whole = path.read_text()
    path.write_text(whole + event(1, 5, WEIGHTS).to_json()[:40])
    journal = Journal(path)
    assert [item.version for item in journal.events] == [0]
    journal.hold()
    assert journal.commit()
    assert path.read_text() == whole
    journal.hold()
    assert not journal.commit()


def test_held_events_are_written_when_the_start_is_accepted(tmp_path):
    path = tmp_path / "j"
    written(path, event(0, 0, WEIGHTS))
    before = path.read_text()
    journal = Journal(path)
    journal.hold()
    journal.append(event(1, 5, WEIGHTS))
    assert (path.read_text(), journal.current.version) == (before, 1)
    assert not journal.commit()
    journal.append(event(2, 6, WEIGHTS))
    assert [each.version for each in Journal(path).events] == [0, 1, 2]


def test_weights_that_no_step_was_sampled_by_do_not_stand_behind_a_start_of_their_step():
    first, half, off = event(0, 0, WEIGHTS), event(1, 5, {"web": 1, "code": 1}), event(2, 5, {"web": 1, "code": 0})
    left = Event(3, 5, DomainWeights({"web": 1.0}), START, "", "", 0, stream=SpecChange(domains={"code": None}))
    assert history([first, half, off, left]) == [first, left, off]


def test_a_damaged_line_in_the_middle_is_an_error_not_a_shorter_journal(tmp_path):
    path = tmp_path / "j"
    written(path, event(0, 0, WEIGHTS), event(1, 5, WEIGHTS))
    path.write_text(path.read_text().replace('"version"', '"vers', 1))
    with pytest.raises(StreamError, match="damaged"):
        Journal(path)


@pytest.mark.parametrize("bad", [event(2, 9, WEIGHTS), event(0, 9, WEIGHTS), event(1, 3, WEIGHTS)])
def test_versions_count_up_by_one_and_steps_never_go_back(tmp_path, bad):
    journal = written(tmp_path / "j", event(0, 5, WEIGHTS))
    with pytest.raises(StreamError, match="cannot follow"):
        journal.append(bad)
    assert len(Journal(tmp_path / "j").events) == 1

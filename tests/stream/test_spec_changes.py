"""Domains, batches and limits that change between the starts of a run, and the data order that must not."""

import json
from dataclasses import replace

import pytest
from streams import event, planner, run

from autoscale_ds.errors import StreamError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.spec import DomainText, SpecChange, StreamSpec

SIZES = {"web": 40, "code": 17, "books": 5}
WEIGHTS = {"web": 2, "code": 1, "books": 1}


def change(version, step, weights, **said):
    domains = {name: text and DomainText(*text) for name, text in said.pop("domains", {}).items()}
    return replace(event(version, step, weights), stream=SpecChange(domains=domains, **said))


def of(step, name):
    return sorted(sample for sample in step if sample[0] == name)


def test_a_journal_that_says_everything_needs_no_corpus():
    texts = {name: (size, f"text of {name}", "") for name, size in SIZES.items()}
    said = change(0, 0, WEIGHTS, domains=texts, global_batch=8, max_epochs={"books": 3}, when_exhausted="repeat")
    alone = MixturePlanner(StreamSpec(seed=0, global_batch=1, num_windows={}), [Event.from_json(said.to_json())])
    known = planner(SIZES, WEIGHTS, max_epochs={"books": 3}, when_exhausted="repeat")
    assert run(alone, 20) == run(known, 20)
    assert alone.spec == replace(known.spec, num_windows=SIZES)


def test_a_domain_that_joins_at_weight_zero_changes_no_sample_of_the_others():
    joining = change(1, 6, WEIGHTS | {"papers": 0}, domains={"papers": (30, "text", "")})
    assert run(planner(SIZES, WEIGHTS, events=[joining]), 20) == run(planner(SIZES, WEIGHTS), 20)


def test_a_domain_that_joins_starts_at_its_beginning_and_the_others_go_on():
    weights = WEIGHTS | {"papers": 4}
    joining = change(1, 6, weights, domains={"papers": (30, "text", "")})
    steps = run(planner(SIZES, WEIGHTS, events=[joining]), 12)
    alone = run(planner({"papers": 30}, {"papers": 1}, batch=4), 6)
    assert [of(step, "papers") for step in steps] == [[]] * 6 + [of(step, "papers") for step in alone]
    web = [sample for step in steps for sample in of(step, "web")]
    whole = [sample for step in run(planner(SIZES, {"web": 1}, batch=1), len(web)) for sample in step]
    assert sorted(web) == sorted(whole)


def test_a_domain_that_leaves_is_off_and_goes_on_where_it_was_when_it_comes_back():
    on = {"web": 1, "code": 1, "books": 0}
    leaving = change(1, 4, on | {"code": 0}, domains={"code": None})
    back = change(2, 9, on, domains={"code": (17, "text of code", "")})
    first = change(0, 0, on, domains={name: (size, f"text of {name}", "") for name, size in SIZES.items()})
    stream = MixturePlanner(StreamSpec(0, 2, {}), [first, leaving, back])
    steps = run(stream, 15)
    assert [len(of(step, "code")) for step in steps] == [1] * 4 + [0] * 5 + [1] * 6
    whole = run(planner({"code": 17}, {"code": 1}, batch=1), 10)
    assert [s for step in steps for s in of(step, "code")] == [s for step in whole for s in step]


def test_only_the_domain_with_other_text_starts_again():
    texts = {name: (size, f"text of {name}", "") for name, size in SIZES.items()}
    first = change(0, 0, WEIGHTS, domains=texts)
    other = change(1, 5, WEIGHTS, domains={"code": (23, "other text", "")})
    stream, same = (MixturePlanner(StreamSpec(0, 8, {}), events) for events in ([first, other], [first]))
    changed, before = run(stream, 12), run(same, 12)
    assert [of(step, "web") for step in changed] == [of(step, "web") for step in before]
    assert changed[:5] == before[:5]
    again = run(planner({"code": 23}, {"code": 1}, batch=2), 7)
    assert [of(step, "code") for step in changed[5:]] == [of(step, "code") for step in again]
    assert sum(stream.state()["given"].values()) == 12 * 8


@pytest.mark.parametrize("saved", range(3, 9))
def test_a_run_that_resumes_around_changes_goes_on_the_same(saved):
    texts = {name: (size, f"text of {name}", "") for name, size in SIZES.items()}
    events = [
        change(0, 0, WEIGHTS, domains=texts),
        change(1, 5, WEIGHTS | {"papers": 1}, domains={"code": (23, "other", ""), "papers": (9, "p", "")}),
        change(2, 6, WEIGHTS | {"papers": 0}, domains={"papers": None}, global_batch=12),
    ]
    whole = MixturePlanner(StreamSpec(0, 8, {}), events)
    steps = run(whole, saved)
    state = json.loads(json.dumps(whole.state()))
    resumed = MixturePlanner(StreamSpec(0, 8, {}), events)
    resumed.restore(state)
    assert run(resumed, 8) == run(whole, 8)
    assert resumed.state() == whole.state()
    assert [len(step) for step in steps] == [8] * min(saved, 6) + [12] * max(saved - 6, 0)


def test_a_batch_that_changes_keeps_every_domain_within_a_sample_of_its_weight():
    larger = change(1, 7, WEIGHTS, global_batch=32)
    stream = planner(SIZES, WEIGHTS, events=[larger])
    sizes, given = [], dict.fromkeys(SIZES, 0)
    for step in run(stream, 20):
        sizes.append(len(step))
        for name in SIZES:
            given[name] += len(of(step, name))
            assert abs(given[name] - sum(sizes) * WEIGHTS[name] / 4) < 1
    assert sizes == [8] * 7 + [32] * 13
    assert sum(stream.state()["given"].values()) == sum(sizes)


def test_a_used_up_domain_gives_its_last_sample_and_is_revived_by_a_higher_limit():
    limited = {"max_epochs": {"books": 2}, "when_exhausted": "renormalise"}
    stream = planner(SIZES, WEIGHTS, **limited)
    given = sum(len(of(step, "books")) for step in run(stream, 20))
    assert given == 10
    assert stream.exhausted == ["books"]
    more = planner(SIZES, WEIGHTS, events=[change(1, 20, WEIGHTS, max_epochs={"books": 3})], **limited)
    more.restore(stream.state())
    assert more.exhausted == []
    assert "books" in [item.domain for item in more.forecast(DomainWeights.normalised(WEIGHTS), 30)]
    assert sum(len(of(step, "books")) for step in run(more, 20)) == 5


@pytest.mark.parametrize("policy", ["renormalise", "stop"])
def test_a_limit_that_is_lowered_below_what_was_given_turns_the_domain_off(policy):
    lower = change(1, 6, {"web": 2, "code": 1}, max_epochs={"books": 1}, when_exhausted=policy)
    stream = planner(SIZES, WEIGHTS, events=[lower])
    assert sum(len(of(step, "books")) for step in run(stream, 6)) == 12
    assert sum(len(of(step, "books")) for step in run(stream, 6)) == 0


def test_weights_that_ask_more_of_a_used_up_domain_are_refused_with_what_it_has_given():
    stream = planner(SIZES, WEIGHTS, max_epochs={"books": 2}, when_exhausted="renormalise")
    run(stream, 20)
    for weights in (
        {"web": 0.4, "code": 0.2, "books": 0.4},
        {"books": 1.0, "web": 0.0, "code": 0.0},
        {"web": 0.1, "code": 0.5, "books": 0.4},
    ):
        with pytest.raises(StreamError, match=r"'books' .* has given all its 2 epochs by step 20: raise"):
            stream.check_left(DomainWeights(weights))
    for weights in (
        {"web": 0.5, "code": 0.5, "books": 0.0},
        {"web": 2 / 3, "books": 1 / 3, "code": 0.0},  # code dropped, the others scaled up
    ):
        stream.check_left(DomainWeights(weights))
    stops = planner(SIZES, WEIGHTS, batch=4, max_epochs={"books": 2})
    run(stops, 10)
    with pytest.raises(StreamError, match="'books'"):
        stops.check_left(DomainWeights({"web": 2 / 3, "books": 1 / 3, "code": 0.0}))


def test_a_run_that_its_data_ended_goes_on_with_other_weights_or_a_higher_limit():
    ended = planner(SIZES, {"books": 1}, batch=3, max_epochs={"books": 2})
    run(ended, 3)
    state = ended.state()
    with pytest.raises(StreamError, match=r"books is used up: data\.max_epochs of 2 is reached at step 3"):
        ended.plan()
    for revival in (event(1, 3, {"web": 1}), change(1, 3, {"books": 1}, max_epochs={"books": 4})):
        stream = planner(SIZES, {"books": 1}, batch=3, max_epochs={"books": 2}, events=[revival])
        stream.restore(state)
        assert len(run(stream, 3)) == 3


def test_text_that_a_later_start_replaced_is_not_read_by_steps_before_it():
    texts = {name: (size, f"text of {name}", "") for name, size in SIZES.items()}
    first = change(0, 0, WEIGHTS, domains=texts)
    other = change(1, 5, WEIGHTS, domains={"code": (23, "other text", "")})
    stream = MixturePlanner(StreamSpec(0, 8, {}), [first, other])
    run(stream, 3)
    assert stream.unreadable() == {"code"}
    run(stream, 3)
    assert stream.unreadable() == set()


def test_a_new_domain_cannot_join_without_a_start():
    with pytest.raises(StreamError, match="brings domain 'papers'"):
        planner(SIZES, WEIGHTS).add_event(change(1, 3, WEIGHTS, domains={"papers": (9, "p", "")}))


def test_a_change_says_only_what_differs():
    whole = SpecChange("t", {"a": DomainText(3, "x", "y"), "b": DomainText(4, "x", "y")}, 8, {}, "stop")
    wanted = SpecChange("t", {"a": DomainText(3, "z", "y"), "c": DomainText(1, "x", "y")}, 8, {"a": 2.0}, "stop")
    step = whole.towards(wanted)
    assert step == SpecChange(
        domains={"a": DomainText(3, "z", "y"), "b": None, "c": DomainText(1, "x", "y")}, max_epochs={"a": 2.0}
    )
    assert SpecChange.from_json(json.loads(json.dumps(step.to_json()))) == step
    assert not SpecChange.recorded([whole, step]).towards(wanted)
    assert not whole.towards(whole)

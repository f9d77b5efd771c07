import hashlib
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import event, planner, run, samples

from autoscale_ds.errors import StreamError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.planner import StreamEnd

SIZES = {"web": 40, "code": 17, "books": 5}
EVEN = {"web": 1, "code": 1, "books": 1}
PINNED_PLANS = dict.fromkeys(("stop", "repeat"), "15a0c9aa9039bcbbafccbe279cec6ba6547b121a8ad75b916f1e278baa457c9c")
PINNED_PLANS["renormalise"] = "4b5c265dea9fa43e652a0ba954feabcb510592368ce4eab5019fcdd6858f3ddb"


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_in_order_make_up_the_same_global_batch_for_any_world_size(world_size):
    whole, parts = planner(SIZES, EVEN, batch=12), planner(SIZES, EVEN, batch=12)
    for _ in range(20):
        expected = samples(whole.plan(), whole.names)
        plan = parts.plan()
        slices = [samples(plan.slice(rank, world_size), parts.names) for rank in range(world_size)]
        assert list(itertools.chain(*slices)) == expected


@given(
    batch=st.integers(1, 300),
    world_size=st.integers(1, 40),
    steps=st.integers(0, 5),
    weights=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
)
@settings(max_examples=60, deadline=None)
def test_a_rank_that_plans_its_own_slice_alone_gets_that_of_the_whole_plan(batch, world_size, steps, weights):
    amounts = dict(zip(SIZES, weights, strict=True))
    whole, alone = planner(SIZES, amounts, batch), planner(SIZES, amounts, batch)
    rank = batch % world_size
    for _ in range(steps):
        expected = whole.plan().slice(rank, world_size)
        found = alone.plan(rank, world_size)
        assert found.step == expected.step
        assert samples(found, alone.names) == samples(expected, whole.names)
    assert alone.state() == whole.state()


@given(
    sizes=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 50), min_size=1),
    batch=st.integers(1, 20),
    seed=st.integers(0, 100),
    steps=st.integers(1, 60),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_domain_epoch_and_window_comes_exactly_once(sizes, batch, seed, steps, data):
    amounts = st.fixed_dictionaries({name: st.integers(0, 9) for name in sizes})
    weights, later = (data.draw(amounts.filter(lambda w: sum(w.values()) > 0)) for _ in range(2))
    stream = planner(sizes, weights, batch, seed, [event(1, steps // 2, later)])
    seen = Counter(itertools.chain(*run(stream, steps)))
    assert set(seen.values()) == {1}
    for name, size in sizes.items():
        visits = sorted((epoch, window) for domain, epoch, window in seen if domain == name)
        for epoch in range(len(visits) // size):
            assert [window for e, window in visits if e == epoch] == list(range(size))
        assert len({epoch for epoch, _ in visits}) == -(-len(visits) // size)


def test_a_domains_order_depends_on_no_weight_and_no_other_domain():
    def sorted_by_draw(stream, steps):  # slots are shuffled within a step: compare steps as sets, in order
        return [sorted(s for s in step if s[0] == "web") for step in run(stream, steps)]

    alone = sorted_by_draw(planner({"web": 40}, {"web": 1}, batch=2), 15)
    beside = sorted_by_draw(planner(SIZES, {"web": 2, "code": 1, "books": 1}, batch=4), 15)
    assert alone == beside


@given(stop=st.integers(0, 40), swap=st.integers(0, 40), world_size=st.sampled_from([1, 2, 3, 6]))
@settings(max_examples=60, deadline=None)
def test_a_resumed_stream_continues_the_same_sequence_across_a_swap(stop, swap, world_size):
    events = [event(1, swap, {"web": 1, "code": 8, "books": 0})]
    expected = run(planner(SIZES, EVEN, batch=6, events=events), 50)

    before = planner(SIZES, EVEN, batch=6, events=events)
    for _ in range(stop):
        before.plan()
    state = json.loads(json.dumps(before.state()))

    after = planner(SIZES, EVEN, batch=6, events=events)
    after.restore(state)
    for step in range(stop, 50):
        plan = after.plan()
        slices = [samples(plan.slice(rank, world_size), after.names) for rank in range(world_size)]
        assert list(itertools.chain(*slices)) == expected[step]


def test_an_event_takes_effect_at_its_step_and_not_before():
    stream = planner(SIZES, {"web": 1, "code": 0, "books": 0}, events=[event(1, 7, {"web": 0, "code": 1, "books": 0})])
    for step, batch in enumerate(run(stream, 12)):
        assert {domain for domain, _, _ in batch} == ({"web"} if step < 7 else {"code"})


def test_an_event_for_a_planned_step_is_refused():
    stream = planner(SIZES, EVEN)
    run(stream, 3)
    with pytest.raises(StreamError, match="already planned"):
        stream.add_event(event(1, 2, EVEN))
    stream.add_event(event(1, 3, EVEN))


def test_a_domain_added_later_starts_at_its_beginning_and_disturbs_no_other():
    old = planner({"web": 40, "code": 17}, {"web": 1, "code": 1}, batch=4)
    run(old, 10)
    new = planner(SIZES, {"web": 1, "code": 1, "books": 0}, batch=4, events=[event(1, 10, EVEN)])
    new.restore(old.state())
    continued = list(itertools.chain(*run(new, 6)))
    assert sorted(window for domain, epoch, window in continued if domain == "books" and epoch == 0) == list(range(5))
    reference = planner(SIZES, {"web": 1, "code": 1, "books": 0}, batch=4, events=[event(1, 10, EVEN)])
    assert list(itertools.chain(*run(reference, 16)[10:])) == continued


def test_a_checkpoint_with_samples_of_a_missing_domain_is_refused():
    old = planner(SIZES, EVEN)
    run(old, 3)
    new = planner({"web": 40, "code": 17}, {"web": 1, "code": 1})
    with pytest.raises(StreamError, match="books"):
        new.restore(old.state())


def test_weights_for_a_domain_without_a_window_are_refused():
    with pytest.raises(StreamError, match="'books' has weight"):
        planner({"web": 40, "books": 0}, {"web": 1, "books": 1})


def test_steps_skipped_are_steps_planned():
    planned, skipped = planner(SIZES, EVEN), planner(SIZES, EVEN)
    for _ in range(10):
        counts = Counter(domain for domain, _, _ in samples(planned.plan(), planned.names))
        assert dict(zip(skipped.names, skipped.skip().tolist(), strict=True)) == counts
    assert skipped.state() == planned.state()


def test_a_position_kept_for_later_is_not_moved_by_further_steps():
    stream = planner(SIZES, EVEN, max_epochs={"books": 1}, when_exhausted="renormalise")
    run(stream, 1)
    position, state = stream.position(), stream.state()
    run(stream, 5)
    assert stream.state(position) == state != stream.state()


@pytest.mark.parametrize("policy", PINNED_PLANS)
def test_plans_and_states_never_change_between_versions(policy):
    """The data order of a run must survive an upgrade, to the last bit of what is carried over: pinned, not derived."""
    sizes = {f"d{i}": 11 + i * i for i in range(300)}
    events = [event(k, 8 * k, {name: (i * 37 + 11 * k) % 23 for i, name in enumerate(sizes)}) for k in (1, 2)]
    limits = {"d299" if policy == "stop" else "d0": 2}
    stream = planner(sizes, dict.fromkeys(sizes, 1), 700, 9, events, max_epochs=limits, when_exhausted=policy)
    digest = hashlib.sha256()
    for _ in range(24):
        plan = stream.plan()
        digest.update(b"".join(part.astype("<i8").tobytes() for part in (plan.domains, plan.epochs, plan.windows)))
    state = stream.state()
    digest.update(json.dumps([state[key] for key in ("step", "cursors", "lags")]).encode())
    assert digest.hexdigest() == PINNED_PLANS[policy]


def test_stop_ends_the_stream_before_a_domain_exceeds_its_epochs():
    stream = planner(SIZES, EVEN, batch=3, max_epochs={"books": 2})
    assert len(run(stream, 10)) == 10
    with pytest.raises(StreamEnd, match=r"books is used up: data\.max_epochs of 2 is reached at step 10"):
        stream.plan()


def test_renormalise_turns_a_used_up_domain_off_and_goes_on():
    stream = planner(
        SIZES, {"web": 2, "code": 1, "books": 1}, batch=4, max_epochs={"books": 2}, when_exhausted="renormalise"
    )
    seen = Counter(domain for step in run(stream, 40) for domain, _, _ in step)
    assert seen["books"] == 10
    assert stream.exhausted == ["books"]
    assert stream.weights() == pytest.approx({"web": 2 / 3, "code": 1 / 3, "books": 0})
    again = planner(
        SIZES, {"web": 2, "code": 1, "books": 1}, batch=4, max_epochs={"books": 2}, when_exhausted="renormalise"
    )
    again.restore(stream.state())
    assert run(again, 5) == run(stream, 5)


def test_renormalise_ends_when_nothing_is_left():
    limits = dict.fromkeys(SIZES, 1)
    stream = planner(SIZES, EVEN, batch=4, max_epochs=limits, when_exhausted="renormalise")
    with pytest.raises(StreamEnd, match="used up"):
        run(stream, 100)
    assert sum(stream.state()["cursors"].values()) >= 62 - 3 * 3  # all but less than a step's worth of each


def test_repeat_goes_on_past_the_limit():
    stream = planner(SIZES, EVEN, batch=3, max_epochs={"books": 2}, when_exhausted="repeat")
    assert max(epoch for step in run(stream, 30) for domain, epoch, _ in step if domain == "books") == 5


def test_the_forecast_names_the_step_at_which_an_epoch_ends():
    stream = planner(SIZES, EVEN, batch=3, max_epochs={"books": 4})
    weights = DomainWeights.normalised(EVEN)
    forecast = {item.domain: (item.epoch, item.step) for item in stream.forecast(weights, until_step=1000)}
    assert forecast == {"web": (1, 40), "code": (1, 17), "books": (4, 20)}
    assert [item.domain for item in stream.forecast(weights, until_step=18)] == ["code"]


def test_ten_thousand_domains_and_ten_trillion_tokens_are_planned_exactly():
    sizes = {f"d{i:04}": 10**13 // 1024 // 10_000 + i for i in range(10_000)}
    stream = planner(sizes, {name: i % 7 for i, name in enumerate(sizes)}, batch=4096)
    counts = Counter(domain for step in run(stream, 20) for domain, _, _ in step)
    total = sum(i % 7 for i in range(10_000))
    for i, name in enumerate(sizes):
        assert abs(counts[name] - 20 * 4096 * (i % 7) / total) < 1


def test_the_state_is_small():
    stream = planner({f"domain{i}": 100 for i in range(7)}, {f"domain{i}": 1 for i in range(7)})
    run(stream, 100)
    assert len(json.dumps(stream.state())) < 700

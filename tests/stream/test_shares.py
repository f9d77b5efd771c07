"""A run drawn from a share of its windows: every invariant of the stream holds on the share."""

import itertools
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import event, planner, run, samples

from autoscale_ds.corpus import CorpusIdentity
from autoscale_ds.corpus.identity import DomainIdentity
from autoscale_ds.stream.journal import Event
from autoscale_ds.stream.permutation import key_from, mix, permute, radices
from autoscale_ds.stream.planner import Forecast, MixturePlanner
from autoscale_ds.stream.spec import DomainText, SpecChange, StreamSpec

SIZES = {"web": 40, "code": 17, "books": 5}
EVEN = {"web": 1, "code": 1, "books": 1}


def share(stream, name, steps=40):
    """Return the windows that a domain of a plan gives."""
    return {window for domain, _, window in itertools.chain(*run(stream, steps)) if domain == name}


@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=1),
    batch=st.integers(1, 12),
    seed=st.integers(0, 50),
    world_size=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_epoch_gives_each_window_of_the_share_once(sizes, batch, seed, world_size, data):
    unique = {name: data.draw(st.integers(1, size)) for name, size in sizes.items()}
    weights = data.draw(st.fixed_dictionaries({n: st.integers(0, 9) for n in sizes}).filter(lambda w: any(w.values())))
    swap = event(1, 7, dict.fromkeys(sizes, 1))
    batch *= world_size
    stream = planner(sizes, weights, batch, seed, [swap], unique_windows=unique)
    plans = [stream.plan() for _ in range(25)]
    seen = list(itertools.chain(*(samples(plan, stream.names) for plan in plans)))
    assert set(Counter(seen).values()) == {1}
    visits = defaultdict(lambda: defaultdict(set))
    for name, epoch, window in seen:
        visits[name][epoch].add(window)
    for name, epochs in visits.items():
        assert all(len(epochs[epoch]) == unique[name] for epoch in range(len(epochs) - 1))
        assert len(set.union(*epochs.values())) <= unique[name]
        assert max(set.union(*epochs.values())) < sizes[name]
    # A rank alone, and a restart in the middle, continue the same order.
    rank = seed % world_size
    resumed = planner(sizes, weights, batch, seed, [swap], unique_windows=unique)
    for _ in range(11):
        resumed.skip()
    again = planner(sizes, weights, batch, seed, [swap], unique_windows=unique)
    again.restore(resumed.state())
    for plan in plans[11:]:
        expected = samples(plan.slice(rank, world_size), stream.names)
        assert samples(again.plan(rank, world_size), again.names) == expected


def test_a_larger_share_contains_a_smaller_one_and_seeds_differ():
    shares = [share(planner({"web": 40}, {"web": 1}, unique_windows={"web": u}), "web") for u in (5, 10, 20, 39, 40)]
    assert [len(each) for each in shares] == [5, 10, 20, 39, 40]
    assert all(small < large for small, large in itertools.pairwise(shares))
    other = share(planner({"web": 40}, {"web": 1}, seed=1, unique_windows={"web": 10}), "web")
    assert other != shares[1]


def test_the_order_of_a_share_depends_on_no_weight_and_no_other_domain():
    alone = planner({"web": 40}, {"web": 1}, batch=2, unique_windows={"web": 7})
    beside = planner(SIZES, {"web": 2, "code": 1, "books": 1}, batch=4, unique_windows={"web": 7, "code": 3})
    of_web = [sorted(s for s in step if s[0] == "web") for step in run(beside, 15)]
    assert of_web == [sorted(step) for step in run(alone, 15)]


def test_a_window_of_a_share_is_where_two_permutations_put_it():
    stream = planner({"web": 1000}, {"web": 1}, batch=50, unique_windows={"web": 30})
    found = {(epoch, window) for _, epoch, window in itertools.chain(*run(stream, 2))}

    def one(position, count, key):
        a, b = (np.array([r], np.uint64) for r in radices(count))
        return permute(np.array([position], np.uint64), np.array([count], np.uint64), a, b, key)[0]

    golden = 0x9E3779B97F4A7C15
    order, chosen = int(key_from(0, "domain", "web")), key_from(0, "window share", "web")
    expected = set()
    for ordinal in range(100):
        epoch, position = divmod(ordinal, 30)
        place = one(position, 30, mix(np.array([(order + epoch * golden) % 2**64], np.uint64)))
        expected.add((epoch, int(one(place, 1000, mix(np.array([chosen]))))))
    assert found == expected


def test_without_a_share_the_order_is_that_of_all_windows():
    whole = planner(SIZES, EVEN)
    all_of_them = planner(SIZES, EVEN, unique_windows=dict(SIZES))
    assert run(whole, 20) == run(all_of_them, 20)


def test_limits_and_forecasts_count_passes_over_the_share():
    spec = {"unique_windows": {"web": 8, "code": 4}, "when_exhausted": "renormalise", "max_epochs": {"web": 2}}
    stream = planner(SIZES, {"web": 1, "code": 1, "books": 0}, batch=2, **spec)
    assert stream.forecast({"web": 0.5, "code": 0.5}, 100) == [Forecast("code", 1.0, 4), Forecast("web", 2.0, 16)]
    steps = run(stream, 30)
    assert sum(sample[0] == "web" for step in steps for sample in step) == 16


def test_the_journal_says_the_share_and_one_from_before_reads_as_all_windows():
    identity = CorpusIdentity("tok", {name: DomainIdentity(f"text of {name}", "") for name in SIZES})
    spec = StreamSpec(3, 8, SIZES, unique_windows={"web": 10, "code": 4, "books": 1})
    said = replace(event(0, 0, EVEN), stream=SpecChange.whole(spec, identity))
    replayed = MixturePlanner(StreamSpec(3, 1, {}), [Event.from_json(said.to_json())])
    assert run(replayed, 20) == run(MixturePlanner(spec, [event(0, 0, EVEN)]), 20)
    assert replayed.spec == spec
    whole = SpecChange.whole(replace(spec, unique_windows={}), identity)
    assert "unique_windows" not in whole.to_json()
    assert not whole.towards(whole)
    assert whole.towards(said.stream).unique_windows == spec.unique_windows
    assert said.stream.towards(whole).unique_windows == {}


def test_other_text_brings_its_own_share_and_starts_at_its_beginning():
    identity = CorpusIdentity("tok", {name: DomainIdentity(f"text of {name}", "") for name in SIZES})
    spec = StreamSpec(0, 6, SIZES, unique_windows={"web": 10, "code": 4, "books": 1})
    first = replace(event(0, 0, EVEN), stream=SpecChange.whole(spec, identity))
    said = SpecChange(domains={"code": DomainText(30, "new", "")}, unique_windows={**spec.unique_windows, "code": 7})
    steps = run(MixturePlanner(StreamSpec(0, 1, {}), [first, replace(event(1, 5, EVEN), stream=said)]), 12)
    fresh = run(planner({"code": 30}, {"code": 1}, batch=2, unique_windows={"code": 7}), 7)
    assert [sorted(s for s in step if s[0] == "code") for step in steps[5:]] == [sorted(step) for step in fresh]

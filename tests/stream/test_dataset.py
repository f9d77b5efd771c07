import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from streams import event, planner

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import StreamError
from autoscale_ds.stream.dataset import MixtureStream, count_windows, open_windows

T = 32


@pytest.fixture(scope="module")
def corpus(small_corpus):
    return Corpus(small_corpus)


def stream(corpus, world_size=1, rank=0, until=12, workers=0, events=(), **more):
    sizes = count_windows(corpus, T)
    a_planner = planner(sizes, {"web": 2, "code": 1, "books": 1}, batch=12, events=events, **more)
    return MixtureStream(a_planner, open_windows(corpus, a_planner.names, T), until, rank, world_size, workers)


def test_window_j_is_tokens_jT_to_jT_plus_T_also_where_shards_meet(corpus):
    windows = open_windows(corpus, ["web"], T)
    everything = np.concatenate([shard.tokens for shard in corpus.store("web").shards])
    count = count_windows(corpus, T)["web"]
    assert count == (9000 - 1) // T
    read = windows.read(np.zeros(count, int), np.arange(count))
    expected = np.stack([everything[j * T : j * T + T + 1] for j in range(count)])
    assert np.array_equal(read.numpy(), expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_batches_are_bit_equal_for_every_world_size(corpus, world_size):
    expected = [batch.tokens for batch in stream(corpus)]
    parts = [stream(corpus, world_size, rank) for rank in range(world_size)]
    for whole, *slices in zip(expected, *parts, strict=True):
        assert torch.equal(torch.cat([part.tokens for part in slices]), whole)


def test_reader_processes_change_nothing(corpus):
    plain = [(batch.tokens, batch.domains) for batch in stream(corpus)]
    for (tokens, domains), batch in zip(plain, stream(corpus, workers=2), strict=True):
        assert torch.equal(batch.tokens, tokens)
        assert torch.equal(batch.domains, domains)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_the_whole_job_leaves_the_readers_to_the_main_process(corpus, number):
    """SLURM signals every process of a job; a reader that died of it would fail the step instead of saving it."""
    plain = [batch.tokens for batch in stream(corpus, until=60)]
    batches = iter(stream(corpus, workers=2, until=60))
    read = [next(batches).tokens, next(batches).tokens]  # one of each reader: both have begun
    for reader in multiprocessing.active_children():
        os.kill(reader.pid, number)
    read += [batch.tokens for batch in batches]
    assert all(map(torch.equal, read, plain))
    assert len(read) == 60


def test_the_state_is_that_of_the_last_batch_consumed_not_of_the_last_one_read(corpus):
    ahead = stream(corpus, workers=2)
    consumed = list(itertools.islice(ahead, 5))
    assert ahead.planner.next_step > 5
    assert ahead.state()["step"] == 5
    resumed = stream(corpus)
    resumed.planner.restore(ahead.state())
    first = next(iter(resumed))
    assert first.plan.step == 5
    assert torch.equal(first.tokens, [batch.tokens for batch in stream(corpus)][5])
    assert len(consumed) == 5


def test_new_weights_wait_for_what_was_read_ahead_and_no_longer(corpus):
    reading = stream(corpus, workers=2)
    batches = iter(reading)
    for _ in range(3):
        next(batches)
    first_unplanned = reading.planner.next_step
    assert first_unplanned == 3 + 2 * 2  # two workers, two steps each
    reading.planner.add_event(event(1, first_unplanned, {"web": 0, "code": 1, "books": 0}))
    code = reading.planner.names.index("code")
    for batch in batches:
        assert (set(batch.domains.tolist()) == {code}) == (batch.plan.step >= first_unplanned)


def test_the_loader_ends_with_the_data_and_says_why(corpus):
    short = stream(corpus, until=1000, max_epochs={"books": 1})
    steps = [batch.plan.step for batch in short]
    assert steps == list(range(len(steps)))
    assert "books is used up: data.max_epochs of 1" in str(short.end)


def test_reading_data_leaves_the_global_random_state_alone(corpus):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(stream(corpus))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_cannot_be_split_over_the_ranks_is_refused(corpus):
    with pytest.raises(StreamError, match="12 cannot be split over 5 ranks"):
        stream(corpus, world_size=5)

"""Interrupts of a pool of worker processes."""

import contextlib
import os
import signal

import pytest

from autoscale_ds.corpus.workers import Pool
from autoscale_ds.interrupts import remember_interrupts


def tasks_with_a_lost_interrupt():
    """Yield tasks; at the second, Ctrl-C comes and its exception is dropped, as in a finaliser."""
    yield 1
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    yield from range(2, 100)


@pytest.fixture(autouse=True)
def remembered():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    remember_interrupts()
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_whose_exception_was_dropped_still_ends_the_work(workers):
    finished = []
    with pytest.raises(KeyboardInterrupt), Pool(lambda task: task, workers) as pool:  # noqa: PT012
        for task, _ in pool.map(tasks_with_a_lost_interrupt()):
            finished.append(task)
    assert len(finished) < 10

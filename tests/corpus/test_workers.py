"""Interrupts of a pool of worker processes."""

import contextlib
import os
import signal

import pytest

from autoscale_ds.corpus.workers import Pool


def tasks_with_a_lost_interrupt():
    """Yield tasks; at the second, Ctrl-C comes and its exception is dropped, as in a finaliser."""
    yield 1
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    yield from range(2, 100)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_whose_exception_was_dropped_still_ends_the_work(workers):
    before, finished = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), Pool(lambda task: task, workers) as pool:  # noqa: PT012
        for task, _ in pool.map(tasks_with_a_lost_interrupt()):
            finished.append(task)
    assert len(finished) < 10
    assert signal.getsignal(signal.SIGINT) is before

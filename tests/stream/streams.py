"""Builders shared by the tests of this room."""

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.spec import StreamSpec


def event(version, step, weights):
    return Event(version, step, DomainWeights.normalised(weights), "test", "", "2026-01-01T00:00:00+00:00", 0)


def planner(sizes, weights, batch=8, seed=0, events=(), **spec):
    return MixturePlanner(StreamSpec(seed, batch, sizes, **spec), [event(0, 0, weights), *events])


def samples(plan, names):
    """Return [(domain, epoch, window), ...] in slot order."""
    rows = zip(plan.domains.tolist(), plan.epochs.tolist(), plan.windows.tolist(), strict=True)
    return [(names[domain], epoch, window) for domain, epoch, window in rows]


def run(a_planner, steps):
    return [samples(a_planner.plan(), a_planner.names) for _ in range(steps)]

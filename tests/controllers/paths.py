"""Predictors and runs of the planner for tests of controllers; the planned path, computed on its own."""

import numpy as np

from autoscale_ds.controllers import Adviser, StepLosses
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.predictor import AutoScalePath
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.spec import StreamSpec


def random_path(rng, m, budget, evenness):
    """An AutoScale path between two random mixtures, its scales somewhere below the budget."""
    names = [f"domain{i:02d}" for i in range(m)]
    first = budget * rng.uniform(0.05, 0.5)
    shares = [np.maximum(rng.dirichlet(np.full(m, evenness)), 1e-5) for _ in range(2)]
    optima = [DomainWeights.normalised(dict(zip(names, share, strict=True))) for share in shares]
    return AutoScalePath([(first, optima[0]), (first * rng.uniform(1.5, 4), optima[1])], 0.0)


def nearest(point, floors):
    """The point nearest to ``point`` above ``floors`` with the same sum, by bisection on the shift."""
    low, high = -point.sum(), point.sum()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if np.maximum(point - middle, floors).sum() < point.sum() else (middle, high)
    return np.maximum(point - low, floors)


def planned_path(predictor, names, knots, tokens_per_step):
    """Tokens (steps + 1, m) before each step: straight lines through the nearest reachable points to N*."""
    points = [np.zeros(len(names))]
    for knot in knots[1:]:
        weights = predictor.predict(knot * tokens_per_step)
        points.append(nearest(knot * tokens_per_step * np.array([weights[name] for name in names]), points[-1]))
    steps = np.arange(knots[-1] + 1)
    return np.stack([np.interp(steps, knots, column) for column in np.array(points).T], axis=1)


class Moving:
    """A predictor whose mixture moves in a straight line in tokens, so that every interval differs."""

    domains = ("a", "b", "c")

    def __init__(self, budget):
        self.budget = budget

    def predict(self, tokens):
        share = 0.1 + 0.4 * tokens / self.budget.tokens
        return DomainWeights({"a": share, "b": 0.3, "c": 0.7 - share})


class Run:
    """The real planner, journal and adviser, without a model: one step after another."""

    def __init__(self, folder, controller, budget, names, batch, ahead=0, seed=0, validation=list, **options):
        self.journal, self.controller, self.budget = Journal(folder / "journal.jsonl"), controller, budget
        if not self.journal.events:
            first = controller.initial()
            self.journal.append(Event(0, 0, first.weights, f"controller:{controller.name}", first.reason, "", 0))
        self.planner = MixturePlanner(StreamSpec(seed, batch, dict.fromkeys(names, 10**6)), self.journal.events)
        self.records, self.ahead = [], ahead
        options = {"validation": validation, "record": self.record, **options}
        self.adviser = Adviser(controller, budget, self.planner, self.journal, **options)

    def record(self, kind, figures):
        self.records.append((kind, figures))

    def steps(self, until):
        """Yield the running counts after each step, asking the controller after each as the trainer does."""
        counts = np.zeros(len(self.planner.names))
        while self.planner.next_step < until:
            plans = [self.planner.plan() for _ in range(1 + (self.ahead if not self.planner.next_step else 0))]
            self.adviser.observe(self.losses(plans[0]))
            self.take_up()
            for plan in plans:
                counts = counts + np.bincount(plan.domains, minlength=len(counts))
                yield counts

    def losses(self, plan):
        """Losses of a step as the trainer reports them: one nat a sample."""
        counts = np.bincount(plan.domains, minlength=len(self.planner.names)).tolist()
        by_name = dict(zip(self.planner.names, counts, strict=True))
        return StepLosses(plan.step, {name: float(count) for name, count in by_name.items()}, by_name)

    def take_up(self):
        suggestion = self.adviser.ask() if self.adviser.due() else None
        if suggestion is not None:
            self.accept(suggestion.weights, self.adviser.source, suggestion.reason)

    def accept(self, weights, source, reason=""):
        step = self.planner.next_step
        event = Event(len(self.journal.events), step, weights, source, reason, "", step * self.budget.tokens_per_step)
        self.journal.append(event)
        self.planner.add_event(event)


__all__ = ["Run", "nearest", "planned_path", "random_path"]

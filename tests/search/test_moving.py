"""`autoscale --decide` where the truth is known: optima that drift with tokens, and optima that stay."""

import numpy as np
import pytest
from scipy.optimize import minimize
from synthetic import mixtures

from autoscale_ds.laws import selection
from autoscale_ds.mixture import DomainWeights, Objective, RunTable
from autoscale_ds.search import moving
from autoscale_ds.search.solver import Goal

DOMAINS = ("books", "code", "papers", "web")
SCALE = np.array([0.9, 1.4, 0.7, 1.1])
TOKENS = (0.5e9, 1e9, 2e9, 4e9)
BUDGET = 64e9
STEEP = np.array([0.15, 0.6, 0.2, 0.35])  # what is learned fast needs a smaller share the longer one trains
EQUAL = np.full(4, 0.3)


def losses(weights, tokens, exponents):
    """Loss of every domain, (n, 4): 1.5 + B_i (own tokens / 1e9)^-b_i, with .02 B tokens' worth from elsewhere."""
    seen = weights * np.asarray(tokens)[:, None] / 1e9
    return 1.5 + SCALE * (seen + 0.02) ** -exponents


def mean_loss(weights, tokens, exponents):
    return float(losses(np.asarray(weights)[None], [tokens], exponents).mean())


def optimum(tokens, exponents):
    """The best mixture at a budget, by SLSQP on the closed form."""
    best = minimize(
        mean_loss,
        np.full(4, 0.25),
        (tokens, exponents),
        "SLSQP",
        bounds=[(1e-4, 1.0)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    return DomainWeights.normalised(dict(zip(DOMAINS, best.x, strict=True)))


def table(exponents, runs=24, noise=0.004, seed=0):
    """Every mixture at every token count; checkpoints of a run share most of their noise."""
    rng = np.random.default_rng(seed)
    weights = np.repeat(mixtures(runs, 4, rng, zeros=0.0), len(TOKENS), axis=0)
    tokens = np.tile(TOKENS, runs)
    shared = np.repeat(rng.normal(size=(runs, 4)), len(TOKENS), axis=0)
    values = losses(weights, tokens, exponents) + noise * (0.9 * shared + 0.4 * rng.normal(size=shared.shape))
    names = tuple(f"r{i}" for i in range(len(tokens)))
    return RunTable(names, DOMAINS, DOMAINS, weights, tokens, np.full(len(tokens), 1e8), values)


def decided(law, exponents):
    known = table(exponents)
    fitted = selection.fit(known, law, draws=16)
    goal = Goal(fitted, Objective.of_kind("mean-loss", known.targets), BUDGET)
    last, target = optimum(TOKENS[-1], exponents), optimum(BUDGET, exponents)
    return last, moving.decide(last, {"optimum": (target, 1.0)}, goal)


def gain(last, weights, exponents):
    before, after = ([mixture[name] for name in DOMAINS] for mixture in (last, weights))
    return mean_loss(before, BUDGET, exponents) - mean_loss(after, BUDGET, exponents)


@pytest.mark.slow
def test_it_moves_where_the_optimum_drifts_and_gains_what_it_says():
    last, move = decided("auto", STEEP)
    assert move.towards == "optimum"
    assert move.share > 0.5
    assert move.probability >= moving.SURE
    best = gain(last, optimum(BUDGET, STEEP), STEEP)  # .0102 nats
    assert gain(last, move.weights, STEEP) > 0.8 * best
    assert move.gain[0] == pytest.approx(best, rel=0.3)


def test_it_loses_nothing_where_the_optimum_stays():
    """With equal exponents and little learned from elsewhere the best shares hardly depend on the budget."""
    last, move = decided("additive", EQUAL)
    assert gain(last, move.weights, EQUAL) > -1e-5

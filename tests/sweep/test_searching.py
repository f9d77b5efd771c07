"""A sweep that says what to train next: on results of a known world, and on real runs whose workers are killed."""

import json
import signal
import time

import numpy as np
import pyarrow.parquet
import pytest
import sweeps
from sweeps import TOKENS_PER_STEP, start_worker, sweep_tool, write_configs

from autoscale_ds.errors import ConfigError, MixtureError
from autoscale_ds.sweep.plan import SweepPlan
from autoscale_ds.sweep.searching import SearchRequest, find_next

STEPS = 40
TOKENS = STEPS * TOKENS_PER_STEP
# Of the world: what each domain is worth to the loss of each.
WORTH = {"web": (1.0, 0.3, 0.1), "code": (0.2, 1.0, 0.1), "books": (0.4, 0.1, 1.0)}


def loss_of(weights, tokens):
    """Losses of a known world whose best mixture is in the middle of the simplex."""
    parts = np.array([weights[name] for name in WORTH])
    return {
        name: 1.5 + (1 + (1e4 / tokens) ** 0.4) * float((np.array(worth) * parts**0.5).sum() ** -0.5)
        for name, worth in WORTH.items()
    }


def answer(sweep, only=None):
    sweeps.answer(sweep, loss_of, only=only)


def planned(tmp_path, corpus, *options):
    config, ds = write_configs(tmp_path / "config", corpus)
    first = ["--kind", "d-optimal", "--runs", 7, "--tokens", TOKENS, "--target-tokens", 20 * TOKENS]
    sweep_tool("plan", tmp_path / "s", "--config", config, "--deepspeed_config", ds, *(options or first))
    return tmp_path / "s"


def mean_loss(weights):
    return np.mean(list(loss_of(weights, 20 * TOKENS).values()))


def test_a_search_ends_near_the_best_mixture_of_a_known_world_and_says_so(tmp_path, small_corpus):
    sweep = planned(tmp_path, small_corpus)
    answer(sweep)
    for _ in range(8):
        found = find_next(SearchRequest(sweep, runs=3))
        assert found.advice.worth == [] or found.advice.worth[0] >= 0
        if not found.added:
            break
        found.plan.write(sweep)
        answer(sweep)
    assert "less than the noise of one run" in found.over
    grid = np.random.default_rng(0).dirichlet(np.ones(3), 3000)
    best = min(mean_loss(dict(zip(WORTH, point, strict=True))) for point in grid)
    assert mean_loss(found.advice.best) - best < found.advice.noise
    assert len(SweepPlan.read(sweep).runs) <= 19


def test_runs_without_a_result_count_as_made(tmp_path, small_corpus):
    sweep = planned(tmp_path, small_corpus)
    answer(sweep)
    first = find_next(SearchRequest(sweep, runs=2))
    first.plan.write(sweep)
    again = find_next(SearchRequest(sweep, runs=2))
    assert again.pending == 2
    mixtures = [run.weights for run in (*first.added, *again.added)]
    assert len(set(mixtures)) == len(mixtures)
    assert [run.run.split("/")[1] for run in again.added] == ["next003@0", "next004@0"][: len(again.added)]


def test_what_cannot_be_searched_is_refused_in_one_line(tmp_path, small_corpus):
    sweep = planned(tmp_path, small_corpus)
    with pytest.raises(ConfigError, match="has finished; start workers"):
        find_next(SearchRequest(sweep))
    answer(sweep, only=4)
    with pytest.raises(MixtureError, match="5 runs, the targets have 4; add runs"):
        find_next(SearchRequest(sweep))
    answer(sweep)
    with pytest.raises(ConfigError, match=r"70\.\d+k tokens are planned|71\.68k tokens are planned"):
        find_next(SearchRequest(sweep, max_share=0.36))
    with pytest.raises(ConfigError, match="budget_tokens"):
        find_next(SearchRequest(sweep, stop_share=0, tokens=[100.0]))
    targets = tmp_path / "targets.json"
    targets.write_text('{"novels": 1}')
    with pytest.raises(MixtureError, match="novels"):
        find_next(SearchRequest(sweep, objective=str(targets)))


@pytest.mark.job
def test_a_search_whose_workers_are_killed_goes_the_way_of_an_undisturbed_one(tmp_path, small_corpus):
    def searched(name, work):
        sweep = planned(tmp_path / name, small_corpus)
        work(sweep)
        said = json.loads(sweep_tool("next", sweep, "--runs", 2, "--stop-share", 0, "--json").stdout)
        assert len(said["added"]) == 2
        work(sweep)
        sweep_tool("collect", sweep)
        return pyarrow.parquet.read_table(sweep / "runs.parquet").to_pylist()

    def undisturbed(sweep):
        sweep_tool("work", sweep, "--quiet")

    def killed(sweep):
        worker = start_worker(sweep, tmp_path / "log")
        before = len(list(sweep.glob("runs/*/result.json")))
        deadline = time.monotonic() + 200
        while len(list(sweep.glob("runs/*/result.json"))) == before:
            assert time.monotonic() < deadline, "the worker does not get on"
            time.sleep(0.02)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        undisturbed(sweep)

    assert searched("killed", killed) == searched("quiet", undisturbed)

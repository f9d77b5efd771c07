"""Sweeps over a corpus that grew: unchanged domains keep the proportions of an earlier optimum."""

import json
import os

import numpy as np
import pyarrow.parquet
import pytest
from forked import run_forked
from sweeps import ROOT, TOKENS_PER_STEP, answer, sweep_tool, write_configs

from autoscale_ds.mixture import RunTable
from autoscale_ds.sweep.plan import SweepPlan

TOKENS = 40 * TOKENS_PER_STEP
OLD = {"web": 9000, "code": 5000, "books": 2000}
# The old optimum of web, code and books, with a domain of weight 0 that the new corpus lacks.
OPTIMUM = {"web": 0.45, "code": 0.36, "books": 0.09, "spam": 0.1}
SHARES = {"web": 0.5, "code": 0.4, "books": 0.1}
TARGET = 0.3  # best weight of news in the world of these tests


def losses_of(weights, tokens):
    """Of a known world: the further from the best mixture, the higher."""
    best = {name: (1 - TARGET) * share for name, share in SHARES.items()} | {"news": TARGET}
    away = sum((weights[name] - w) ** 2 for name, w in best.items())
    return {name: 3 + away + 0.1 * weights[name] for name in best}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory, corpus_of):
    """The sweep over the old corpus, and one over the new that reuses it, with results."""
    folder = tmp_path_factory.mktemp("reuse")
    (folder / "optimum.json").write_text(json.dumps(OPTIMUM))
    old, new = corpus_of(OLD | {"spam": 3000}), corpus_of(OLD | {"news": 4000})
    plan(folder, "old", old, "--mixture", "uniform")
    first = ["--kind", "d-optimal", "--runs", 6, "--target-tokens", 20 * TOKENS]
    plan(folder, "new", new, *first, *reuse(folder))
    answer(folder / "new", losses_of)
    sweep_tool("collect", folder / "new")
    return folder, old, new


def plan(folder, name, corpus, *options, code=0):
    config, ds = write_configs(folder / f"config-{name}", corpus)
    shared = ["--config", config, "--deepspeed_config", ds, "--tokens", TOKENS]
    return sweep_tool("plan", folder / name, *shared, *options, code=code)


def reuse(folder, sweep="old", weights="optimum.json"):
    return ["--reuse", folder / sweep, "--reuse-weights", folder / weights]


def proportions(weights):
    total = sum(weights[name] for name in SHARES)
    return {name: weights[name] / total for name in SHARES} if total > 1e-9 else SHARES


def test_runs_keep_the_proportions_and_the_table_has_them_as_one(sweeps):
    folder, _, _ = sweeps
    runs = SweepPlan.read(folder / "new").runs
    assert len(runs) == 6
    assert len({run.weights["news"] for run in runs}) > 2
    for run in runs:
        assert proportions(run.weights) == pytest.approx(SHARES)
    table = RunTable.read(folder / "new" / "runs.parquet")
    assert table.domains == ("reused", "news")
    assert dict(table.bundle.shares) == pytest.approx(SHARES)
    # Read evenly by its shares, the first part to be through its text is web: 1e6 / 0.5.
    assert np.unique(table.unique, axis=0).tolist() == [[2e6, 1e6]]


def test_a_search_goes_on_in_the_kept_proportions(sweeps):
    folder, _, _ = sweeps
    said = json.loads(sweep_tool("next", folder / "new", "--runs", 2, "--dry-run", "--json").stdout)
    assert set(said["best"]) == {"reused", "news"}
    for run in said["added"]:
        assert proportions(run["weights"]) == pytest.approx(SHARES)
        assert "news" in run["weights"]


def test_weights_that_are_written_name_every_domain(sweeps, tmp_path):
    folder, _, new = sweeps
    tool("fit", folder / "new" / "runs.parquet", "--law", "exposure", "--out", tmp_path / "law.json")
    asked = [tmp_path / "law.json", "--tokens", 20 * TOKENS, "--out", tmp_path / "weights.json"]
    tool("optimize", *asked, "--corpus", new, "--max-epochs", 20)
    weights = json.loads((tmp_path / "weights.json").read_text())["weights"]
    assert set(weights) == {*SHARES, "news"}
    assert proportions(weights) == pytest.approx(SHARES)
    predicted = json.loads(tool("predict", asked[0], tmp_path / "weights.json", "--json").stdout)
    assert "weights" in predicted["mixtures"]
    (tmp_path / "kept.json").write_text(json.dumps({name: 0.9 * s for name, s in SHARES.items()} | {"news": 0.1}))
    told = json.loads(tool("decide", *asked, "--against", tmp_path / "kept.json", "--json").stdout)
    assert told["against"]["weights"] == pytest.approx({"reused": 0.9, "news": 0.1})
    assert set(json.loads((tmp_path / "weights.json").read_text())["weights"]) == {*SHARES, "news"}
    (tmp_path / "other.json").write_text(json.dumps({"web": 0.2, "code": 0.3, "books": 0.4, "news": 0.1}))
    refused = tool("decide", *asked, "--against", tmp_path / "other.json", code=2)
    assert "'web' is 0.222 of the domains that are reused as one, expected its 0.500" in refused.stderr


def test_what_cannot_be_reused_is_refused_in_one_line(sweeps, tmp_path, corpus_of):
    folder, old, new = sweeps
    alone = plan(tmp_path, "s", new, "--reuse", folder / "old", code=2).stderr
    assert "--reuse needs --reuse-weights too" in alone
    same = plan(tmp_path, "s", old, *reuse(folder), code=2).stderr
    assert "every domain" in same
    assert "nothing to plan for" in same
    other = plan(tmp_path, "s", corpus_of({"web": 9000, "code": 6000}), *reuse(folder), code=2).stderr
    assert "web is unchanged" in other
    assert "at least 2" in other
    (tmp_path / "few.json").write_text('{"web": 0.5, "code": 0.5}')
    few = plan(tmp_path, "s", new, *reuse(folder)[:3], tmp_path / "few.json", code=2).stderr
    assert "books" in few
    uniform = plan(tmp_path, "s", new, *reuse(folder), "--mixture", "uniform", code=2).stderr
    assert "'web' is 0.333 of the domains that are reused as one" in uniform


def test_tables_of_other_proportions_are_not_fitted_together(sweeps, tmp_path):
    folder, _, _ = sweeps
    table = pyarrow.parquet.read_table(folder / "new" / "runs.parquet").to_pylist()
    for row in table:
        row |= {"part/reused/web": 0.4, "part/reused/code": 0.5}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "other.parquet")
    both = [folder / "new" / "runs.parquet", tmp_path / "other.parquet"]
    said = tool("fit", *both, "--out", tmp_path / "law.json", code=2).stderr
    assert "do not take the same domains as one in the same proportions; fit them apart" in said


def tool(name, *arguments, code=0):
    """Run a command of tools/fit_mixture.py."""
    command = [str(ROOT / "tools/fit_mixture.py"), name, *map(str, arguments)]
    done = run_forked(command, os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
    return done

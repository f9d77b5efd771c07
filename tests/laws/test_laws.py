"""Laws: derivatives, recovery of known parameters, and the figures of RegMix's released runs."""

from dataclasses import replace

import numpy as np
import pytest
from published import RUNS
from synthetic import World

from autoscale_ds.laws import estimation, lawfile, table_fits
from autoscale_ds.laws.base import Inputs, Setting
from autoscale_ds.laws.fitting import Fit
from autoscale_ds.laws.registry import LAWS, check_name
from autoscale_ds.laws.score import score, spearman
from autoscale_ds.mixture import RunTable

FORMULAS = [name for name, law in LAWS.items() if law.smooth]

ONE_SCALE = {}
MANY_SCALES = {"tokens": (1e9, 2e9, 4e9), "sizes": (1e7, 5e7)}


def world(name: str, **changes) -> World:
    return World(
        name,
        **({"m": 5, "targets": 2} | (MANY_SCALES if LAWS[name].needs_tokens else ONE_SCALE) | changes),
    )


@pytest.fixture(scope="module")
def regmix() -> tuple[RunTable, RunTable]:
    return RunTable.read(RUNS / "regmix_1m_train.csv"), RunTable.read(RUNS / "regmix_1m_test.csv")


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_agree_with_finite_differences(name):
    rng = np.random.default_rng(0)
    setting = Setting(tuple("abcd"), 1, 1.0, 1.0, True, True)
    weights = rng.dirichlet(np.ones(4), 12) * 0.9 + 0.02
    x = Inputs(weights, rng.normal(size=12), rng.normal(size=12), passes=rng.uniform(0.5, 30, (12, 4)))
    law = LAWS[name]
    layout = law.parameters(setting, np.array([2.0, 3.0, 2.5]))
    problem = estimation.problem(lambda p: law.evaluate(p, x, setting), layout, np.zeros(12), 4)
    theta = problem.centre + 0.1 * rng.normal(size=len(problem.centre))
    h = 1e-6
    by_theta = [
        (problem.model(theta + h * e)[0] - problem.model(theta - h * e)[0]) / (2 * h) for e in np.eye(len(theta))
    ]
    np.testing.assert_allclose(problem.model(theta)[1], np.stack(by_theta, 1), rtol=1e-5, atol=1e-6)

    fit = Fit(law, setting, layout, theta, 0.0, theta[None])
    moved = [replace(x, weights=x.weights + s * h * e) for e in np.eye(4) for s in (1, -1)]
    by_weight = [
        (fit.predict(up) - fit.predict(down)) / (2 * h) for up, down in zip(moved[::2], moved[1::2], strict=True)
    ]
    np.testing.assert_allclose(fit.slope(x), np.stack(by_weight, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_law_predicts_new_mixtures_of_its_own_world_within_the_noise(name):
    truth = world(name, seed=3)
    fitted = table_fits.fit_law(truth.table(200, noise=0.005, missing=0.1), name, draws=0)
    assert score(fitted, truth.table(200, noise=0.0, seed=7))["mean"]["mae"] < 0.005


@pytest.mark.parametrize("name", FORMULAS)
def test_known_parameters_are_recovered(name):
    """Up to what no data can tell: a factor of all k that the amplitude takes up, a shift of all t that c or k does."""
    scales = {"tokens": (1e9, 4e9, 16e9, 64e9), "sizes": (1e7, 1e8, 1e9)}
    truth = world(name, m=4, targets=1, seed=2, **(scales if LAWS[name].needs_tokens else {}))
    fitted = table_fits.fit_law(truth.table(800, noise=1e-4, zeros=0.3), name, draws=0)
    fit = next(iter(fitted.targets.values()))
    found, known = canonical(fit.natural, name), canonical(truth.parameters[0], name)
    assert found.keys() == known.keys()
    for parameter, value in known.items():
        np.testing.assert_allclose(found[parameter], value, rtol=0.05, atol=1e-4, err_msg=parameter)


def canonical(p, name):
    """Fix the factor and the shift: k with geometric mean 1, t with mean 0."""
    p = {parameter: np.array(value, float) for parameter, value in p.items()}
    if "t" in p:
        shift = p["t"].mean()
        p["t"] -= shift
        p |= {"c": p["c"] + shift} if name == "linear" else {"k": p["k"] * np.exp(shift)}
    if p.get("k", np.zeros(())).ndim:
        factor = np.exp(np.log(p["k"]).mean())
        p["k"] /= factor
        amplitude = "C" if "C" in p else "B"
        p[amplitude] = p[amplitude] * factor ** -p["b"]
    if "d" in p:  # gamma and d are known by what they make of each domain
        p["gamma"] = 1 / (1 + (1 / p["gamma"] - 1) * np.exp(-p.pop("d")))
    return p


def test_one_wild_run_hardly_moves_the_law():
    truth = World("exposure", m=5, targets=1, seed=4)
    table, new = truth.table(100), truth.table(100, noise=0.0, seed=8)
    clean = score(table_fits.fit_law(table, "exposure", draws=0), new)["mean"]["mae"]
    table.losses[3] += 3.0
    assert score(table_fits.fit_law(table, "exposure", draws=0), new)["mean"]["mae"] < clean + 0.002


def test_weights_of_exactly_zero_and_a_domain_never_used_are_no_trouble():
    truth = World("exposure", m=5, targets=2, seed=4)
    table = truth.table(80, zeros=0.6)
    fitted = table_fits.fit_law(table, "exposure", draws=4)
    corners = fitted.inputs(np.eye(5), 1e9)
    assert np.isfinite(fitted.predict(corners)).all()
    assert np.isfinite(fitted.slope(corners)).all()


def test_the_same_seed_gives_the_same_law():
    table = World("exposure", seed=1).table(60)
    first, second = (lawfile.encode(table_fits.fit_law(table, "exposure", seed=5, draws=3)) for _ in range(2))
    assert first == second


def test_64_runs_order_the_released_test_mixtures(regmix):
    train, test = regmix
    rng = np.random.default_rng(0)
    subsets = [np.arange(64), *(rng.choice(512, 64, replace=False) for _ in range(4))]
    rho = [
        score(table_fits.fit_law(train.take(rows), "exposure", draws=0), test)["mean"]["spearman"] for rows in subsets
    ]
    assert rho[0] >= 0.980
    assert np.mean(rho[1:]) >= 0.980


def test_512_runs_order_the_released_test_mixtures(regmix):
    train, test = regmix
    assert score(table_fits.fit_law(train, "exposure", draws=0), test)["mean"]["spearman"] >= 0.991


def mean_over_subsets(name: str, runs: int, regmix) -> float:
    """The figures for fewer than 512 runs are means over random subsets."""
    train, test = regmix
    rng = np.random.default_rng(1)
    subsets = [rng.choice(512, runs, replace=False) for _ in range(4 if runs < 512 else 1)]
    fits = [table_fits.fit_law(train.take(rows), name, draws=0) for rows in subsets]
    return float(np.mean([score(fitted, test)["mean"]["spearman"] for fitted in fits]))


@pytest.mark.parametrize(("runs", "figure"), [(64, 0.932), (128, 0.961), (512, 0.973)])
def test_data_mixing_laws_reach_their_figure(regmix, runs, figure):
    assert mean_over_subsets("data-mixing", runs, regmix) == pytest.approx(figure, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "figure"), [(64, 0.960), (128, 0.976), (512, 0.990)])
def test_regmix_reaches_its_figure(regmix, runs, figure):
    pytest.importorskip("lightgbm", reason="LightGBM is an extra: pip install 'autoscale_ds[laws]'")
    assert mean_over_subsets("regmix", runs, regmix) == pytest.approx(figure, abs=0.01)


@pytest.mark.parametrize("name", ["exposure", "additive", "bimix", "regmix"])
def test_a_law_predicts_the_same_after_writing_and_reading(name, tmp_path):
    if name == "regmix":
        pytest.importorskip("lightgbm", reason="LightGBM is an extra: pip install 'autoscale_ds[laws]'")
    truth = World("exposure", m=4, targets=2, **MANY_SCALES)
    table = truth.table(80)
    fitted = table_fits.fit_law(table, name, draws=3)
    lawfile.save(fitted, tmp_path / "law.json")
    again = lawfile.load(tmp_path / "law.json")
    x = fitted.inputs(table.weights, table.tokens, table.parameters)
    np.testing.assert_allclose(again.predict(x), fitted.predict(x), rtol=1e-12)
    for one, two in zip(again.intervals(x), fitted.intervals(x), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)


def test_laws_answer_to_their_other_names():
    assert check_name("Effective_Exposure") == "exposure"
    assert check_name("lightgbm") == "regmix"


def test_spearman_agrees_with_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 40).astype(float), rng.normal(size=40)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(np.ones(4), b[:4]) is None

"""Probe designs and rank stability."""

import json

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.stability import stability
from autoscale_ds.mixture import DomainWeights, Objective, RunTable
from autoscale_ds.search import DDO
from autoscale_ds.search.ddo import Curve
from autoscale_ds.search.design import axis_plan, cost, ddo_plan, dirichlet_plan, write_plan

BASE = DomainWeights({"a": 0.5, "b": 0.3, "c": 0.2})


def test_a_ddo_plan_changes_one_domain_at_a_time():
    runs = ddo_plan(BASE, 1e9, low=0.2, high=3.0)
    assert len(runs) == 2 * 3 + 1
    high_b = next(run for run in runs if run.run == "high/b")
    assert high_b.tokens == pytest.approx(1e9 * (1 + 0.3 * 2))
    assert high_b.weights["b"] * high_b.tokens == pytest.approx(3 * 0.3e9)
    assert high_b.weights["a"] * high_b.tokens == pytest.approx(0.5e9)


def test_a_planned_ddo_is_recognised_and_solved_once_its_losses_are_in():
    curves = {"a": Curve(2.0, 1.2, 0.8), "b": Curve(1.0, 0.8, 0.5), "c": Curve(3.0, 2.0, 0.9)}
    runs = ddo_plan(BASE, 1e9, low=1 / 3, high=3.0)
    at_base = {name: float(curve(1.0)) for name, curve in curves.items()}

    def objective(run):
        # In units of the base run's value: every curve is 1 plus its change.
        return 1 + sum(float(c(run.weights[n] * run.tokens / (BASE[n] * 1e9))) - at_base[n] for n, c in curves.items())

    table = RunTable(
        tuple(run.run for run in runs),
        tuple(BASE),
        ("loss",),
        np.array([[run.weights[name] for name in BASE] for run in runs]),
        np.array([run.tokens for run in runs]),
        np.full(7, np.nan),
        np.array([[objective(run)] for run in runs]),
    )
    solved = DDO.from_table(table, "base", Objective.of_kind("mean-loss", ("loss",))).optimum()
    assert solved.as_dict() == pytest.approx(DDO(BASE, 1e9, curves).optimum().as_dict(), abs=1e-3)


@pytest.mark.parametrize("factors", [(1.0, 3.0), (0.5, 0.9), (-0.1, 3.0)])
def test_factors_on_the_wrong_side_of_one_are_refused(factors):
    with pytest.raises(MixtureError, match="expected 0 <= low < 1 < high"):
        ddo_plan(BASE, 1e9, low=factors[0], high=factors[1])


def test_dirichlet_probes_stay_in_bounds_around_the_prior():
    runs = dirichlet_plan(BASE, 64, 1e9, floor=0.05, caps={"a": 0.6})
    points = np.array([[run.weights[name] for name in BASE] for run in runs])
    assert runs[0].weights.as_dict() == pytest.approx(BASE.as_dict())
    assert points.min() >= 0.05 - 1e-9
    assert points[:, 0].max() <= 0.6 + 1e-9
    assert len({tuple(point) for point in points.round(6)}) == 64
    assert points.mean(0) == pytest.approx(list(BASE.values()), abs=0.08)


def test_axis_runs_move_one_domain_and_keep_the_others_in_proportion():
    for run in axis_plan(BASE, 7, 1e9)[1:]:
        name = run.run.split("/")[1]
        first, second = (other for other in BASE if other != name)
        assert run.weights[name] > BASE[name]
        assert run.weights[first] / run.weights[second] == pytest.approx(BASE[first] / BASE[second])


def test_the_cost_is_told_in_tokens_flops_and_shares():
    found = cost(ddo_plan(BASE, 1e9, parameters=1e8), target_tokens=1e11, target_parameters=1e9)
    # 7 runs of 1e9 tokens; low takes 2/3 of each domain away once, high adds twice: + 4/3 of a run.
    assert found["tokens"] == pytest.approx(1e9 * (7 + 4 / 3))
    assert found["flops"] == pytest.approx(6 * 1e8 * found["tokens"])
    assert found["share_of_target_flops"] == pytest.approx(found["tokens"] * 1e8 / (1e11 * 1e9))


def test_a_plan_is_written_as_json(tmp_path):
    write_plan(tmp_path / "plan.json", ddo_plan(BASE, 1e9), "ddo", {"runs": 7})
    written = json.loads((tmp_path / "plan.json").read_text())
    assert [run["run"] for run in written["runs"]][:2] == ["base", "low/a"]
    assert sum(written["runs"][1]["weights"].values()) == pytest.approx(1)


def test_a_ranking_that_holds_is_called_stable():
    table = World("exposure", m=4, targets=2, tokens=(1e9, 4e9)).table(12, noise=0.0, crossed=True)
    found = stability(table)  # scale is added to this law, so the order cannot change
    assert found["stable"]
    assert found["mean"] == pytest.approx(1.0)
    assert found["pairs"][0]["mixtures"] == 12
    assert found["pairs"][0]["regret"] == 0.0


def test_a_ranking_that_turns_round_is_not():
    table = World("exposure", m=4, targets=1, tokens=(1e9, 4e9)).table(12, noise=0.0, crossed=True)
    large = table.tokens == 4e9
    table.losses[large] = 5.0 - table.losses[large]
    found = stability(table)
    assert not found["stable"]
    assert found["mean"] == pytest.approx(-1.0)
    assert found["pairs"][0]["regret"] > 0


def test_one_scale_says_nothing_about_stability():
    with pytest.raises(MixtureError, match="one scale only"):
        stability(World("exposure", m=4, targets=1).table(12))


def test_scales_without_shared_mixtures_are_refused():
    with pytest.raises(MixtureError, match="share 4 mixtures"):
        stability(World("exposure", m=4, targets=1, tokens=(1e9, 4e9)).table(12))

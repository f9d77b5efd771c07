import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sweep_tables as sweeps
from folders import write_run
from pages import Page, run_tool

from autoscale_ds.errors import AutoScaleError, MixtureError, ReportError
from autoscale_ds.laws import lawfile
from autoscale_ds.laws.stability import _advice
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.mixture.repeats import averaged
from autoscale_ds.report import sweep_law, sweep_page
from autoscale_ds.report.build import build
from autoscale_ds.report.sweep_analysis import fit_path, fit_scale
from autoscale_ds.report.sweep_law import rank_stability
from autoscale_ds.report.sweep_reading import Scale, is_sweep, read_sweep
from autoscale_ds.search import AutoScale
from autoscale_ds.search.predictor import read_predictor, save_optima

sys.path.insert(0, str(Path(__file__).parents[1] / "mixture"))
from synthetic import World

FIGURES = {"effects", "ddo_curves", "optimal_weights", "laws", "rank_stability"}


@pytest.fixture
def no_laws(monkeypatch):
    """Comparing laws and refitting curves takes seconds, and most tests are about something else."""

    def refuse(table, **options):
        raise MixtureError("not compared in this test")

    monkeypatch.setattr(sweep_law.selection, "fit", refuse)
    monkeypatch.setattr(sweep_page, "fit_scale", partial(fit_scale, draws=12))


def test_a_sweep_at_two_scales_is_reported_whole(tmp_path):
    sweep = sweeps.write_sweep(tmp_path / "probe", points=True)
    page = Page(build([sweep])).check()
    assert {path.stem for path in (sweep / "report").glob("*.png")} == FIGURES
    assert "42 of 42 planned" in page.text
    assert page.text.index("Verdict") < page.text.index("Search and its cost")
    assert "against the sweep's base: " in page.text
    assert "expected gain" in page.text
    to_train = {row[0]: float(row[1]) for row in page.rows[:6] if row[0] in sweeps.DOMAINS}  # the first table
    assert sum(to_train.values()) == pytest.approx(1, abs=1e-3)
    assert "42 points before the end of a learning-rate schedule are not used here." in page.text
    assert page.row("keep the last weights")  # a baseline of the comparison of laws
    # 2m + 1 runs at uniform weights: 1 + m low (1 - 2/9) and m high (1 + 2/3) = 1 + 21/9 + 5 budgets of the scale
    tokens = 3 * 5e6 * (1 + 3 * (7 / 9) + 3 * (5 / 3))
    share = 6 * sweeps.PARAMETERS * tokens / (6 * 64e6 * 1e8)
    assert page.row("all")[1:] == ["42", f"{tokens / 1e6:.3g}M", f"{6 * sweeps.PARAMETERS * tokens:.3g}",
                                   f"{100 * tokens / 64e6:.3g} %", f"{100 * share:.3g} %"]  # fmt: skip


def test_ddo_finds_the_known_optimum_at_every_scale_and_autoscale_keeps_it(tmp_path):
    sweep = read_sweep(sweeps.write_sweep(tmp_path / "probe", noise=1e-6))
    fits = [fit_scale(sweep, scale) for scale in sweep.scales]
    for fit in fits:
        assert dict(fit.optimum) == pytest.approx(sweeps.optimum(fit.scale.tokens), abs=2e-3)
        assert all(low <= fit.optimum[name] <= high for name, (low, high) in fit.intervals.items())
    found = fit_path(fits, 0.03)
    exact = AutoScale.fit([(scale, DomainWeights(sweeps.optimum(scale))) for scale in (1e6, 4e6)])
    assert not found.note
    weights, intervals = found.predict(64e6)
    assert dict(weights) == pytest.approx(dict(exact.predict(64e6)), abs=0.01)
    assert all(low <= weights[name] <= high for name, (low, high) in intervals.items())


def test_effects_are_paired_by_seed_and_told_in_standard_errors(tmp_path):
    sweep = read_sweep(sweeps.write_sweep(tmp_path / "probe", noise=1e-3, extra_seeds=(3, 4)))
    fit = fit_scale(sweep, sweep.scales[0])
    assert fit.base.name == "1M/base"
    assert len(fit.base.values) == 5
    assert [(e.domain, round(e.factor, 3)) for e in fit.effects[:2]] == [("books", 0.333), ("books", 3.0)]
    change = sweeps.losses(np.array([3.0, 1.0, 1.0]), 1e6).mean() - sweeps.BASE_LOSS[1e6]
    assert fit.effects[1].change == pytest.approx(change, abs=3e-3)
    # A difference of two runs has sqrt(2) of their own noise; the ten times larger noise they share cancels.
    assert fit.effects[1].error == pytest.approx(1e-3 * math.sqrt(2 / 3), rel=0.6)
    assert fit.effects[1].ratio == pytest.approx(abs(fit.effects[1].change) / fit.effects[1].error)
    assert fit.noise > 3e-3


def test_effects_within_the_noise_leave_no_optimum_and_say_so(tmp_path, no_laws):
    sweep = sweeps.write_sweep(tmp_path / "probe", noise=1.0)
    page = Page(build([sweep])).check()
    assert "No optimum: " in page.text
    assert "No AutoScale path: " in page.text


def test_a_sweep_without_repeats_or_target_has_no_intervals(tmp_path, no_laws):
    folder = sweeps.write_sweep(tmp_path / "probe", seeds=(0,), target=None)
    sweep = read_sweep(folder)
    fit = fit_scale(sweep, sweep.scales[0])
    assert (fit.noise, fit.intervals, fit.effects[0].half) == (None, {}, None)
    assert sweep.target is None
    page = Page(build([folder])).check()
    assert "unknown: the base has one seed" in page.text
    assert "No law: not compared in this test." in page.text


def test_a_best_mixture_that_is_the_same_at_every_scale_is_not_called_changed():
    pair = {"same_best": 1.0, "regret": 0.0}
    assert _advice(0.6, [pair]).startswith("the best mixture is the same at every scale, so keeping it loses nothing")
    assert _advice(0.6, [pair, {"same_best": 0.5, "regret": 0.01}]).startswith("the order of mixtures changes")


def test_the_ranking_of_mixtures_is_compared_between_scales_of_base_runs(tmp_path):
    found, _ = rank_stability(read_sweep(sweeps.write_sweep(tmp_path / "two", noise=1e-6)))
    assert found["pairs"][0]["mixtures"] == 7
    assert (found["pairs"][0]["from"]["tokens"], found["pairs"][0]["to"]["tokens"]) == (1e6, 4e6)
    found, reason = rank_stability(read_sweep(sweeps.write_sweep(tmp_path / "one", scales=(1e6,))))
    assert found is None
    assert "one scale only" in reason


def test_fits_beside_the_sweep_are_shown(tmp_path, no_laws):
    folder = sweeps.write_sweep(tmp_path / "probe")
    table = averaged(read_sweep(folder).runs())
    lawfile.save(fit_law(table, "additive", draws=4), folder / "law.json")
    weights = DomainWeights({"books": 0.21, "code": 0.31, "web": 0.48})
    WeightsFile(weights, 64e6, "test", {"books": (0.2, 0.22)}).write(folder / "autoscale.json")
    page = Page(build([folder])).check()
    assert "The law is additive (law.json beside the sweep)." in page.text
    assert "there is no comparison on held-out runs" in page.text
    assert "autoscale.json at 64M tokens" in page.text
    assert "0.2100 [0.200, 0.220]" in [cell for row in page.rows for cell in row]
    assert "law at 64M tokens" in page.text


def test_the_path_that_fit_mixture_saves_beside_a_sweep_is_shown_at_its_target(tmp_path, no_laws):
    folder = sweeps.write_sweep(tmp_path / "probe")
    small = DomainWeights({"books": 0.2, "code": 0.3, "web": 0.5})
    large = DomainWeights({"books": 0.1, "code": 0.3, "web": 0.6})
    save_optima(folder / "autoscale.json", [(1e6, small), (4e6, large)], 0.0)
    page = Page(build([folder])).check()
    assert "autoscale.json at 64M tokens" in page.text
    expected = read_predictor(folder / "autoscale.json", budget_tokens=64e6).predict(64e6)
    assert f"{expected['web']:.4f}" in [cell for row in page.rows for cell in row]


def test_a_plain_run_table_is_reported_with_what_it_has(tmp_path, no_laws):
    sweep = read_sweep(sweeps.write_sweep(tmp_path / "probe"))
    averaged(sweep.runs(Scale(1e6, sweeps.PARAMETERS))).write(tmp_path / "runs.csv")
    text = (tmp_path / "runs.csv").read_text().replace("1M/", "")
    (tmp_path / "runs.csv").write_text(text)
    plain = read_sweep(tmp_path / "runs.csv")
    # Perturbations are recognised by their tokens, and belong to the scale of their base.
    assert plain.scales == [Scale(1e6, sweeps.PARAMETERS)]
    assert fit_scale(plain, plain.scales[0]).optimum is not None
    Page(build([tmp_path / "runs.csv"], tmp_path / "out")).check()
    (tmp_path / "few.csv").write_text("run,tokens,weight/a,weight/b,loss/a\nx,1e6,0.5,0.5,3\ny,1e6,0.2,0.8,3.1\n")
    page = Page(build([tmp_path / "few.csv"], tmp_path / "few"))
    assert "No run changes the tokens of one domain only" in page.text
    assert page.row("all")[1:3] == ["2", "2M"]


def test_targets_not_measured_everywhere_are_left_out_and_named(tmp_path):
    (tmp_path / "t.csv").write_text(
        "run,tokens,weight/a,weight/b,loss/a,loss/b\nx,1e6,0.5,0.5,3,\ny,1e6,0.2,0.8,3.1,2\n"
    )
    sweep = read_sweep(tmp_path / "t.csv")
    assert sweep.targets == ("a",)
    assert sweep.notes == ("Targets not measured in every run are left out: b.",)


def test_sweeps_and_runs_share_a_page(tmp_path, no_laws):
    first, second = sweeps.write_sweep(tmp_path / "probe"), sweeps.write_sweep(tmp_path / "other")
    page = Page(build([first, write_run(tmp_path / "run"), second], tmp_path / "out")).check()
    assert (tmp_path / "out" / "sweep1_effects.png").exists()
    assert (tmp_path / "out" / "weights.png").exists()
    assert "Sweep probe: Laws" in page.text
    assert "Sweep other: Laws" in page.text


def test_a_sweep_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    sweep = sweeps.write_sweep(tmp_path / "probe")
    (sweep / "runs.parquet").unlink()
    failed = run_tool(sweep)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert "collect what is finished with: launch/sweep.py collect" in failed.stderr
    (tmp_path / "bad.csv").write_text("run,tokens\nx,1\n")
    with pytest.raises(AutoScaleError, match="weight/<domain>"):
        build([tmp_path / "bad.csv"], tmp_path / "out")
    (tmp_path / "none.csv").write_text("run,tokens,weight/a,weight/b,loss/a,loss/b\nx,1,1,0,3,\ny,1,0,1,,3\n")
    with pytest.raises(ReportError, match="no target was measured in every run"):
        build([tmp_path / "none.csv"], tmp_path / "out")


def test_a_folder_of_another_plan_is_no_sweep(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"kind": "ddo", "runs": []}))
    assert not is_sweep(tmp_path)
    assert not is_sweep(tmp_path / "missing")


def test_a_law_of_repetition_is_asked_about_the_text_that_runs_of_a_scale_draw_from(tmp_path):
    world = World("exposure-repetition", m=3, targets=1, seed=4)
    world.table(20).write(tmp_path / "runs.csv")
    sweep = read_sweep(tmp_path / "runs.csv")
    (scale,) = sweep.scales
    target = replace(scale, tokens=8 * scale.tokens)
    own = dict(zip(world.domains, world.unique, strict=True))
    assert sweep.unique_tokens(scale) == sweep.unique_tokens(target) == pytest.approx(own)
    matched = replace(sweep, match_repetition=target.tokens)
    assert matched.unique_tokens(target) == pytest.approx({name: 8 * tokens for name, tokens in own.items()})
    fitted = fit_law(world.table(20), "exposure-repetition", draws=2)
    law = sweep_law.fit_law(replace(sweep, law=fitted), DomainWeights.uniform(list(world.domains)))
    assert set(law.optima) == {scale}

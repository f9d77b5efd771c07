"""Learning speed: hand-made curves, survival by hand, public curves against plain csv and numpy, bad input."""

import csv
import gzip
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoscale_ds.errors import CurveError
from autoscale_ds.speed.crossing import BEFORE, CROSSED, NEVER, area, crossing, transition
from autoscale_ds.speed.curve import Curve, mean_of, select
from autoscale_ds.speed.curvefile import read_curves
from autoscale_ds.speed.measure import Settings, measure
from autoscale_ds.speed.order import BREAKS, HOLDS, UNDECIDED, agreement
from autoscale_ds.speed.survival import kaplan_meier, log_rank
from autoscale_ds.speed.threshold import Threshold

ROOT = Path(__file__).parents[2]
CURVES = ROOT.parent / "shared" / "data" / "curves"
PYTHIA, OLMO = CURVES / "pythia_zero_shot.csv.gz", CURVES / "olmo_ladder.csv.gz"
needs_curves = pytest.mark.skipif(not CURVES.is_dir(), reason="no public curves here (../shared/data/curves)")


def curve(values, tokens=(1, 10, 100, 1000), run="r", series="s"):
    return Curve(run, series, "acc", {"tokens": np.array(tokens, float)}, np.array(values, float))


def test_a_time_is_interpolated_in_log_tokens_with_its_interval():
    its = crossing(curve([0, 0, 1, 1]), 0.5)
    assert its.state == CROSSED
    assert its.at["tokens"] == pytest.approx(10**1.5)
    assert (its.low["tokens"], its.high["tokens"]) == (10, 100)


def test_never_unconfirmed_and_before_are_censored():
    assert crossing(curve([0, 0, 0, 0]), 0.5).at["tokens"] == 1000
    late = crossing(curve([0, 0, 0, 1]), 0.5)
    assert (late.state, late.at["tokens"], late.unconfirmed, late.high) == (NEVER, 100, 1, None)
    early = crossing(curve([1, 1, 1, 1]), 0.5)
    assert (early.state, early.at["tokens"], early.low) == (BEFORE, 1, None)


def test_a_curve_that_falls_again_has_not_stayed():
    assert crossing(curve([0, 1, 0, 1]), 0.5).state == NEVER
    five = curve([0, 1, 1, 0, 1, 1], (1, 10, 100, 1e3, 1e4, 1e5))
    assert crossing(five, 0.5).lost
    assert crossing(five, 0.5, for_good=True).at["tokens"] == pytest.approx(10**3.5)


def test_width_and_area_by_hand():
    its = transition(curve([0, 0, 1, 1]))
    assert its.decades == pytest.approx(0.8)
    assert transition(curve([1, 1, 1, 1])) is None
    assert area(curve([0, 0, 1, 1])) == pytest.approx((0 + 0.5 + 1) / 3)


def test_kaplan_meier_by_hand():
    # 1: 4 of 5 left (.8); 2 censored; 3: of 3, one crosses: .8 * 2/3; 4: of 2, one: .8 * 2/3 * 1/2; 5 censored
    its = kaplan_meier([1, 2, 3, 4, 5], [True, False, True, True, False])
    np.testing.assert_allclose(its.share, [0.8, 0.8 * 2 / 3, 0.8 / 3])
    assert its.median == 4
    greenwood = 1 / 20 + 1 / 6
    half = 1.6448536 * math.sqrt(greenwood) / abs(math.log(its.share[1]))
    assert its.low[1] == pytest.approx(its.share[1] ** math.exp(half), rel=1e-6)
    assert its.high[1] == pytest.approx(its.share[1] ** math.exp(-half), rel=1e-6)
    assert kaplan_meier([5, 6], [False, False]).median == math.inf


def test_log_rank_by_hand():
    # a crosses at 1 and 2; b at 3, and is censored at 4. At 1: 2 of 4 are a's; at 2: 1 of 3; at 3: none of 2
    expected, variance = 1 / 2 + 1 / 3, 1 / 4 + 2 / 9
    its = log_rank([1, 2], [True, True], [3, 4], [True, False])
    assert its.chi2 == pytest.approx((2 - expected) ** 2 / variance)
    assert its.p == pytest.approx(math.erfc(math.sqrt(its.chi2 / 2)))
    assert log_rank([1], [False], [2], [False]) is None


def test_an_order_holds_breaks_or_is_hidden_by_noise():
    names, up = list("abcdefgh"), np.arange(8.0)
    assert agreement(names, up, up).verdict == HOLDS
    assert agreement(names, up, up[::-1]).verdict == BREAKS
    rng = np.random.default_rng(0)
    noise = up + 50 * rng.normal(size=(99, 8)), up[::-1] + 50 * rng.normal(size=(99, 8))
    assert agreement(names, up, up[::-1], noise).verdict == UNDECIDED
    quiet = np.tile(up, (9, 1)), np.tile(up[::-1], (9, 1))
    assert agreement(names, up, up[::-1], quiet).verdict == BREAKS


def test_a_mean_is_over_shared_evaluations_and_equal_series():
    (its,) = mean_of([curve([0, 0, 1, 1]), curve([1, 1, 1], (10, 100, 1000), series="t")], "both")
    assert its.values.tolist() == [0.5, 1, 1]
    assert its.position.tolist() == [10, 100, 1000]
    with pytest.raises(CurveError, match="q has no series 't'"):
        mean_of([curve([0, 1, 1, 1]), curve([0, 1, 1, 1], series="t"), curve([0, 1, 1, 1], run="q")], "both")


def table(folder, *rows):
    path = folder / "curves.csv"
    path.write_text("\n".join(["model,step,tokens,task,metric,value", *rows]) + "\n")
    return path


def tool(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "learning_speed.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_duplicate_checkpoints_are_dropped_or_refused(tmp_path):
    curves, notes = read_curves([table(tmp_path, "m,1,10,t,acc,.1", "m,1,10,t,acc,.1", "m,2,20,t,acc,.3")])
    assert len(curves[0]) == 2
    assert "twice" in notes[0]
    with pytest.raises(CurveError, match="two values at tokens 10"):
        read_curves([table(tmp_path, "m,1,10,t,acc,.1", "m,1,10,t,acc,.2")])


def test_unknown_names_give_the_nearest(tmp_path):
    curves, _ = read_curves([table(tmp_path, "m,1,10,t,acc,.1", "m,2,20,t,acc,.3")])
    with pytest.raises(CurveError, match="no metric 'accc'; the nearest is 'acc'"):
        select(curves, metric="accc")
    with pytest.raises(CurveError, match="has 1 evaluation,"):
        crossing(curve([1], (10,)), 0.5)


def test_the_command_tells_groups_apart_and_says_mistakes_in_one_line(tmp_path):
    rows = []
    for group, when in (("a", 2), ("b", 4)):
        for seed in range(3):
            rows += [f"{group}{seed},{i},{10**i},t,acc,{float(i >= when)}" for i in range(1, 7)]
    path = table(tmp_path, *rows)
    out = tool(
        path, "--threshold", "0.5", "--compare", "a=a*", "--compare", "b=b*", "--json", "--csv", tmp_path / "o.csv"
    )
    groups = json.loads(out.stdout)["groups"]
    assert [g["median"] for g in groups] == pytest.approx([10**1.5, 10**3.5])
    assert groups[1]["chi2"] == pytest.approx(1.5**2 / 0.45)  # at 10^1.5: 3 of 6 cross, expected 1.5, variance .45
    assert (tmp_path / "o.csv").read_text().count("\n") == 1 + 6
    assert ">1M" in tool(path, "--threshold", "2").stdout
    wrong = tool(path, "--threshold", "high")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "'high'" in wrong.stderr


@needs_curves
def test_pythia_times_are_those_of_a_plain_computation():
    wanted = {}
    with gzip.open(PYTHIA, "rt") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "acc":
                point = float(row["tokens"]), float(row["value"]), float(row["stderr"])
                wanted.setdefault((row["model"], row["task"]), []).append(point)
    speeds = measure(select(read_curves([PYTHIA])[0], metric="acc"), Settings(Threshold("errors", 3.0)))
    assert len(speeds) == len(wanted) == 128
    for speed in speeds:
        x, y, error = np.array(sorted(wanted[speed.curve.run, speed.curve.series])).T
        level = y[0] + 3 * np.median(error)
        hits = [i for i in range(len(y) - 1) if y[i] >= level and y[i + 1] >= level]
        if not hits:
            assert speed.crossing.state == NEVER
            continue
        i = hits[0]
        share = (level - y[i - 1]) / (y[i] - y[i - 1])
        logs = np.log(x[i - 1]) * (1 - share) + np.log(x[i]) * share
        assert speed.crossing.at["tokens"] == pytest.approx(np.exp(logs))


@needs_curves
def test_olmo_times_are_those_of_a_plain_computation():
    points = {}
    with gzip.open(OLMO, "rt") as file:
        for row in csv.DictReader(file):
            if row["chinchilla"] == "10" and row["series"].startswith("downstream_bpb/"):
                points.setdefault((row["size"], row["series"]), set()).add((float(row["tokens"]), float(row["value"])))
    curves = select(read_curves([OLMO])[0], series=["downstream_bpb/*"], runs=["*-10"])
    speeds = measure(curves, Settings(Threshold("final", 1.0), reference="190M-10"))
    assert len(speeds) == len(points) == 100
    for speed in speeds:
        size, series = speed.curve.run.removesuffix("-10"), speed.curve.series
        level = np.mean([y for _, y in sorted(points["190M", series])][-2:])
        x, y = np.array(sorted(points[size, series])).T
        hits = [i for i in range(len(y) - 1) if y[i] <= level and y[i + 1] <= level]
        assert bool(hits) == (speed.crossing.state == CROSSED)
        if hits:
            i = hits[0]
            share = (level - y[i - 1]) / (y[i] - y[i - 1])
            assert speed.crossing.at["tokens"] == pytest.approx(x[i - 1] * (x[i] / x[i - 1]) ** share)

"""From a file to the best weights at any budget."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import DOMAINS, FIGURES, optimum
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import lawfile
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, Objective, WeightsFile
from autoscale_ds.mixture.simplex import Bounds, nearest_above
from autoscale_ds.search.predictor import KNOT_RATIO, read_predictor, save_optima
from autoscale_ds.search.solver import Goal, minimum, optimize

HALF = {"a": 0.5, "b": 0.5}


def distance(left, right):
    return sum(abs(left[name] - right[name]) for name in left) / 2


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A law fitted to runs of 1e9 to 8e9 tokens of a world whose best mixture shifts with tokens."""
    truth = World("exposure", m=5, targets=5, seed=3, tokens=(1e9, 2e9, 4e9, 8e9))
    model = fit_law(truth.table(80), "exposure", draws=4)
    path = tmp_path_factory.mktemp("law") / "law.json"
    lawfile.save(model, path)
    return path, model


def best(model, tokens):
    goal = Goal(model, Objective.of_kind("mean-loss", tuple(model.targets)), tokens)
    return minimum(goal, Bounds.of(model.domains))


def test_the_path_of_autoscale_gives_the_released_weights(tmp_path):
    save_optima(tmp_path / "autoscale.json", [(1.2e9, optimum("1.2e9")), (0.3e9, optimum("0.3e9"))], 0.0)
    predictor = read_predictor(tmp_path / "autoscale.json", budget_tokens=1.0)
    assert set(predictor.domains) == set(DOMAINS)
    expected = dict(zip(DOMAINS, FIGURES["autoscale"]["budget_exact_weights"]["10e9"], strict=True))
    assert dict(predictor.predict(10e9)) == pytest.approx(expected, abs=1e-4)


def test_below_its_smallest_scale_a_path_keeps_the_weights_it_has_there(tmp_path):
    save_optima(tmp_path / "autoscale.json", [(0.3e9, optimum("0.3e9")), (1.2e9, optimum("1.2e9"))], 0.0)
    predictor = read_predictor(tmp_path / "autoscale.json", budget_tokens=10e9)
    for tokens in (1.0, 1e6, 0.3e9):
        assert dict(predictor.predict(tokens)) == pytest.approx(dict(optimum("0.3e9")), abs=1e-9)


def test_a_law_is_minimised_exactly_at_the_budget(law):
    path, model = law
    predicted = read_predictor(path, budget_tokens=6e9).predict(6e9)
    goal = Goal(model, Objective.of_kind("mean-loss", tuple(model.targets)), 6e9)
    assert dict(predicted) == pytest.approx(dict(optimize(goal, Bounds.of(model.domains)).weights), abs=1e-9)


def test_between_its_knots_the_weights_are_near_the_minimum(law):
    path, model = law
    predictor = read_predictor(path, budget_tokens=6e9)
    middle = 6e9 / KNOT_RATIO**1.5
    assert distance(predictor.predict(middle), best(model, middle)) < 1e-4
    assert distance(best(model, 6e9), best(model, middle)) > 1e-3


def test_below_its_smallest_runs_a_law_keeps_the_weights_it_has_there(law):
    path, model = law
    predictor = read_predictor(path, budget_tokens=8e9)  # 1e9 is a knot then
    for tokens in (1.0, 1e8, 1e9):
        assert dict(predictor.predict(tokens)) == pytest.approx(dict(best(model, 1e9)), abs=1e-5)


def test_a_budget_asked_for_twice_is_solved_once(law, monkeypatch):
    predictor = read_predictor(law[0], budget_tokens=6e9)
    first = predictor.predict(3e9)
    monkeypatch.setattr("autoscale_ds.search.predictor.minimum", None)
    assert predictor.predict(3e9) == first


def test_weights_are_the_same_at_every_budget(tmp_path):
    WeightsFile(DomainWeights(HALF)).write(tmp_path / "full.json")
    (tmp_path / "bare.json").write_text(json.dumps(HALF))
    for name in ("full.json", "bare.json"):
        predictor = read_predictor(tmp_path / name, budget_tokens=1e9)
        assert predictor.domains == ("a", "b")
        assert predictor.predict(5.0) == predictor.predict(1e12) == DomainWeights(HALF)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "plan", "runs": []}', "predicts no weights .kind 'plan'.; give the autoscale.json of"),
        ("[1, 2]", "predicts no weights"),
        ("{", "is not JSON"),
        ('{"kind": "autoscale", "version": 2}', "version 2, this program reads version 1"),
        ('{"kind": "autoscale", "version": 1, "floor": 0}', "lacks or misnames a field: 'optima'"),
        ('{"kind": "autoscale", "version": 1, "floor": 0, "optima": []}', "needs the optima at two budgets"),
        ('{"a": 0.5, "b": 0.6}', "sum to 1.1"),
        ('{"a": 0.5, "b": 0.5, "a": 0.5}', "file.json: the key 'a' is given twice; leave one out"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(MixtureError, match=message) as raised:
        read_predictor(tmp_path / "file.json", budget_tokens=1e9)
    assert "\n" not in str(raised.value)


@settings(max_examples=200)
@given(
    point=st.lists(st.floats(0, 10), min_size=6, max_size=6),
    floors=st.lists(st.floats(0, 10), min_size=6, max_size=6),
    room=st.floats(0, 20),
)
def test_the_nearest_point_above_floors_satisfies_the_conditions_of_optimality(point, floors, room):
    """Of a projection onto {x >= floors, sum x = total}: x - point is one number where x is above its floor, and at
    least that number where it rests."""
    point, floors = np.array(point), np.array(floors)
    found = nearest_above(point, floors, floors.sum() + room)
    assert found.sum() == pytest.approx(floors.sum() + room, abs=1e-9)
    assert (found >= floors).all()
    free = found > floors + 1e-9
    if free.any():
        shift = (found - point)[free]
        assert np.ptp(shift) < 1e-8
        assert ((found - point)[~free] >= shift.min() - 1e-8).all()

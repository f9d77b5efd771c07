"""law.json: read as it was written, and refused in one line that names the field where it was damaged."""

import json
import math

import numpy as np
import pytest
from synthetic import World

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import lawfile, table_fits, trees


@pytest.fixture(scope="module")
def law():
    """The JSON form of a law."""
    table = World("exposure", m=3, targets=2, tokens=(1e9, 4e9)).table(30)
    fitted = table_fits.fit_law(table, "exposure", starts=1, draws=3)
    largest = dict(zip(table.domains, map(float, table.weights.max(0)), strict=True))
    return lawfile.encode(fitted.with_source(largest_weights=largest))


def changed(law, place, value):
    """Return a copy with one field replaced, or taken out where the value is ``...``."""
    copy = json.loads(json.dumps(law))
    *way, last = place.split("/")
    inner = copy
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if isinstance(inner, list) else last] = value
    return copy


TARGET = "targets/domain0"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("law", "foo", "law is 'foo', expected one of exposure, "),
        ("domains", None, "domains is None, expected a list"),
        ("scales/tokens", 0, "scales.tokens is 0, expected a finite number above 0"),
        ("scales/tokens_vary", ..., "scales.tokens_vary is missing"),
        ("calibration/tokens", "x", "calibration.tokens is 'x', expected a finite number of at least 0"),
        ("calibration/inside", {"domain0": -1}, "calibration.inside.domain0 is -1"),
        ("source", "foo", "source is 'foo', expected an object"),
        ("source/largest_weights/domain1", -1, "source.largest_weights.domain1 is -1"),
        ("targets", {}, "targets is {}, expected an object of 1 or more"),
        (f"{TARGET}/law", "foo", "targets.domain0.law is 'foo', expected one of"),
        (f"{TARGET}/own", "zzz", "targets.domain0.own is 'zzz', expected one of domain0, "),
        (f"{TARGET}/noise", -1, "targets.domain0.noise is -1, expected a finite number of at least 0"),
        (f"{TARGET}/draws", [], r"targets.domain0.draws is \[\], expected a list of 1 or more"),
        (f"{TARGET}/draws/1", "1 2", r"draws\[1\] is '1 2', expected \d+ finite numbers"),
        (f"{TARGET}/draws/1", "nan", r"draws\[1\] is 'nan', expected \d+ finite numbers"),
        (f"{TARGET}/parameters/E", math.nan, "targets.domain0.parameters.E is nan, expected a finite number"),
        (f"{TARGET}/parameters/E", 1e308, r"targets.domain0 predicts a loss of 1e\+308"),
        (f"{TARGET}/parameters/E", ..., "targets.domain0.parameters.E is missing"),
    ],
)
def test_a_damaged_law_names_the_field(law, tmp_path, place, value, message):
    (tmp_path / "law.json").write_text(json.dumps(changed(law, place, value)))
    with pytest.raises(MixtureError, match=f"law.json is damaged: .*{message}.*; fit it again") as error:
        lawfile.load(tmp_path / "law.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["exposure", "additive", "data-mixing", "chinchilla", "bimix", "d-cpt", "regmix"])
def test_a_law_that_was_written_is_read(name, tmp_path):
    if name == "regmix" and not trees.available():
        pytest.skip("LightGBM is an extra: pip install 'autoscale_ds[laws]'")
    table = World("exposure", m=3, targets=1, tokens=(1e9, 4e9), sizes=(1e7, 1e8)).table(40)
    fitted = table_fits.fit_law(table, name, starts=1, draws=2)
    lawfile.save(fitted, tmp_path / "law.json")
    x = fitted.inputs(table.weights, table.tokens, table.parameters)
    np.testing.assert_allclose(lawfile.load(tmp_path / "law.json").predict(x), fitted.predict(x), rtol=1e-9)

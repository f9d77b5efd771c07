from dataclasses import dataclass, field
from typing import Literal

import pytest

from autoscale_ds import config
from autoscale_ds.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)


@dataclass(frozen=True)
class Outer:
    steps: int
    kind: Literal["cosine", "linear"] = "cosine"
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None
    weights: str | dict[str, float] = "uniform"


def load(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return config.load(Outer, path, overrides)


def test_yaml_and_dotted_overrides_become_dataclasses(tmp_path):
    text = "steps: 10\ninner: {learning_rate: 2e-4}\nweights: {web: 1}"
    found = load(tmp_path, text, "inner.betas=[0.9, 0.99]", "limit=5", "steps=1e3")
    assert found == Outer(1000, inner=Inner(2e-4, (0.9, 0.99)), limit=5.0, weights={"web": 1.0})
    assert config.build(Outer, config.to_dict(found)) == found


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("steps: 1\ninner: {learning_rat: 1}", [], r"unknown key inner.learning_rat; did you mean learning_rate\?"),
        ("steps: 1", ["iner.betas=[1]"], r"unknown key iner; did you mean inner\?"),
        ("inner: {}", [], "steps is missing"),
        ("steps: 1.5", [], "steps is 1.5, expected a whole number"),
        ("steps: true", [], "steps is True, expected a whole number"),
        ("steps: 1\nkind: cosin", [], "kind is 'cosin'; did you mean cosine"),
        ("steps: 1\ninner: {learning_rate: fast}", [], "inner.learning_rate is 'fast', expected a number"),
        ("steps: 1\ninner: 3", [], "inner is 3, expected keys and values"),
        ("steps: 1", ["steps"], "not of the form key=value"),
        ("steps: [", [], "not valid YAML"),
        ("- 1", [], "expected keys and values"),
    ],
)
def test_mistakes_are_named_with_what_was_expected(tmp_path, text, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, *overrides)


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        config.load(Outer, tmp_path / "none.yaml")


@dataclass(frozen=True)
class Circle:
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    width: float
    turned: bool = False
    corners: tuple[int, ...] = ()


SHAPES = {"circle": Circle, "box": Box}


@dataclass(frozen=True)
class Drawing:
    name: str
    shape: object = config.tagged(lambda: SHAPES, "circle")


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ({}, Circle()),
        ({"radius": 2}, Circle(2.0)),
        ({"shape": "box", "width": 3, "turned": True}, Box(3.0, True)),
        ({"shape": "circle", "width": None, "turned": False, "corners": []}, Circle()),
    ],
)
def test_a_tag_chooses_the_dataclass_of_the_keys_beside_it(data, shape):
    drawing = config.build(Drawing, {"name": "a", **data})
    assert drawing == Drawing("a", shape)
    assert config.build(Drawing, config.to_dict(drawing)) == drawing
    assert set(config.to_dict(drawing)) == {"name", "shape", *vars(shape)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"width": 3}, "p.width is given, but p.shape is circle; leave it out, or set p.shape=box"),
        ({"shape": "box", "width": 3, "radius": 2}, "p.radius is given, but p.shape is box; .*p.shape=circle"),
        ({"shape": "box"}, "p.shape is box, which needs p.width; give it"),
        ({"shape": "bx"}, "p.shape is 'bx'; did you mean box.; expected one of circle, box"),
        ({"shape": ["box"]}, "p.shape is .'box'.*expected one of circle, box"),
        ({"shape": "box", "width": "wide"}, "p.width is 'wide', expected a number"),
        ({"shape": "box", "widht": 1}, "unknown key p.widht; did you mean width"),
    ],
)
def test_keys_that_do_not_fit_the_tag_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        config.build(Drawing, {"name": "a", **data}, "p.")

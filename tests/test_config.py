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


def test_keys_are_names_as_they_are_written(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("no: 1\n010: 2\n1_000: 3\non: 4\nnull: 5\n1e3: 6\n2020-01-01: 7\n~: 8\n'yes': 9\ntrue: 10\n")
    names = ["no", "010", "1_000", "on", "null", "1e3", "2020-01-01", "~", "yes", "true"]
    assert config.load_mapping(path) == {name: i + 1 for i, name in enumerate(names)}


def test_an_override_reaches_a_key_that_yaml_reads_as_a_value(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("domains:\n  no: {field: text}\n  010: {field: text}\n")
    data = config.load_mapping(path, ["domains.no.field=body", "domains.010.split={off: yes}"])
    assert data == {"domains": {"no": {"field": "body"}, "010": {"field": "text", "split": {"off": True}}}}


def test_values_keep_their_types(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: no\nb: 010\nc: 1e-4\nd: 1.0e-4\ne: null\nf: [on, {off: off}]\n")
    expected = {"a": False, "b": 8, "c": "1e-4", "d": 1e-4, "e": None, "f": [True, {"off": False}]}
    assert config.load_mapping(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web: 1\ncode: 2\nweb: 3\n", "the key web stands in line 1 and again in line 3; leave one out"),
        ("domains:\n  no: {a: 1}\n  'no': {a: 2}\n", "the key no stands in line 2 and again in line 3"),
        ("a: [{b: 1, b: 2}]", "the key b stands in line 1 and again in line 1"),
        ("? [a, b]\n: 1\n", "the key in line 1 is a list or a mapping, expected a name"),
        ("day: 2020-13-45", "month must be in 1..12"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_yaml_that_would_lose_something_is_refused(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"c.yaml is not valid YAML: .*{message}"):
        config.load_mapping(path)
    with pytest.raises(ConfigError, match="is not a YAML value"):
        config.load_mapping(None, ["a={b: 1, b: 2}"])


def test_merge_keys_of_yaml_still_fill_in_what_is_not_given(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("base: &b {field: text, no: 1}\nweb: {<<: *b, field: body}\ncode: {<<: *b}\n")
    data = config.load_mapping(path)
    assert data["web"] == {"field": "body", "no": 1}
    assert data["code"] == data["base"] == {"field": "text", "no": 1}


def test_merging_keeps_keys_that_are_not_replaced():
    data = {"domains": {"web": {"paths": ["a"], "field": "body"}}, "seed": 1, "empty": None}
    config.merge(data, {"domains": {"web": {"paths": ["b"]}, "code": {"paths": ["c"]}}, "empty": {"x": 1}})
    assert data["domains"] == {"web": {"paths": ["b"], "field": "body"}, "code": {"paths": ["c"]}}
    assert (data["seed"], data["empty"]) == (1, {"x": 1})
    with pytest.raises(ConfigError, match="domains is 3, it has no keys below it"):
        config.merge({"domains": 3}, {"domains": {"web": {}}})

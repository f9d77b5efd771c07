"""Domains that count as one: weights, text and intervals by hand."""

import numpy as np
import pytest

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.bundle import Bundle, are_same

BUNDLE = Bundle("reused", DomainWeights({"web": 0.75, "code": 0.25}))


def test_weights_go_there_and_back():
    virtual = {"reused": 0.8, "news": 0.2}
    real = BUNDLE.expanded(virtual)
    assert dict(real) == pytest.approx({"web": 0.6, "code": 0.2, "news": 0.2})
    assert dict(BUNDLE.reduced(real)) == pytest.approx(virtual)
    assert dict(BUNDLE.reduced({"web": 0.0, "code": 0.0, "news": 1.0})) == {"reused": 0.0, "news": 1.0}
    assert BUNDLE.intervals({"reused": (0.4, 0.8), "news": (0.2, 0.6)}) == {
        "web": pytest.approx((0.3, 0.6)),
        "code": pytest.approx((0.1, 0.2)),
        "news": (0.2, 0.6),
    }


def test_its_text_lasts_until_the_first_part_is_through():
    # 30 of web last for 40 at a share of 3/4, 20 of code for 80 at 1/4.
    assert BUNDLE.tokens({"web": 30, "code": 20, "news": 5}) == {"reused": 40.0, "news": 5.0}


def test_it_is_made_of_the_domains_that_stay_under_a_name_that_is_free():
    made = Bundle.of({"web": 0.3, "code": 0.1, "gone": 0.6}, ["web", "code", "reused"])
    assert made.name == "reused_"
    assert dict(made.shares) == pytest.approx({"web": 0.75, "code": 0.25})
    assert made.names(["code", "reused", "web"]) == ["reused_", "reused"]
    assert Bundle.from_json(made.to_json()) == made
    with pytest.raises(MixtureError, match="web, code are all 0: they have no proportions to keep"):
        Bundle.of({"web": 0.0, "code": 0.0, "gone": 1.0}, ["web", "code", "new"])


def test_columns_say_it_in_a_table():
    columns = {name: np.full(3, share) for name, share in BUNDLE.columns.items()}
    assert Bundle.of_columns(columns, ["reused", "news"]) == BUNDLE
    assert Bundle.of_columns({}, ["web", "news"]) is None
    for domains, message in (
        (["virtual", "news"], "'reused' stands for several domains, but is none of virtual, news"),
        (["reused", "web"], "'web' is a part of 'reused' and a domain of its own"),
    ):
        with pytest.raises(MixtureError, match=message):
            Bundle.of_columns(columns, domains)
    with pytest.raises(MixtureError, match=r"sum to 0\.75, expected 1: is a part missing"):
        Bundle.of_columns({"part/reused/web": np.full(3, 0.75)}, ["reused", "news"])
    with pytest.raises(MixtureError, match="blank or no share"):
        Bundle.of_columns(columns | {"part/reused/code": np.array([0.25, np.inf, 0.25])}, ["reused", "news"])
    with pytest.raises(MixtureError, match="tell no virtual domain"):
        Bundle.of_columns({"part/reused": np.full(3, 1.0)}, ["reused", "news"])
    columns["part/reused/web"] = np.array([0.75, 0.75, 0.7])
    with pytest.raises(MixtureError, match="part/reused/web changes between rows"):
        Bundle.of_columns(columns, ["reused", "news"])


def test_two_are_the_same_as_far_as_files_are_rounded():
    assert are_same(BUNDLE, Bundle("reused", DomainWeights({"web": 0.7502, "code": 0.2498})))
    assert not are_same(BUNDLE, Bundle("reused", DomainWeights({"web": 0.7, "code": 0.3})))
    assert not are_same(BUNDLE, None)
    assert not are_same(None, BUNDLE)
    assert are_same(None, None)


def test_a_mixture_without_a_part_is_refused():
    with pytest.raises(MixtureError, match="no weight for 'code'"):
        BUNDLE.reduced({"web": 0.5, "news": 0.5})

"""The public names of each room: what other rooms and users may import from it without knowing its files."""

import importlib

import pytest

NAMES = {
    "mixture": {"DomainWeights", "Objective", "RunTable", "WeightsFile"},
    "laws": {"LossModel"},
    "search": {"DDO", "AutoScale"},
    "models": {"FAMILIES", "ModelSpec", "family", "initialise"},
    "objectives": {
        "OBJECTIVES",
        "Batch",
        "Objective",
        "Prepared",
        "normalised_weights",
        "objective",
        "sample_sums",
    },
}


@pytest.mark.parametrize("room", NAMES)
def test_a_room_exports_exactly_these_names(room):
    assert set(importlib.import_module(f"autoscale_ds.{room}").__all__) == NAMES[room]

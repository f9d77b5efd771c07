"""The public names of each room: what other rooms and users may import from it without knowing its files."""

import importlib

import pytest

NAMES = {
    "mixture": {"DomainWeights", "Objective", "RunTable", "WeightsFile"},
    "laws": {"LossModel"},
    "search": {"DDO", "AutoScale"},
    "scores": {"ScoreModel", "ScoreTable"},
    "corpus": {
        "Corpus",
        "CorpusIdentity",
        "IndexedShard",
        "IndexedWriter",
        "Manifest",
        "ShardInfo",
        "TokenStore",
        "TokenizerInfo",
        "file_sha256",
        "token_dtype",
    },
    "controllers": {
        "Adviser",
        "AutoScaleAnytime",
        "AutoScaleConfig",
        "AutoScaleTarget",
        "Budget",
        "Controller",
        "ControllerConfig",
        "Evidence",
        "Fixed",
        "FixedConfig",
        "MixtureConfig",
        "Refit",
        "RefitConfig",
        "RunFacts",
        "Stage",
        "StageConfig",
        "Staged",
        "StagedConfig",
        "Stateless",
        "StepLosses",
        "Suggestion",
        "View",
        "build",
    },
    "training.engine": {
        "PORTABLE_FILE",
        "Engine",
        "Job",
        "TokenLosses",
        "build_engine",
        "make_portable",
        "parameter_groups",
        "saved_weights",
        "start_distributed",
        "stop_distributed",
    },
    "skills": {"KINDS", "Generator", "HeldOut", "Problem", "parse_skill", "read_held_out"},
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
    module = importlib.import_module(f"autoscale_ds.{room}")
    assert set(module.__all__) == NAMES[room]
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("room", ["stream", "training", "evaluation", "sizing", "sweep", "report", "speed"])
def test_other_rooms_export_nothing_so_that_importing_one_file_loads_no_other(room):
    assert not hasattr(importlib.import_module(f"autoscale_ds.{room}"), "__all__")

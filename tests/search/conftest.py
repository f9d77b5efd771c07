"""A table of two axes and the law fitted to it, shared by the tests of fit_mixture.py."""

from pathlib import Path

import pytest
from synthetic import World
from tools_in_process import in_process


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder with a table of two axes and a law fitted to it."""
    path = tmp_path_factory.mktemp("runs")
    truth = World("exposure", m=4, targets=3, seed=1, tokens=(1e9, 2e9, 4e9), sizes=(1e7, 1e8))
    truth.table(60, missing=0.1).write(path / "runs.csv")
    truth.table(40, noise=0.0, seed=2).write(path / "held_out.csv")
    in_process("fit_mixture.py", "fit", path / "runs.csv", "--law", "exposure", "--out", path / "law.json")
    return path

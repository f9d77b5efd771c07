"""A small GPT-2 of ``transformers``, documents of every shipped task, and both backends over them."""

import pytest
from tiny_data import write_data
from tiny_models import hf_folder, over

from autoscale_ds.training.trained import open_trained


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A model with a context of 64 tokens: some of the documents do not fit."""
    return hf_folder(tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="session")
def trained(folder):
    return open_trained(folder)


@pytest.fixture(scope="session")
def ours(trained):
    return over(trained)


@pytest.fixture(scope="session")
def theirs(folder):
    pytest.importorskip("lm_eval")
    from autoscale_ds.evaluation.harness import hf_backend

    return hf_backend(folder, 4, "cpu", lambda count: None)

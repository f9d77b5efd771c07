from pathlib import Path

import pytest
from jobs import ROOT

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import read_ds_config, resolve


@pytest.mark.parametrize("path", sorted((ROOT / "launch/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_run_configuration_builds_its_model(path):
    run = config.load(RunConfig, path)
    assert run.model.build(run.data.sequence_length, 50257).num_parameters > 0


@pytest.mark.parametrize("path", sorted((ROOT / "ds_configs").glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_deepspeed_configuration_fits_gpt2_large_on_one_or_two_gpus(path):
    run = config.load(RunConfig, ROOT / "launch/configs/gpt2_large.yaml")
    for ranks in (1, 2):
        resolved = resolve(read_ds_config(path), run, ranks)
        product = resolved["train_micro_batch_size_per_gpu"] * resolved["gradient_accumulation_steps"] * ranks
        assert product == 80


def test_the_readme_beside_them_lists_every_deepspeed_configuration():
    text = (ROOT / "ds_configs/README.md").read_text()
    assert all(Path(path).name in text for path in (ROOT / "ds_configs").glob("*.json"))

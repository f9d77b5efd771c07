import pytest
from jobs import DS, settings

from autoscale_ds import config
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import read_ds_config, resolve


def run_config(**changes):
    return config.build(RunConfig, settings("run", "corpus", **changes))


def test_the_batch_is_derived_from_micro_batch_and_ranks():
    resolved = resolve(DS, run_config(**{"data.global_batch": 48}), world_size=3)
    assert resolved["gradient_accumulation_steps"] == 8
    assert resolved["train_batch_size"] == 48
    assert resolved["gradient_clipping"] == 1.0


@pytest.mark.parametrize(
    ("ds", "message"),
    [
        ({"train_micro_batch_size_per_gpu": "auto"}, '"auto".*Hugging Face convention'),
        ({"zero_optimization": {"reduce_bucket_size": "auto"}}, 'zero_optimization.reduce_bucket_size is "auto"'),
        ({"train_micro_batch_size_per_gpu": None}, "expected a whole number"),
        ({"train_micro_batch_size_per_gpu": 3}, "not a multiple of micro-batch 3 x 2 .* take 6 or 12"),
        ({"train_batch_size": 16}, "train_batch_size is 16 .* data.global_batch is 8"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps is 4"),
        ({"gradient_clipping": 0.5}, "gradient_clipping is 0.5 .* optimizer.clip_norm is 1.0"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}, "optimizer.params.lr is 0.0001 .* is 0.003"),
        ({"optimizer": {"type": "Lamb"}}, "uses AdamW"),
        ({"scheduler": {"type": "WarmupLR"}}, "schedule.kind"),
        ({"fp16": {"enabled": True}}, "use bf16"),
        ({"bf16": {"enabled": True}, "zero_optimization": {"stage": 0}}, "use stage 1 or higher"),
    ],
)
def test_what_disagrees_or_cannot_work_is_refused_before_anything_starts(ds, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**DS, **ds}, run_config(), world_size=2)


def test_values_that_agree_may_stand_in_both_files():
    ds = {**DS, "train_batch_size": 8, "gradient_clipping": 1.0, "optimizer": {"type": "AdamW", "params": {"lr": 3e-3}}}
    assert "optimizer" not in resolve(ds, run_config(), world_size=2)


def test_a_key_given_twice_is_refused(tmp_path):
    (tmp_path / "ds.json").write_text('{"train_micro_batch_size_per_gpu": 1, "train_micro_batch_size_per_gpu": 2}')
    with pytest.raises(ConfigError, match="the key 'train_micro_batch_size_per_gpu' is given twice"):
        read_ds_config(tmp_path / "ds.json")

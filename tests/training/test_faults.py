import math

import pytest
import torch
from jobs import consumed, losses, read_metrics

from autoscale_ds.errors import TrainingError


def poison(trainer, step, times=1, value=math.nan):
    """Make the loss of one step bad, the first ``times`` times the model computes it."""
    left = [times]

    def spoil(module, arguments, output):
        if torch.is_grad_enabled() and trainer.step == step and left[0]:
            left[0] -= 1
            return output * value
        return None

    trainer.engine.module.register_forward_hook(spoil)


def weights_of(trainer):
    return [parameter.detach().clone() for parameter in trainer.engine.module.parameters()]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_step_with_a_loss_that_is_not_finite_leaves_no_trace_in_the_weights(make_trainer, stage):
    trainer = make_trainer({"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}})
    poison(trainer, step=12)
    assert trainer.fit() == 0
    found = losses(trainer.folder.path)
    assert found[13][0] is None
    assert all(loss is not None and loss < 5 for step, (loss, _) in found.items() if step != 13)
    assert all(torch.isfinite(parameter).all() for parameter in weights_of(trainer))
    assert (trainer.folder.path / "skipped_steps.json").read_text().split() == ["[", "12", "]"]


def test_rollback_returns_to_the_checkpoint_and_ends_like_skip(make_trainer):
    for folder, policy in [("skip", "skip"), ("roll", "rollback")]:
        trainer = make_trainer(folder=folder, **{"faults.policy": policy, "faults.loss_limit": 50})
        poison(trainer, step=12, value=100.0)
        assert trainer.fit() == 0
    skipped, rolled = (trainer.folder.path.parent / folder for folder in ("skip", "roll"))
    assert [record["step"] for record in read_metrics(rolled, "train")] == list(range(1, 31))
    left, right = losses(skipped), losses(rolled)
    assert left.pop(13)[0] > 50 > right.pop(13)[0]  # the second time it was only left out, not bad
    assert left == right
    assert consumed(skipped) == consumed(rolled)


def test_stop_ends_the_run_with_the_step_and_what_to_look_at(make_trainer):
    trainer = make_trainer(**{"faults.policy": "stop", "faults.loss_limit": 1.0})
    with pytest.raises(TrainingError, match=r"loss of step 0 is 4\.\d+, the limit is 1; .*--steps 0:1"):
        trainer.fit()


def test_too_many_bad_steps_stop_the_run(make_trainer):
    trainer = make_trainer(**{"faults.loss_limit": 1.0, "faults.max_skips": 3})
    with pytest.raises(TrainingError, match="after 3 other steps"):
        trainer.fit()


def test_a_gradient_that_is_not_finite_is_left_out_without_zero_too(make_trainer):
    trainer = make_trainer({"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 0}})

    def spoil(module, gradients):
        return (gradients[0] * math.inf,) if trainer.step == 3 else None

    trainer.engine.module.norm.register_full_backward_pre_hook(spoil)
    assert trainer.fit() == 0
    assert [r["step"] for r in read_metrics(trainer.folder.path, "train") if r["gradient_norm"] is None] == [4]
    assert all(torch.isfinite(parameter).all() for parameter in weights_of(trainer))

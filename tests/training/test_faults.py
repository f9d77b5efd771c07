import json
import math
from pathlib import Path

import pytest
import torch
from jobs import Job, consumed, losses, read_metrics, settings

from autoscale_ds.errors import TrainingError
from autoscale_ds.files import write_json
from autoscale_ds.training.config import FaultConfig
from autoscale_ds.training.faults import FaultGuard


def poison(trainer, step, times=1, value=math.nan):
    """Make the loss of one step bad, the first ``times`` times the model computes it."""
    left = [times]

    def spoil(module, arguments, output):
        if torch.is_grad_enabled() and trainer.loop.step == step and left[0]:
            left[0] -= 1
            return output * value
        return None

    trainer.parts.engine.module.register_forward_hook(spoil)


def weights_of(trainer):
    return [parameter.detach().clone() for parameter in trainer.parts.engine.module.parameters()]


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


def test_a_start_says_which_updates_stay_left_out_and_how_many_more_may_be(one_rank, tmp_path, caplog):
    write_json(tmp_path / "skipped_steps.json", [12, 13, 14])
    for most, remaining in (
        (10, "7 of faults.max_skips=10 remain."),
        (3, "0 of faults.max_skips=3 remain, so"),
    ):
        caplog.clear()
        FaultGuard(tmp_path, FaultConfig(max_skips=most), one_rank[0])
        assert f"updates that this run leaves out: 3, of the steps 12, 13, 14; {remaining}" in caplog.text
        assert f"remove {tmp_path}/skipped_steps.json" in caplog.text


def test_a_gradient_that_is_not_finite_is_left_out_without_zero_too(make_trainer):
    trainer = make_trainer({"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 0}})

    def spoil(module, gradients):
        return (gradients[0] * math.inf,) if trainer.loop.step == 3 else None

    trainer.parts.engine.module.norm.register_full_backward_pre_hook(spoil)
    assert trainer.fit() == 0
    assert [r["step"] for r in read_metrics(trainer.folder.path, "train") if r["gradient_norm"] is None] == [4]
    assert all(torch.isfinite(parameter).all() for parameter in weights_of(trainer))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_gradient_that_is_not_finite_counts_as_a_fault_in_every_stage(make_trainer, stage):
    trainer = make_trainer({"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": stage}})
    spoil_gradients(trainer, lambda step: step == 3)
    assert trainer.fit() == 0
    assert (trainer.folder.path / "skipped_steps.json").read_text().split() == ["[", "3", "]"]
    assert trainer.parts.engine.updates == 29


def test_weights_are_suspect_once_two_gradients_in_a_row_are_not_finite(one_rank, tmp_path):
    """One may be the data's fault; nothing is saved while more data in a row give none that is finite."""
    guard, seen = FaultGuard(tmp_path, FaultConfig(max_skips=10), one_rank[0]), []
    for step, updated in enumerate([True, False, True, False, False, False, True]):
        guard.judge_update(step, updated)
        seen.append(guard.are_weights_suspect)
    assert seen == [False, False, False, False, True, True, False]


def spoil_gradients(trainer, when):
    def spoil(module, gradients):
        return (gradients[0] * math.inf,) if when(trainer.loop.step) else None

    trainer.parts.engine.module.norm.register_full_backward_pre_hook(spoil)


def test_gradients_that_are_never_finite_end_the_run(make_trainer):
    trainer = make_trainer()
    spoil_gradients(trainer, lambda step: step >= 4)
    with pytest.raises(TrainingError, match="gradient of step 14 is not finite, though its loss is, after 10 other"):
        trainer.fit()


def break_weights(trainer, step, times=1):
    """Make the update of one step break the weights, the first ``times`` times it is made."""
    left, plain = [times], trainer.parts.engine.train_step

    def breaking(*arguments):
        plain(*arguments)
        if trainer.loop.step == step and trainer.parts.engine.updated and left[0]:
            left[0] -= 1
            trainer.parts.engine._guard.param_groups[0]["params"][0].data.fill_(math.nan)
            for parameter in trainer.parts.engine.module.parameters():
                parameter.data.fill_(math.nan)

    trainer.parts.engine.train_step = breaking


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_bad_weights_never_push_out_good_checkpoints(make_trainer, policy):
    changes = {"checkpoints.every_steps": 1, "checkpoints.keep": 2, "optimizer.learning_rate": 1e30}
    trainer = make_trainer(**changes, **{"faults.policy": policy, "schedule.warmup_tokens": 0})
    with pytest.raises(TrainingError, match=r"the weights are bad|no checkpoint of step"):
        trainer.fit()
    trainer.close()
    # The same command with a lower rate goes on from weights that are sound, or from the beginning.
    mended = make_trainer(**changes | {"optimizer.learning_rate": 3e-3, "faults.policy": policy})
    assert mended.fit() == 0
    assert read_metrics(mended.folder.path, "validation")[-1]["loss"] < 4.5
    assert not list(mended.folder.checkpoints.glob("bad-*"))


def test_rollback_goes_before_the_guilty_update_and_leaves_it_out(make_trainer):
    changes = {"checkpoints.every_steps": 1, "checkpoints.keep": 1, "evaluation.every_steps": 5}
    trainer = make_trainer(**changes, **{"faults.policy": "rollback"})
    break_weights(trainer, step=13)
    assert trainer.fit() == 0
    assert all(torch.isfinite(parameter).all() for parameter in weights_of(trainer))
    skipped = [int(step) for step in (trainer.folder.path / "skipped_steps.json").read_text().strip("[]\n").split(",")]
    assert set(skipped) <= {13, 14, 15}
    found = losses(trainer.folder.path)
    assert list(found) == list(range(1, 31))
    assert all(loss is not None for loss, _ in found.values())


def test_a_policy_of_skip_says_that_the_weights_are_bad_and_saves_none_of_them(make_trainer):
    trainer = make_trainer(**{"checkpoints.every_steps": 1, "checkpoints.keep": 1})
    break_weights(trainer, step=13)
    with pytest.raises(TrainingError, match=r"steps 14 to 16 .* the weights are bad, .* update of step 13"):
        trainer.fit()
    assert [path.name for path in trainer.folder.checkpoints.glob("step-*")] == ["step-00000010"]


@pytest.mark.job
@pytest.mark.parametrize(
    ("parallel", "stage"),
    [({}, 1), ({"tensor": 2}, 0), ({"tensor": 2}, 1), ({"pipeline": 2}, 0), ({"pipeline": 2}, 1), ({"sequence": 2}, 2)],
    ids=str,
)
def test_ranks_of_every_layout_leave_out_the_update_that_one_of_them_cannot_make(
    small_corpus, tmp_path, parallel, stage
):
    tree = settings(tmp_path / "run", small_corpus, budget_tokens=8 * 256, parallel=parallel)
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}}
    job = Job(tmp_path / "job", tree, ds, ranks=2, script=Path(__file__).with_name("spoiled_job.py"), more=["3"])
    job.finish()
    assert (tmp_path / "run" / "skipped_steps.json").read_text().split() == ["[", "3", "]"]
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000008" / "run.json").read_text())
    assert state["updates"] == 7
    assert all(loss is not None for loss, _ in losses(tmp_path / "run").values())


def test_a_last_step_that_is_bad_costs_its_update_and_not_the_last_checkpoint(make_trainer):
    trainer = make_trainer()
    poison(trainer, step=29)
    assert trainer.fit() == 0
    assert (trainer.folder.checkpoints / "step-00000030").exists()

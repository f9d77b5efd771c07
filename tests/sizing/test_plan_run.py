import json
from pathlib import Path

import pytest
from forked import run_forked

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve

ROOT = Path(__file__).parents[2]
LARGE = ROOT / "launch/configs/gpt2_large.yaml"


def plan_run(*arguments):
    return run_forked([str(ROOT / "tools/plan_run.py"), "--config", str(LARGE), *map(str, arguments)])


def test_layouts_are_ranked_written_and_the_best_is_given_as_settings_that_the_trainer_takes(tmp_path):
    done = plan_run("--gpus", 8, "--gpu", "h100", "--json", tmp_path / "plan.json", "data.global_batch=64")
    assert done.returncode == 0, done.stderr
    plans = json.loads((tmp_path / "plan.json").read_text())
    assert plans[0]["fits"]
    assert plans[0]["name"] in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("DeepSpeed file")]
    ds = json.loads(line.removeprefix("DeepSpeed file"))
    layout = plans[0]["layout"]
    run = config.load(RunConfig, LARGE, ["data.global_batch=64"])
    resolved = resolve(ds, run, layout["data"])
    assert resolved["gradient_accumulation_steps"] == 64 // layout["data"] // layout["micro"]
    assert resolved["zero_optimization"]["stage"] == layout["zero"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", 8, "--gpu", "h100", "budget_tokens=.inf"], "budget_tokens is inf, expected at most"),
        (["--gpus", 8, "--gpu", "h100", "budget_tokens=.nan"], "budget_tokens is nan, expected at least 0"),
        (["--gpus", 8, "--gpu", "h100", "data.max_epochs=.inf"], "data.max_epochs is inf, expected at most"),
        (
            ["--gpus", 8, "--gpu", "h100", "data.max_epochs={web: -1}"],
            "data.max_epochs.web is -1.0, expected at least",
        ),
        (["--gpus", 8, "--gpu", "h100", "optimizer.betas=[.nan, 1]"], "optimizer.betas has nan, expected numbers"),
        (["--gpus", 8, "--gpu", "h100", f"model.layers={2**127}"], "model.layers is 17014118346046923173168730371588"),
        (["--gpus", 10**12, "--gpu", "h100"], "--gpus: '1000000000000' given, expected a whole number"),
        (["--gpus", 8, "--gpu", "h100", "--layout", "t=²"], "--layout has 't=²', expected t=2,p=1"),
        (["--gpus", 8, "--gpu", "h100", "--layout", "t=1,t=2"], "--layout gives t twice; leave one out"),
    ],
)
def test_a_number_that_cannot_be_is_one_line(arguments, message):
    done = plan_run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_layout_is_shown_by_part_and_said_not_to_fit():
    hardware = ["--memory", "10e9", "--peak-flops", "989e12", "--intra-node-bandwidth", "450e9"]
    done = plan_run("--gpus", 1, *hardware, "--layout", "zero=1,micro=8")
    assert done.returncode == 0, done.stderr
    for part in ("parameters", "gradients", "optimizer", "activations", "logits", "sent: weights", "too much"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", 8], "--memory is missing"),
        (["--gpus", 8, "--gpu", "b300"], "expected one of a100, h100, h200"),
        (["--gpus", 12, "--gpu", "h100"], "do not fill nodes of 8"),
        (["--gpus", 41, "--gpus-per-node", 41, "--gpu", "h100"], "no layout of 41 GPUs"),
        (["--gpus", 8, "--gpu", "h100", "--layout", "t=8"], "the model has 20 attention heads, which it must divide"),
        (["--gpus", 8, "--gpu", "h100", "model.width=1281"], "not a multiple of model.heads"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    done = plan_run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1

"""One run that changes its layout of ranks again and again."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import Job, consumed, losses, settings, tool

from autoscale_ds import config
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import CheckpointError
from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.models.gpt2.spec import load_hf
from autoscale_ds.stream.dataset import open_windows
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.training.checkpoints import read_checkpoint
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.engine import make_portable, parameter_groups, saved_weights
from autoscale_ds.training.hot_swap import first_event
from autoscale_ds.training.run_folder import load_run_config
from autoscale_ds.training.schedule import learning_rate
from autoscale_ds.training.setup import initial_weights, stream_spec

pytestmark = [pytest.mark.job, pytest.mark.timeout(1200)]  # nine jobs one after the other
BATCH = 12  # divides by 1, 2, 3 and 4 ranks
# Steps until the next change, ranks, ZeRO stage, how ranks share the model.
LAYOUTS = [
    (3, 2, 2, {}),
    (5, 3, 1, {}),
    (7, 1, 0, {}),
    (9, 4, 3, {}),
    (11, 2, 1, {"parallel.tensor": 2}),
    (13, 2, 1, {"parallel.pipeline": 2}),
    (15, 2, 3, {"parallel.sequence": 2}),
    (17, 4, 3, {"parallel.tensor": 2}),
    (20, 1, 2, {}),
]


def changed(folder, corpus, steps, **changes):
    """Return the configuration of a stretch; the learning rate must not depend on where it ends."""
    constant = {"schedule.kind": "constant_with_cooldown", "schedule.cooldown_tokens": 0, "data.global_batch": BATCH}
    kept = {"checkpoints.keep": 20, "checkpoints.every_steps": None, "evaluation.every_steps": None}
    return settings(folder, corpus, budget_tokens=steps * BATCH * 32, **constant, **kept, **changes)


@pytest.fixture(scope="module")
def plain_pytorch(small_corpus):
    """Losses of every step, and the weights after some, of a loop in one process."""
    run = config.build(RunConfig, changed("unused", small_corpus, 20))
    corpus = Corpus(small_corpus)
    planner = MixturePlanner(
        stream_spec(run, corpus), [first_event(initial_weights(run.mixture.weights, corpus), "test")]
    )
    windows = open_windows(corpus, planner.names, 32)
    model = GPT2(run.model.build(32, 97))
    initialise(model, run.seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), betas=(0.9, 0.95), eps=1e-8)
    found, weights = [], {}
    for step in range(20):
        plan = planner.plan()
        tokens = windows.read(plan.domains, plan.windows)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 1) * BATCH * 32, 20 * BATCH * 32, 3e-3, run.schedule)
        loss = model(tokens[:, :-1], tokens[:, 1:]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
        weights[step + 1] = {name: p.detach().clone() for name, p in model.named_parameters()}
    return found, weights


@pytest.fixture(scope="module")
def wanderer(small_corpus, tmp_path_factory):
    """The run that went through all layouts, and what the first rank of each said."""
    folder = tmp_path_factory.mktemp("elastic")
    said = []
    for until, ranks, stage, parallel in LAYOUTS:
        tree = changed(folder / "run", small_corpus, until, **parallel)
        ds = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
        said.append(Job(folder / f"until{until}", tree, ds, ranks).finish().logs[0].read_text())
    return folder / "run", said


def test_losses_of_a_run_through_nine_layouts_equal_those_of_one_process(wanderer, plain_pytorch):
    found = [loss for loss, _ in losses(wanderer[0]).values()]
    np.testing.assert_allclose(found, plain_pytorch[0], atol=1e-5)
    assert found[-1] < found[0] - 0.5


def test_every_change_of_layout_resumed_from_the_step_before(wanderer):
    _, said = wanderer
    resumed = [int(step) for text in said for step in re.findall(r"resuming from .*step-(\d+)", text)]
    assert resumed == [until for until, *_ in LAYOUTS[:-1]]
    assert all("converting" in text for text in said[1:])


def test_the_samples_do_not_depend_on_the_layouts(wanderer):
    replay = tool("replay_stream.py", wanderer[0], "--steps", "0:20")
    assert replay.stdout.splitlines() == consumed(wanderer[0])
    assert len(consumed(wanderer[0])) == 20 * BATCH


def test_the_weights_saved_in_any_layout_equal_those_of_one_process(wanderer, plain_pytorch, tmp_path):
    run = load_run_config(wanderer[0])
    shape = run.model.build(32, 97)
    for until, *_ in LAYOUTS:
        checkpoint = read_checkpoint(wanderer[0] / "checkpoints" / f"step-{until:08d}")
        saved = saved_weights(checkpoint.folder, checkpoint.layout, shape, tmp_path / str(until))
        for name, weight in plain_pytorch[1][until].items():
            torch.testing.assert_close(saved[name], weight, atol=1e-4, rtol=0)


def test_a_converted_checkpoint_is_exported_and_converted_again_for_nothing(wanderer, tmp_path, plain_pytorch):
    done = tool("export_hf.py", wanderer[0], "--step", 17, "--output", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    exported = dict(load_hf(tmp_path / "hf").named_parameters())
    expected = plain_pytorch[1][17]["blocks.1.attn.qkv.weight"]
    torch.testing.assert_close(exported["blocks.1.attn.qkv.weight"], expected, atol=1e-4, rtol=0)
    again = tool("convert_checkpoint.py", wanderer[0], "--step", 17)
    assert again.returncode == 0, again.stderr
    assert "portable.safetensors" in again.stdout


def test_a_checkpoint_that_cannot_change_its_layout_is_refused_with_the_one_it_has():
    layout = {"world_size": 2, "tensor": 2, "pipeline": 1, "sequence": 1, "zero_stage": 0, "precision": "fp32"}
    with pytest.raises(CheckpointError, match=r"start 2 ranks with parallel\.tensor=2 and ZeRO stage 0"):
        make_portable(Path("step-00000003"), layout, GPT2Config(2, 2, 64, 32, 97))

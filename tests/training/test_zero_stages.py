import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import ROOT, consumed, free_port, losses, read_metrics, settings

from autoscale_ds import config
from autoscale_ds.corpus import Corpus
from autoscale_ds.models import GPT2, initialise
from autoscale_ds.stream.dataset import open_windows
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.engine import parameter_groups
from autoscale_ds.training.hot_swap import first_event
from autoscale_ds.training.schedule import learning_rate
from autoscale_ds.training.setup import initial_weights, stream_spec

pytestmark = pytest.mark.job
STEPS = 20


def plain_pytorch(corpus_folder):
    """Return the losses of a loop in one process that knows neither DeepSpeed nor the trainer."""
    run = config.build(RunConfig, settings("unused", corpus_folder, budget_tokens=STEPS * 8 * 32))
    corpus = Corpus(corpus_folder)
    weights = initial_weights(run.mixture.weights, corpus)
    planner = MixturePlanner(stream_spec(run, corpus), [first_event(weights, "")])
    windows = open_windows(corpus, planner.names, 32)
    model = GPT2(run.model.build(32, 97))
    initialise(model, run.seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), betas=(0.9, 0.95), eps=1e-8)
    found = []
    for step in range(STEPS):
        plan = planner.plan()
        tokens = windows.read(plan.domains, plan.windows)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 1) * 256, STEPS * 256, 3e-3, run.schedule)
        per_token = model(tokens[:, :-1], tokens[:, 1:])
        per_token.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        by_domain = {name: per_token[plan.domains == i].mean().item() for i, name in enumerate(planner.names)}
        found.append((per_token.mean().item(), by_domain))
    return found


@pytest.fixture(scope="module")
def stages(small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    env = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command += [str(Path(__file__).with_name("zero_stages_job.py")), str(small_corpus), str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_on_two_ranks_gives_the_losses_of_a_plain_pytorch_loop(stages, small_corpus, stage):
    expected, found = plain_pytorch(small_corpus), losses(stages / f"zero{stage}")
    assert list(found) == list(range(1, STEPS + 1))
    for (loss, by_domain), (plain_loss, plain_by_domain) in zip(found.values(), expected, strict=True):
        assert loss == pytest.approx(plain_loss, abs=1e-4)
        assert by_domain == pytest.approx(plain_by_domain, abs=1e-4)
    assert expected[-1][0] < expected[0][0] - 0.5  # it did learn something


def test_every_zero_stage_reports_the_same_gradient_norm_and_validation_loss(stages):
    norms = [[r["gradient_norm"] for r in read_metrics(stages / f"zero{i}", "train")] for i in range(4)]
    scores = [[r["loss"] for r in read_metrics(stages / f"zero{i}", "validation")] for i in range(4)]
    for other in range(1, 4):
        np.testing.assert_allclose(norms[other], norms[0], rtol=1e-3)
        np.testing.assert_allclose(scores[other], scores[0], atol=1e-4)


def test_every_zero_stage_reads_the_same_samples(stages):
    reference = consumed(stages / "zero0")
    assert len(reference) == STEPS * 8
    assert all(consumed(stages / f"zero{stage}") == reference for stage in (1, 2, 3))

"""Run by some ranks: 20 steps in several ZeRO stages of one layout, one after the other in one process group.

The weights are swapped on the way by a proposal, and every run is told to stop after 12 steps and continued by a new
trainer.

usage: layouts_job.py CORPUS FOLDER KIND SIZE STAGE...      for example: tensor 2 0 1 2 3; 2o offloads the optimizer,
                                                        1w weighs domains and predicts every third token,
                                                        1c checkpoints activations
"""

import json
import sys
from pathlib import Path

import every_third  # noqa: F401 - registers itself
import torch
from jobs import settings

from autoscale_ds import cli, config
from autoscale_ds.evaluation.base import Site
from autoscale_ds.evaluation.engine_scorer import EngineScorer
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import ranks_from_environment
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import start_distributed, stop_distributed
from autoscale_ds.training.hot_swap import first_event
from autoscale_ds.training.signals import StopRequest
from autoscale_ds.training.trainer import Trainer

STEPS, SWAP_STEP, STOP_STEP = 20, 7, 12


PROMPTS = torch.randint(97, (3, 32), generator=torch.Generator().manual_seed(0))
FIRST = {"web": 0.5, "code": 0.3, "books": 0.2}  # of jobs.settings
LOSS_WEIGHTS = {"books": 3.0, "web": 0.5}
SWAPPED = DomainWeights({"web": 0.2, "code": 0.2, "books": 0.6})


def events(first):
    """Return the journal that every run ends with: the first weights, and others from step 7 on."""
    return [first_event(first, "test"), Event(1, SWAP_STEP, SWAPPED, "user", "test", "", SWAP_STEP * 256)]


def train(tree, ds, ranks, device):
    """Begin or continue a run; return its exit code."""
    run, stop = config.build(RunConfig, tree), StopRequest()

    def show(record):
        step = record["step"] if record["kind"] == "train" else None
        if step == SWAP_STEP - 1:  # seen in the next step, and nothing is read ahead: effective after it
            trainer.folder.inbox.put(SWAPPED, "user", "test", None)
        stop.requested |= step == STOP_STEP - 1

    trainer = Trainer(run, resolve(ds, run, ranks.world_size), ranks, device, show, stop=stop)
    code = trainer.fit()
    if code == 0:
        save_predictions(trainer)
    trainer.close()
    return code


def save_predictions(trainer):
    """Leave logits and scores of every rank in the run folder: logits that follow 32, 7 and 8 tokens.

    The continuations of the scored rows are random, or the likeliest.
    """
    engine, ranks = trainer.parts.engine, trainer.parts.ranks
    logits = {length: engine.next_token_logits(PROMPTS[:, :length]) for length in (32, 7, 8)}
    device = torch.device("cpu")
    site = Site(engine, device, ranks.data_parallel_rank, ranks.data_parallel_size, lambda: False)
    scores = EngineScorer(site, 32).log_likelihoods(rows(logits))
    torch.save(logits, trainer.folder.path / f"logits-{ranks.rank}.pt")
    (trainer.folder.path / f"scores-{ranks.rank}.json").write_text(json.dumps(scores))


def rows(logits):
    """Return contexts and continuations; of the first three the continuation is the likeliest token."""
    prompts = PROMPTS.tolist()
    likeliest = [(prompt[:7], [token]) for prompt, token in zip(prompts, logits[7].argmax(-1).tolist(), strict=True)]
    cut = [(prompt[:first], prompt[first:]) for prompt in prompts for first in (1, 5, 30)]
    return [*likeliest, *cut, (prompts[0] + prompts[1], prompts[2][:3])]  # of the last, 29 tokens + 3 are read


def main(corpus, folder, kind, size, *stages):
    ranks = ranks_from_environment()
    device = start_distributed(ranks)
    for stage in stages:
        run = Path(folder) / f"zero{stage}"
        parallel = {} if kind == "data" else {f"parallel.{kind}": int(size)}
        tree = settings(run, corpus, budget_tokens=STEPS * 8 * 32, **parallel)
        if stage.endswith("w"):
            tree["objective"] = {"kind": "every_third", "domain_weights": LOSS_WEIGHTS}
        if stage.endswith("c"):
            tree["model"]["activation_checkpointing"] = True
        zero = {"stage": int(stage[0])}
        if stage.endswith("o"):
            zero["offload_optimizer"] = {"device": "cpu"}
        ds = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": zero}
        assert train(tree, ds, ranks, device) == 75
        assert train(tree, ds, ranks, device) == 0
    stop_distributed()


if __name__ == "__main__":
    cli.run(lambda: main(*sys.argv[1:]), tear_down=False)

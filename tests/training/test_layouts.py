"""Every layout of ranks gives the losses of a loop that knows neither DeepSpeed nor the trainer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import RankProcesses, consumed, losses, read_metrics, settings
from layouts_job import FIRST, LOSS_WEIGHTS, STEPS, STOP_STEP, SWAP_STEP, SWAPPED, events

from autoscale_ds import config
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.scoring import ModelScorer
from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2
from autoscale_ds.stream.dataset import open_windows
from autoscale_ds.stream.journal import Journal, read_events
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.engine import parameter_groups
from autoscale_ds.training.schedule import learning_rate
from autoscale_ds.training.setup import initial_weights, stream_spec

# Ways ranks share a model, ranks sharing it, all ranks, ZeRO stages (o: with the optimizer offloaded).
LAYOUTS = [
    ("data", 1, 2, ["0", "1", "2", "3", "2w", "2o", "3o"]),
    ("tensor", 2, 2, ["0", "1", "2", "3", "1w"]),
    ("sequence", 2, 2, ["0", "1", "2", "3", "2w", "3w"]),
    ("pipeline", 2, 2, ["0", "1", "1w", "1c"]),
    ("tensor", 2, 4, ["1"]),
    ("sequence", 2, 4, ["3"]),
    ("pipeline", 2, 4, ["1"]),
]


@pytest.fixture(scope="module")
def plain_pytorch(small_corpus):
    """The losses of a loop in one process: for each step the mean, and by domain; and the gradient norms."""
    return plain_loop(small_corpus, lambda per_token, domains, names, step: per_token.mean(), slice(None))


@pytest.fixture(scope="module")
def plain_weighted(small_corpus):
    """The same where every third token counts, and domains by LOSS_WEIGHTS: the formula written out."""

    def loss(per_token, domains, names, step):
        sampled = SWAPPED if step >= SWAP_STEP else FIRST
        scale = sum(share * LOSS_WEIGHTS.get(name, 1.0) for name, share in sampled.items())
        weights = torch.tensor([LOSS_WEIGHTS.get(name, 1.0) / scale for name in names])
        counted = per_token[:, 2::3]
        return (weights[domains][:, None] * counted).sum() / counted.numel()

    return plain_loop(small_corpus, loss, slice(2, None, 3))


def plain_loop(corpus_folder, loss_of, positions):
    run = config.build(RunConfig, settings("unused", corpus_folder, budget_tokens=STEPS * 8 * 32))
    corpus = Corpus(corpus_folder)
    weights = initial_weights(run.mixture.weights, corpus)
    planner = MixturePlanner(stream_spec(run, corpus), events(weights))
    windows = open_windows(corpus, planner.names, 32)
    model = GPT2(run.model.build(32, 97))
    initialise(model, run.seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), betas=(0.9, 0.95), eps=1e-8)
    steps, norms = [], []
    for step in range(STEPS):
        plan = planner.plan()
        tokens = windows.read(plan.domains, plan.windows)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 1) * 256, STEPS * 256, 3e-3, run.schedule)
        per_token = model(tokens[:, :-1], tokens[:, 1:])
        loss_of(per_token, plan.domains, planner.names, step).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        optimizer.zero_grad()
        counted = per_token[:, positions]
        by_domain = {
            name: counted[plan.domains == i].mean().item()
            for i, name in enumerate(planner.names)
            if (plan.domains == i).any()
        }
        steps.append((counted.mean().item(), by_domain))
    return steps, norms


@pytest.fixture(scope="module")
def layout(request, measured_corpus, tmp_path_factory):
    """The runs of one layout, by ZeRO stage."""
    kind, size, ranks, stages = request.param
    folder = tmp_path_factory.mktemp(f"{kind}{size}of{ranks}")
    script = Path(__file__).with_name("layouts_job.py")
    command = [*map(str, (script, measured_corpus, folder, kind, size)), *stages]
    RankProcesses(folder, command, ranks).finish(timeout=1000)
    return {stage: folder / f"zero{stage}" for stage in stages}


def layouts(test):
    names = [f"{kind}{size}of{ranks}zero{'+'.join(stages)}" for kind, size, ranks, stages in LAYOUTS]
    marked = pytest.mark.parametrize("layout", LAYOUTS, indirect=True, ids=names, scope="module")(test)
    return pytest.mark.job(pytest.mark.timeout(1200)(marked))  # the offloaded optimizer is compiled: minutes


@layouts
def test_a_layout_gives_the_losses_of_one_process_through_a_swap_and_a_resume(layout, plain_pytorch, plain_weighted):
    for stage, run in layout.items():
        expected, norms = plain_weighted if stage.endswith("w") else plain_pytorch
        measured = losses(run)
        assert list(measured) == list(range(1, STEPS + 1))
        assert [event.effective_step for event in read_events(run / "mixture/journal.jsonl")] == [0, SWAP_STEP]
        for (loss, by_domain), (plain_loss, plain_by_domain) in zip(measured.values(), expected, strict=True):
            assert loss == pytest.approx(plain_loss, abs=1e-5)
            assert by_domain == pytest.approx(plain_by_domain, abs=1e-5)
        np.testing.assert_allclose([r["gradient_norm"] for r in read_metrics(run, "train")], norms, rtol=1e-4)
        assert expected[-1][0] < expected[0][0] - 0.4  # it did learn something


@layouts
def test_a_layout_validates_and_reads_the_same_as_one_rank(layout, one_process):
    for stage, run in layout.items():
        if stage.endswith("w"):
            continue
        scores = [[(r["step"], r["loss"]) for r in read_metrics(folder, "validation")] for folder in (run, one_process)]
        np.testing.assert_allclose(*scores, atol=1e-5)
        measured, expected = ([r["target_loss"] for r in read_metrics(f, "targets")] for f in (run, one_process))
        assert [set(record) for record in measured] == [{"exams", "quiz"}] * len(scores[0])
        for one, other in zip(measured, expected, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
        assert consumed(run) == consumed(one_process)
        assert len(consumed(run)) == STEPS * 8
        assert (run / "checkpoints" / f"step-{STOP_STEP:08d}").exists()


@layouts
def test_a_layout_predicts_the_next_token_like_one_process(layout, one_process):
    expected = torch.load(one_process / "logits-0.pt")
    assert {length: tuple(values.shape) for length, values in expected.items()} == dict.fromkeys((32, 7, 8), (3, 97))
    for stage, run in layout.items():
        if stage.endswith("w"):
            continue
        by_rank = [torch.load(path) for path in run.glob("logits-*.pt")]
        assert len(by_rank) >= 2
        for logits in by_rank:
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@layouts
def test_a_layout_scores_continuations_like_a_model_on_one_device(layout, one_process):
    expected = json.loads((one_process / "expected.json").read_text())
    likeliest = [bool(score[1]) for score in expected]
    assert likeliest[:3] == [True] * 3
    assert not all(likeliest)
    for stage, run in layout.items():
        if not stage.endswith("w"):
            by_rank = [json.loads(path.read_text()) for path in run.glob("scores-*.json")]
            assert len(by_rank) >= 2
            for scores in by_rank:
                assert [score[1] for score in scores] == likeliest
                np.testing.assert_allclose([s[0] for s in scores], [s[0] for s in expected], atol=2e-3, rtol=1e-4)


@pytest.fixture(scope="module")
def one_process(one_rank, measured_corpus, tmp_path_factory):
    """The same run on one rank, never stopped."""
    from layouts_job import DomainWeights, Trainer, rows, save_predictions

    ranks, device = one_rank
    folder = tmp_path_factory.mktemp("one") / "run"
    tree = settings(folder, measured_corpus, budget_tokens=STEPS * 8 * 32)
    (folder / "mixture").mkdir(parents=True)
    for event in events(DomainWeights(tree["mixture"]["weights"])):
        Journal(folder / "mixture/journal.jsonl").append(event)
    run = config.build(RunConfig, tree)
    ds = {"train_micro_batch_size_per_gpu": 8, "zero_optimization": {"stage": 0}}
    trainer = Trainer(run, resolve(ds, run, 1), ranks, device)
    assert trainer.fit() == 0
    save_predictions(trainer)
    plain = ModelScorer(trainer.parts.engine.module, 4, 0)
    plain.context = 32
    expected = plain.log_likelihoods(rows(torch.load(folder / "logits-0.pt")))
    (folder / "expected.json").write_text(json.dumps(expected))
    trainer.close()
    return folder


@pytest.mark.parametrize(
    ("changes", "world_size", "stage", "rule"),
    [
        ({"tensor": 2, "pipeline": 2}, 4, 1, "parallel.tensor and parallel.pipeline are both above 1"),
        ({"tensor": 2}, 3, 1, "parallel.tensor is 2, which does not divide 3 ranks; start a multiple of 2"),
        ({"pipeline": 2}, 1, 1, "parallel.pipeline is 2, which does not divide 1 rank;"),
        ({"tensor": 4}, 4, 1, "parallel.tensor is 4, but the model has 2 attention heads"),
        ({"sequence": 4}, 4, 1, "parallel.sequence is 4, but the model has 2 attention heads"),
        ({"pipeline": 4}, 4, 1, "parallel.pipeline is 4, but the model has only 2 layers"),
        ({"pipeline": 2}, 2, 2, "ZeRO stage 2: a pipeline adds gradients up .* use ZeRO 0 or 1"),
        ({"tensor": 2, "dropout": 0.1}, 2, 1, "would drop different ones; set model.dropout=0"),
        ({"sequence": 2, "compile": True}, 2, 1, "set model.compile=false"),
        ({"tensor": 0}, 1, 1, "parallel.tensor is 0, expected at least 1"),
    ],
)
def test_an_impossible_layout_is_refused_before_anything_starts_with_its_rule(changes, world_size, stage, rule):
    named = {f"{'model' if n in ('dropout', 'compile') else 'parallel'}.{n}": v for n, v in changes.items()}
    ds = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": stage}}
    with pytest.raises(ConfigError, match=rule):
        resolve(ds, config.build(RunConfig, settings("run", "corpus", **named)), world_size)


def test_a_sequence_length_that_cannot_be_shared_is_refused():
    tree = settings("run", "corpus", **{"parallel.sequence": 2, "data.sequence_length": 31})
    with pytest.raises(ConfigError, match=r"parallel\.sequence is 2, which does not divide data\.sequence_length 31"):
        resolve({"train_micro_batch_size_per_gpu": 1}, config.build(RunConfig, tree), 2)


def test_splits_of_the_model_in_the_deepspeed_file_are_refused():
    ds = {"train_micro_batch_size_per_gpu": 1, "tensor_parallel": {"autotp_size": 2}}
    with pytest.raises(ConfigError, match=r"has tensor_parallel; how ranks share the model is the run's"):
        resolve(ds, config.build(RunConfig, settings("run", "corpus")), 2)


def test_the_data_parallel_rank_alone_chooses_the_slice():
    """Neighbours share a model or a sequence; the stages of a pipeline lie a data-parallel size apart."""
    from autoscale_ds.training.config import ParallelConfig

    def slices(**parallel):
        return [Ranks(rank, 0, 4, ParallelConfig(**parallel)).data_parallel_rank for rank in range(4)]

    assert slices() == [0, 1, 2, 3]
    assert slices(tensor=2) == slices(sequence=2) == [0, 0, 1, 1]
    assert slices(pipeline=2) == [0, 1, 0, 1]
    assert slices(tensor=4) == [0, 0, 0, 0]

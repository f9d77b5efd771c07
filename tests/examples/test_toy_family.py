"""A toy model family in one file, registered by one line: trained, killed by a stop, resumed, exported, generating."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from jobs import losses
from torch import nn

from autoscale_ds.models import FAMILIES, ModelSpec, initialise
from autoscale_ds.models.generation import generate
from autoscale_ds.models.layers import LanguageModelHead
from autoscale_ds.models.spec import LayerSplit, StageLayer
from autoscale_ds.objectives import Batch
from autoscale_ds.training.engine import saved_weights


class Average(nn.Module):
    """Adds to every position the mean of those up to it: the only exchange between tokens this family knows."""

    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return x + torch.tanh(self.mix(x.cumsum(1) / count))


class BagModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.padded_vocabulary, config.width)
        self.blocks = nn.Sequential(*(Average(config.width) for _ in range(config.layers)))
        self.head = LanguageModelHead(
            config.width, config.padded_vocabulary, config.vocabulary, config.loss_chunk_tokens
        )
        self.tokens.weight = self.head.weight

    def forward(self, token_ids, targets=None, first_position=0, logits_at=None, likeliest=False):
        x = self.blocks(self.tokens(token_ids))
        return self.head(x if logits_at is None else x[:, logits_at], targets, likeliest)


@dataclass(frozen=True)
class BagSpec(ModelSpec):
    presets: ClassVar = {"tiny": {"layers": 2, "heads": 1, "width": 32}}
    block = Average
    layer_splits = (LayerSplit("mix", "column"),)

    def build(self):
        return BagModel(self)

    def initial_weight(self, name, size, seed):
        digest = int.from_bytes(hashlib.sha256(f"{seed}{name}".encode()).digest()[:6], "little")
        return torch.empty(size).normal_(0, 0.05, generator=torch.Generator().manual_seed(digest))

    def stages(self):
        head = (self.width, self.padded_vocabulary, self.vocabulary, self.loss_chunk_tokens)
        return [
            StageLayer(nn.Embedding, (self.padded_vocabulary, self.width), tied="tokens"),
            *[StageLayer(Average, (self.width,))] * self.layers,
            StageLayer(LanguageModelHead, head, tied="tokens"),
        ]

    def whole_name(self, layer, name):
        return f"tokens.{name}" if layer in (0, self.layers + 1) else f"blocks.{layer - 1}.{name}"

    def read_hf(self, folder):
        return torch.load(f"{folder}/weights.pt")

    def write_hf(self, state, folder, end_of_document):
        torch.save(dict(state), f"{folder}/weights.pt")

    @property
    def num_parameters(self):
        return self.vocabulary * self.width + self.layers * (self.width**2 + self.width)

    def flops_per_token(self, sequence_length):
        return 6.0 * self.num_parameters


TOY = {"model.family": "bag", "model.preset": "tiny"}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(FAMILIES, "bag", BagSpec)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_new_family_trains_stops_resumes_and_predicts(make_trainer, stage):
    ds = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": stage}}
    whole = make_trainer(ds, folder="whole", **TOY)
    assert whole.fit() == 0
    logits = whole.parts.engine.next_token_logits(torch.arange(1, 9)[None])
    whole.close()
    pieces = make_trainer(ds, folder="pieces", **TOY)
    pieces.on_record = lambda record: setattr(pieces.stop, "requested", record["step"] >= 13)
    assert pieces.fit() == 75
    pieces.close()
    again = make_trainer(ds, folder="pieces", **TOY)
    assert again.fit() == 0
    assert losses(again.folder.path) == losses(whole.folder.path)
    assert losses(again.folder.path)[30][0] < losses(again.folder.path)[1][0]
    assert torch.equal(again.parts.engine.next_token_logits(torch.arange(1, 9)[None]), logits)
    text = [*range(1, 9), int(logits.argmax())]
    found = again.parts.engine.losses(Batch(torch.tensor([text, [0] * 9]), torch.zeros(2, dtype=torch.long)), True)
    assert found.likeliest[0, -1] == 1
    assert found.likeliest.mean() < 1
    newest = again.folder.checkpoints / "step-00000030"
    weights = saved_weights(newest, again.parts.engine.layout, again.parts.model_spec, again.folder.path)
    assert {name: tensor.shape for name, tensor in weights.items() if name != "head.weight"} == (
        again.parts.model_spec.whole_shapes()
    )
    again.close()


def test_a_family_without_a_cache_generates_by_computing_whole_sequences_again():
    model = BagSpec(layers=2, heads=1, width=32, context=12, vocabulary=97).build()
    initialise(model, seed=4)
    prompts = [[1, 2, 3], [4], [5, 6, 7]]
    made = generate(model, prompts, 20)
    for prompt, each in zip(prompts, made, strict=True):
        whole = torch.tensor([prompt + each.tokens[:-1]])
        assert model(whole).argmax(-1)[0, len(prompt) - 1 :].tolist() == each.tokens
        assert (len(each.tokens), each.reason) == (13 - len(prompt), "context")


def test_a_checkpoint_of_a_new_family_continues_at_another_zero_stage(make_trainer):
    first = make_trainer({"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}}, **TOY)
    first.on_record = lambda record: setattr(first.stop, "requested", record["step"] >= 13)
    assert first.fit() == 75
    first.close()
    second = make_trainer({"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 2}}, **TOY)
    assert second.fit() == 0
    assert list(losses(second.folder.path)) == list(range(1, 31))
    second.close()


@pytest.mark.parametrize("name", ["blocks.0.mix.weight", "blocks.0.mix.bias", "tokens.weight"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_parts_of_a_parameter_join_to_the_whole(name, ranks):
    spec = BagSpec(layers=2, heads=1, width=32, vocabulary=97)
    whole = spec.initial_weight(name, spec.whole_shapes()[name], 0)
    parts = [spec.cut(name, whole, rank, ranks) for rank in range(ranks)]
    assert len(parts[0]) == len(whole) // ranks
    assert torch.equal(spec.join(name, parts), whole)


def test_sizing_counts_the_parameters_of_a_new_family():
    spec = BagSpec(layers=2, heads=1, width=32, vocabulary=97)
    vocabulary, block = 128 * 32, 32 * 32 + 32
    assert spec.stage_parameters() == [vocabulary, block, block, vocabulary]
    assert spec.stage_parameters(tensor=2) == [vocabulary // 2, block // 2, block // 2, vocabulary // 2]

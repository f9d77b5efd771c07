"""Bits per byte of gold completions: against the sums written out, and batches that lose and repeat nothing."""

import math

import pytest
import torch
from jobs import read_metrics

from autoscale_ds.corpus import Corpus
from autoscale_ds.evaluation.completions import CompletionSet


def items_of(corpus, name="quiz"):
    shard, sizes = Corpus(corpus).store(name, "validation").shards
    texts = [shard.document(i).astype("int64") for i in range(shard.num_documents)]
    return list(zip(texts[::2], texts[1::2], sizes.tokens.tolist(), strict=True))


def nats(engine, prompt, completion, length):
    """Loss of a completion, one token after the other."""
    total, text = 0.0, list(prompt)
    for token in completion.tolist():
        logits = engine.next_token_logits(torch.tensor([text[-length:]]))
        total -= logits.log_softmax(-1)[0, token].item()
        text.append(token)
    return total


def test_bits_per_byte_are_those_of_the_completions_token_by_token(make_trainer, measured_corpus, caplog):
    trainer = make_trainer(**{"data.corpus": str(measured_corpus), "budget_tokens": 1024})
    assert trainer.fit() == 0
    record = read_metrics(trainer.folder.path, "targets")[-1]
    items = items_of(measured_corpus)
    cut = [(prompt[-(33 - len(completion)) :], completion) for prompt, completion, _ in items]  # 32 tokens are read
    total = sum(nats(trainer.parts.engine, *item, 32) for item in cut)
    trainer.close()
    tokens, size = sum(len(completion) for _, completion, _ in items), sum(size for *_, size in items)
    assert record["target_loss"]["quiz"] == pytest.approx(total / tokens, rel=1e-4)
    assert record["bits_per_byte"]["quiz"] == pytest.approx(total / math.log(2) / size, rel=1e-4)
    truncated = sum(len(prompt) + len(completion) > 33 for prompt, completion, _ in items)
    assert truncated > 0
    assert f"task quiz: {truncated} prompts are longer" in caplog.text


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("length", [3, 48, 256])
def test_each_completion_is_counted_once_whatever_the_ranks_and_widths(measured_corpus, world_size, length):
    corpus = Corpus(measured_corpus)
    chosen = CompletionSet(corpus, ["quiz"], length, None)
    fits = [(p, c) for p, c, _ in items_of(measured_corpus) if len(c) <= length]
    assert chosen.left_out.get("quiz", 0) == 23 - len(fits)
    by_rank = [[batch for batch, _ in chosen.batches(rank, world_size, 2)] for rank in range(world_size)]
    real = sum(int(real.sum()) for rank in range(world_size) for _, real in chosen.batches(rank, world_size, 2))
    assert real == len(fits)
    assert len({tuple(batch.tokens.shape for batch in batches) for batches in by_rank}) == 1
    seen = []
    for batch in (batch for batches in by_rank for batch in batches):
        assert batch.tokens.shape[1] - 1 in (length, 64, 128)
        for tokens, counted in zip(batch.tokens[:, 1:], batch.counted, strict=True):
            seen += [tokens[counted].tolist()] if counted.any() else []
    assert sorted(seen) == sorted(completion.tolist() for _, completion in fits)


def test_some_items_of_a_task_are_spread_over_its_file(measured_corpus):
    chosen = CompletionSet(Corpus(measured_corpus), ["quiz"], 256, 5)
    assert len(chosen) == 5
    expected = [items_of(measured_corpus)[place] for place in (0, 4, 9, 13, 18)]
    ((batch, _),) = chosen.batches(0, 1, 2)
    lengths = sorted(batch.counted.sum(1).tolist())
    assert lengths[-5:] == sorted(len(completion) for _, completion, _ in expected)


def test_tasks_are_left_out_where_nothing_is_predicted_from_left_to_right(make_trainer, measured_corpus, caplog):
    import every_third  # noqa: F401 - registers itself

    changes = {"data.corpus": str(measured_corpus), "budget_tokens": 512, "objective.kind": "every_third"}
    trainer = make_trainer(**changes)
    assert trainer.fit() == 0
    trainer.close()
    assert set(read_metrics(trainer.folder.path, "targets")[-1]["target_loss"]) == {"exams"}
    assert "tasks are not measured" in caplog.text

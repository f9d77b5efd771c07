"""Scores against closed forms and against the plain definition, with and without shared contexts."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_models import hf_folder, sentences

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation import scoring
from autoscale_ds.evaluation.rank_sharing import SharedScorer
from autoscale_ds.evaluation.scoring import ModelScorer, Score
from autoscale_ds.evaluation.text_perplexity import sliding_rows, text_score
from autoscale_ds.models.spec import ModelSpec
from autoscale_ds.training.trained import open_trained, text_to_ids

END = 0


def rows_of(count=30, seed=3):
    """Rows of different lengths; every third shares its context with the one before."""
    generator = torch.Generator().manual_seed(seed)

    def some(most):
        length = int(torch.randint(1, most, (1,), generator=generator))
        return torch.randint(300, (length,), generator=generator).tolist()

    rows = [(some(60), some(20)) for _ in range(count)]
    return [(rows[i - 1][0] if i % 3 == 2 else row[0], row[1]) for i, row in enumerate(rows)]


def by_definition(model, row):
    """Score of one row alone: what lm-eval's hf backend does, in five lines."""
    context, continuation = row
    tokens = torch.tensor([*context, *continuation][-(model.config.context + 1) :])
    with torch.no_grad():
        logits = model(tokens[None, :-1])[0, -len(continuation) :]
    targets = tokens[-len(continuation) :]
    return Score(-F.cross_entropy(logits, targets, reduction="sum").item(), bool((logits.argmax(-1) == targets).all()))


@pytest.mark.parametrize("shared_tokens", [1, 16, 1000])
@pytest.mark.parametrize("has_cache", [True, False])
def test_batches_and_shared_contexts_change_no_score(trained, monkeypatch, shared_tokens, has_cache):
    monkeypatch.setattr(scoring, "_SHARED_TOKENS", shared_tokens)
    if not has_cache:
        monkeypatch.setattr(type(trained.spec), "cache", ModelSpec.cache)
    rows = rows_of()
    advanced = []
    scorer = ModelScorer(trained.model, 7, END, advanced.append)
    scores = scorer.log_likelihoods(rows)
    for row, score in zip(rows, scores, strict=True):
        expected = by_definition(trained.model, row)
        assert score.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
        assert score.is_greedy == expected.is_greedy
    assert sum(advanced) == len(rows)
    assert scorer.truncated == sum(len(context) + len(continuation) > 65 for context, continuation in rows) > 0


def test_a_greedy_continuation_is_told_from_another(trained):
    scorer = ModelScorer(trained.model, 4, END)
    (tokens,) = scorer.greedy([[5, 6, 7]], 6, lambda tokens: False)
    assert [s.is_greedy for s in scorer.log_likelihoods([([5, 6, 7], tokens), ([5, 6, 7], [*tokens[:-1], 299])])] == [
        True,
        tokens[-1] == 299,
    ]
    assert scorer.log_likelihoods([([5], [])]) == [Score(0.0, True)]


def test_a_continuation_longer_than_the_context_is_refused(trained):
    with pytest.raises(ConfigError, match="65 tokens, the model reads 64"):
        ModelScorer(trained.model, 4, END).log_likelihoods([([1], [2] * 65)])
    with pytest.raises(ConfigError, match="do not fit a context of 64"):
        ModelScorer(trained.model, 4, END).greedy([[1]], 64, lambda tokens: False)


@pytest.mark.parametrize("stride", [1, 10, 64])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_windows_predict_every_token_once_with_the_context_that_fits(stride, length):
    tokens = list(range(1, length + 1))
    rows = list(sliding_rows(tokens, 64, stride, end_of_document=0))
    assert [token for _, continuation in rows for token in continuation] == tokens
    whole = [0, *tokens]
    for context, continuation in rows:
        start = continuation[0]  # a token is its own position
        assert context == whole[max(0, continuation[-1] - 64) : start]
    assert all(len(continuation) <= stride for _, continuation in rows[1:])


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tmp_path):
    """All logits equal: V nats a token whatever the text, so every figure has a closed form."""
    uniform = open_trained(hf_folder(tmp_path / "uniform", uniform=True))
    text = " ".join(sentences(30, "any"))
    (tokens,) = text_to_ids(uniform.tokenizer, [text])
    vocabulary, words, size = uniform.spec.vocabulary, len(text.split()), len(text.encode())
    scorer = ModelScorer(uniform.model, 4, END)
    score = text_score(scorer, text, tokens, 16, END)
    assert (score.tokens, score.words, score.bytes) == (len(tokens), words, size)
    assert score.loss == pytest.approx(math.log(vocabulary), rel=1e-6)
    assert score.perplexity == pytest.approx(vocabulary, rel=1e-5)
    assert score.word_perplexity == pytest.approx(vocabulary ** (len(tokens) / words), rel=1e-4)
    assert score.bits_per_byte == pytest.approx(len(tokens) * math.log2(vocabulary) / size, rel=1e-6)
    with pytest.raises(ConfigError, match="no word"):
        text_score(scorer, " \n", [3], 16, END)


def test_ranks_share_rows_and_all_get_every_score(trained):
    """Three ranks, one after the other: each is told what the others would have answered."""
    rows, alone = rows_of(), ModelScorer(trained.model, 7, END)
    expected = alone.log_likelihoods(rows)
    prompts = [row[0][:20] for row in rows[:7]]
    texts = alone.greedy(prompts, 5, lambda tokens: False)
    own = {}
    for call in (lambda s: s.log_likelihoods(rows), lambda s: s.greedy(prompts, 5, lambda tokens: False)):
        for rank in range(3):

            def keep(value, rank=rank):
                own[rank] = value
                raise StopIteration

            with pytest.raises(StopIteration):
                call(SharedScorer(ModelScorer(trained.model, 7, END), rank, 3, keep))
        merged = call(SharedScorer(ModelScorer(trained.model, 7, END), 1, 3, lambda value: [own[r] for r in range(3)]))
        assert sum(map(len, own.values())) == len(merged)
        assert all(own.values())
        if isinstance(merged[0], Score):
            assert [score.log_probability for score in merged] == pytest.approx(
                [score.log_probability for score in expected], abs=1e-4
            )
        else:
            assert merged == texts

"""Generation against ``transformers``, with the cache against without, and what a sample depends on."""

from collections import Counter

import pytest
import torch

from autoscale_ds.errors import ConfigError
from autoscale_ds.models import initialise
from autoscale_ds.models.cache import KeyValueCache
from autoscale_ds.models.generation import Sampling, draw, generate
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.models.gpt2.hugging_face import hf_config, to_hf_state

TINY = GPT2Config(layers=3, heads=4, width=32, context=48, vocabulary=101)
END = 100


@pytest.fixture(scope="module")
def model():
    """A model with weights large enough that it does not repeat one token."""
    made = GPT2(TINY)
    initialise(made, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


@pytest.fixture(scope="module")
def theirs(model):
    from transformers import GPT2LMHeadModel

    made = GPT2LMHeadModel(hf_config(TINY, END)).eval()
    made.load_state_dict(to_hf_state(model.state_dict(), TINY), strict=False)
    made.tie_weights()
    return made


def prompts(lengths=(1, 5, 9, 20, 33, 47)):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(END, (length,), generator=generator).tolist() for length in lengths]


def test_greedy_text_is_that_of_transformers_token_by_token(model, theirs):
    for prompt, ours in zip(prompts(), generate(model, prompts(), 15, end_of_document=END), strict=True):
        ids = torch.tensor([prompt])
        length = min(len(prompt) + 15, TINY.context)
        made = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_length=length, pad_token_id=END
        )
        expected = made[0, len(prompt) :].tolist()
        expected = expected[: expected.index(END)] if END in expected else expected
        assert ours.tokens[: len(expected)] == expected
        # transformers does not predict the token after the last position, which the model could still read
        assert len(ours.tokens) - len(expected) == (ours.reason == "context")


def test_the_cache_changes_no_token(model):
    cached, plain = (generate(model, prompts(), 12, end_of_document=END, use_cache=use) for use in (True, False))
    assert cached == plain


def test_a_pass_over_the_cache_gives_the_logits_of_the_whole_sequence(model):
    whole = torch.tensor(prompts((12, 12)))
    cache = KeyValueCache(16)
    with torch.no_grad():
        padded = torch.cat([whole[:, :7], torch.full((2, 2), 3)], dim=1)  # what follows a row's tokens is padding
        model(padded, cache=cache)
        cache.keep([7, 5])
        second = torch.stack([whole[0, 7:10], whole[1, 5:8]])
        logits = model(second, cache=cache)
        expected = model(whole)
    torch.testing.assert_close(logits[0], expected[0, 7:10], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[1], expected[1, 5:8], atol=1e-5, rtol=1e-5)


def test_a_sample_depends_on_its_seed_and_number_alone(model):
    sampling = Sampling(temperature=1.5, top_k=50, seed=7)
    many = generate(model, prompts() * 2, 10, sampling=sampling, numbers=[*range(6), *range(10, 16)])
    alone = generate(model, prompts()[2:3], 10, sampling=sampling, numbers=[12])
    assert alone[0] == many[8]
    other = generate(model, prompts()[2:3], 10, sampling=Sampling(1.5, 50, seed=8), numbers=[12])
    assert other[0] != many[8]
    assert many[2] != many[8]


def test_drawn_tokens_have_the_filtered_probabilities():
    """Probabilities 0.4, 0.3, 0.2, 0.1: the two likeliest have 0.7, and the third is needed to reach 0.75."""
    logits = torch.log(torch.tensor([[0.1, 0.3, 0.4, 0.2]]))
    grid = [(i + 0.5) / 1000 for i in range(1000)]

    def counts(**filters):
        return Counter(draw(logits.expand(1000, 4), Sampling(**filters), grid))

    assert counts() == {0: 100, 1: 300, 2: 400, 3: 200}
    assert counts(top_k=2) == {1: 429, 2: 571}
    assert set(counts(top_p=0.75)) == {1, 2, 3}
    assert set(counts(top_p=0.7)) <= {1, 2, 3}
    assert set(counts(top_k=1)) == {2}
    sharper = counts(temperature=0.5)  # squares: 1, 9, 16, 4 of 30
    assert sharper[2] == pytest.approx(1000 * 16 / 30, abs=1)


def test_generation_ends_with_the_document_the_context_or_the_caller(model):
    (free,) = generate(model, [[1, 2, 3]], 20)
    (ended,) = generate(model, [[1, 2, 3]], 20, end_of_document=free.tokens[4])
    assert (ended.tokens, ended.reason) == (free.tokens[: free.tokens.index(free.tokens[4])], "end")
    (stopped,) = generate(model, [[1, 2, 3]], 20, stop=lambda tokens: len(tokens) == 3)
    assert (stopped.tokens, stopped.reason) == (free.tokens[:3], "stop")
    (full,) = generate(model, prompts((48,)), 20)
    assert (len(full.tokens), full.reason) == (1, "context")
    assert generate(model, [[1]], 0)[0].tokens == []


@pytest.mark.parametrize(
    ("prompt", "message"), [([], "0 tokens"), ([1] * 49, "49 tokens"), ([101], "the token 101"), ([-1], "the token -1")]
)
def test_a_prompt_the_model_cannot_read_is_refused(model, prompt, message):
    with pytest.raises(ConfigError, match=message):
        generate(model, [prompt], 3)


@pytest.mark.parametrize(
    "values", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_impossible_sampling_is_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Sampling(**values)

import pytest
import torch
import torch.nn.functional as F

from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.models.gpt2.hugging_face import from_hf_state, hf_config, save_hf, to_hf_state
from autoscale_ds.models.gpt2.spec import load_hf

TINY = GPT2Config(layers=3, heads=4, width=32, context=48, vocabulary=101)


def make(config=TINY, seed=0):
    model = GPT2(config)
    initialise(model, seed)
    return model.eval()


def scrambled(model):
    """Random biases and gains too, so that no transposed or forgotten tensor can hide behind zeros and ones."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def token_ids(config=TINY, batch=2, time=40):
    return torch.randint(config.vocabulary, (batch, time), generator=torch.Generator().manual_seed(1))


def test_logits_equal_transformers_gpt2_to_1e_5():
    from transformers import GPT2LMHeadModel

    ours = scrambled(make())
    theirs = GPT2LMHeadModel(hf_config(TINY, end_of_document=0)).eval()
    theirs.load_state_dict(to_hf_state(ours.state_dict(), TINY), strict=False)
    theirs.tie_weights()
    ids = token_ids()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_weights_survive_export_to_hugging_face_and_back(tmp_path):
    ours = scrambled(make())
    save_hf(ours.state_dict(), TINY, tmp_path, end_of_document=100)
    again = load_hf(tmp_path).eval()
    ids = token_ids()
    with torch.no_grad():
        torch.testing.assert_close(again(ids), ours(ids), atol=0, rtol=0)


def test_hugging_face_weights_of_another_depth_are_refused():
    from autoscale_ds.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"transformer\.h\.2"):
        from_hf_state(
            to_hf_state(make(GPT2Config(2, 4, 32, 48, 101)).state_dict(), GPT2Config(2, 4, 32, 48, 101)), TINY
        )


@pytest.mark.parametrize("chunk_tokens", [1, 7, 80])
def test_chunked_cross_entropy_equals_plain_cross_entropy_with_its_gradients(chunk_tokens):
    config = GPT2Config(3, 4, 32, 48, 101, loss_chunk_tokens=chunk_tokens)
    model, ids, targets = scrambled(make(config)), token_ids(), token_ids().flip(1)
    losses = model(ids, targets)
    plain = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="none").view(2, 40)
    torch.testing.assert_close(losses, plain)
    chunked_gradients = torch.autograd.grad(losses.mean(), list(model.parameters()))
    plain_gradients = torch.autograd.grad(plain.mean(), list(model.parameters()))
    torch.testing.assert_close(chunked_gradients, plain_gradients, atol=1e-6, rtol=1e-4)


def test_activation_checkpointing_changes_no_loss_and_no_gradient():
    ids, targets, results = token_ids(), token_ids().flip(1), []
    for flag in (False, True):
        model = make(GPT2Config(3, 4, 32, 48, 101, activation_checkpointing=flag)).train()
        loss = model(ids, targets).mean()
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler looks at it itself
def test_compiling_changes_no_gradient_and_blocks_share_one_graph():
    ids, targets, results = token_ids(), token_ids().flip(1), []
    for compiled in (False, True):
        model = make().train()
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            TINY.compile_layers(model)
        loss = model(ids, targets).mean()
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(results[0], results[1], atol=1e-6, rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # a block, the head


def test_a_token_never_sees_the_future():
    model, ids = make(), token_ids()
    changed = ids.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % TINY.vocabulary
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, :20], model(changed)[:, :20], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("preset", "millions"), [("gpt2", 124.44), ("gpt2_medium", 354.82), ("gpt2_large", 774.03), ("gpt2_xl", 1557.61)]
)
def test_presets_have_the_published_number_of_parameters(preset, millions):
    config = GPT2Config(**GPT2Config.presets[preset])
    assert config.num_parameters / 1e6 == pytest.approx(millions, abs=0.01)
    with torch.device("meta"):
        model = GPT2(config)
    stored = sum(parameter.numel() for parameter in model.parameters())
    assert stored - (config.padded_vocabulary - config.vocabulary) * config.width == config.num_parameters


def test_gpt2_large_costs_5_20_gflop_a_token():
    assert GPT2Config(**GPT2Config.presets["gpt2_large"]).flops_per_token(1024) == pytest.approx(5.20e9, rel=0.01)


def test_initialisation_is_gpt2s_and_a_function_of_seed_and_name():
    model = make(GPT2Config(8, 4, 64, 48, 101), seed=7)
    assert model.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].mlp.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert model.head.weight is model.tokens.weight
    shallow = make(GPT2Config(2, 4, 64, 48, 101), seed=7)
    assert torch.equal(shallow.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight)
    assert not torch.equal(make(seed=1).tokens.weight, make(seed=2).tokens.weight)

import pytest
import torch

from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.models.layers import LanguageModelHead
from autoscale_ds.sizing.layout import Layout, Training
from autoscale_ds.sizing.memory import block_activations, logits, memory, states
from autoscale_ds.sizing.stages import stages

LARGE = GPT2Config(**GPT2Config.presets["gpt2_large"])


def model_of(shape, dtype):
    model = GPT2(shape)
    initialise(model, 0)
    return model.to(dtype).train()


def saved_by_forward(model, tokens):
    """Return the bytes autograd keeps for backward, parameters not counted; every storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens[:, :-1], tokens[:, 1:]).mean()
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("layers", "heads", "width", "batch", "time"), [(3, 4, 64, 2, 48), (2, 4, 128, 3, 128)])
def test_planned_activations_are_what_a_forward_pass_saves(layers, heads, width, batch, time, checkpointing, dtype):
    """Within 1 %: positions, and norms whose statistics are bf16 on a CPU, are not counted to the byte."""
    shape = GPT2Config(layers, heads, width, time, 97, activation_checkpointing=checkpointing, loss_chunk_tokens=16)
    training = Training(shape, time, batch, bf16=dtype == torch.bfloat16)
    planned = memory(training, Layout(1, 1, 1, 1, batch, checkpointing)).activations
    if checkpointing:  # the block computed again exists in backward only
        planned -= block_activations(training, batch * time)
    found = saved_by_forward(model_of(shape, dtype), torch.randint(97, (batch, time + 1)))
    assert planned == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planned_logits_are_the_peak_of_the_loss_in_chunks(dtype):
    """The allocator's own peak; within 15 %: gradients of the head's input are small here, not nothing."""
    head = LanguageModelHead(64, 2048, 2000, 256).to(dtype)
    torch.nn.init.normal_(head.weight, std=0.02)
    hidden = torch.randn(1, 1024, 64, dtype=dtype, requires_grad=True)
    head.weight.grad = torch.zeros_like(head.weight)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        head(hidden, torch.randint(2000, (1, 1024))).mean().backward()
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak = max(torch.tensor([change for _, change in changes]).cumsum(0).tolist())
    shape = GPT2Config(1, 4, 64, 1024, 2000, loss_chunk_tokens=256)
    assert logits(Training(shape, 1024, 1, dtype == torch.bfloat16), 1024) == pytest.approx(peak, rel=0.15)


def test_block_activations_in_bf16_are_korthikantis_less_masks_and_attention_matrices():
    """Equation 2 of arXiv 2205.05198 without its 5as/h: sbh (10 + 24/t), two bytes of it dropout masks."""
    tokens, width = 8 * 1024, LARGE.width
    training = Training(LARGE, 1024, 8)
    for tensor in (1, 2, 4):
        statistics = 4 * tokens * (LARGE.heads / tensor + 4)
        found = block_activations(training, tokens, tensor) - statistics
        assert found == pytest.approx(tokens * width * (10 + 24 / tensor - 2))


def test_states_of_gpt2_large_on_eight_gpus_in_gigabytes():
    """P = 774.09M with 47 padding rows: 2P, 6P, 12P/8 at ZeRO 1; 2P, 4P/8, 12P/8; 2P/8, 4P/8, 12P/8."""
    parameters = stages(LARGE, Layout(1, 1, 8, 1, 1))[0].parameters
    assert parameters == LARGE.num_parameters + 47 * 1280
    found = {zero: [round(part / 1e9, 2) for part in states(parameters, 8, zero, bf16=True)] for zero in (1, 2, 3)}
    assert found == {1: [1.55, 4.64, 1.16], 2: [1.55, 0.39, 1.16], 3: [0.19, 0.39, 1.16]}
    assert sum(states(parameters, 1, 0, bf16=False)) == 16 * parameters


@pytest.mark.parametrize("pipeline", [2, 3, 4, 8])
def test_a_pipeline_holds_every_block_once_and_the_embedding_twice(pipeline):
    parts = stages(LARGE, Layout(1, pipeline, 1, 1, 1))
    assert sum(part.blocks for part in parts) == LARGE.layers
    assert len(parts) == pipeline
    twice = LARGE.padded_vocabulary * LARGE.width
    whole = stages(LARGE, Layout(1, 1, 1, 1, 1))[0].parameters
    assert sum(part.parameters for part in parts) == whole + twice
    assert max(part.parameters for part in parts) < (whole + twice) / pipeline + twice
    assert [part.has_head for part in parts] == [False] * (pipeline - 1) + [True]


def test_a_pipeline_with_more_stages_than_it_can_fill_evenly_still_fills_all():
    shape = GPT2Config(2, 2, 64, 32, 50_000)  # the embedding is most of it
    assert [part.index for part in stages(shape, Layout(1, 2, 1, 1, 1))] == [0, 1]


def test_tensor_parallel_ranks_share_matrices_and_the_vocabulary():
    whole, half = (stages(LARGE, Layout(tensor, 1, 1, 1, 1))[0].parameters for tensor in (1, 2))
    matrices = LARGE.layers * (12 * LARGE.width**2 + 7 * LARGE.width)
    vocabulary = 50304 * LARGE.width
    assert whole - half == (matrices + vocabulary) // 2
    whole, half = (logits(Training(LARGE, 1024, 8), 8192, tensor) for tensor in (1, 2))
    assert whole == 2 * half


def test_a_vocabulary_that_does_not_divide_stays_whole():
    whole, fifth = (stages(LARGE, Layout(tensor, 1, 1, 1, 1))[0].parameters for tensor in (1, 5))
    assert whole - fifth == LARGE.layers * (12 * LARGE.width**2 + 7 * LARGE.width) * 4 // 5


def test_more_of_a_thing_never_needs_less_of_it():
    training = Training(LARGE, 1024, 64)
    by_micro = [memory(training, Layout(1, 1, 8, 1, micro)).total for micro in (1, 2, 4, 8)]
    assert by_micro == sorted(by_micro)
    by_data = [memory(training, Layout(1, 1, data, 1, 1)).total for data in (1, 2, 4, 8)]
    assert by_data == sorted(by_data, reverse=True)
    plain, saving = (memory(training, Layout(1, 1, 8, 1, 8, flag)) for flag in (False, True))
    assert saving.activations < plain.activations / 5

"""The loss over a shared-out vocabulary, against the whole head in one process."""

import pytest
import torch
import torch.distributed as dist
from forked import fork_server
from jobs import free_port

from autoscale_ds.models import initialise
from autoscale_ds.models.gpt2 import GPT2, GPT2Config
from autoscale_ds.training.engine.vocabulary import share_vocabulary

RANKS, TOKENS = 4, torch.arange(50).view(2, 25) * 7 % 30
# 30 tokens in 64 rows: rank 1 holds some padding, ranks 2 and 3 nothing else. Chunks of 16 of the 48 tokens.
SHAPE = GPT2Config(2, 2, 32, 24, vocabulary=30, loss_chunk_tokens=16)


def losses_and_gradients(model):
    losses = model(TOKENS[:, :-1], TOKENS[:, 1:])
    (losses * torch.linspace(0.1, 1, 24)).sum().backward()
    logits = model(TOKENS[:, :-1], logits_at=-1).detach()
    return (losses.detach(), logits), {name: parameter.grad for name, parameter in model.named_parameters()}


def new_model():
    model = GPT2(SHAPE)
    initialise(model, 3)
    return model


def on_a_rank(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    model = new_model()
    assert share_vocabulary(model, SHAPE, dist.group.WORLD)
    torch.save(losses_and_gradients(model), folder / str(rank))
    dist.destroy_process_group()


@pytest.mark.slow
def test_losses_and_gradients_of_four_ranks_equal_those_of_the_whole_model(tmp_path):
    port = free_port()
    ranks = [fork_server().Process(target=on_a_rank, args=(rank, port, tmp_path)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * RANKS
    expected, whole = losses_and_gradients(new_model())
    parts = []
    for rank in range(RANKS):
        outputs, gradients = torch.load(tmp_path / str(rank))
        torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=1e-6)
        assert gradients["tokens.weight"].shape == (16, 32)
        parts.append(gradients.pop("tokens.weight"))
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, whole[name], atol=1e-6, rtol=1e-5, msg=name)
    torch.testing.assert_close(torch.cat(parts), whole["tokens.weight"], atol=1e-6, rtol=1e-5)

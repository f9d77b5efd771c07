import dataclasses
import itertools

import pytest

from autoscale_ds.errors import ConfigError
from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.sizing.cluster import Cluster, known_gpu
from autoscale_ds.sizing.layout import Layout, Training, layouts, parse
from autoscale_ds.sizing.plan import plan, rank, step_flops
from autoscale_ds.sizing.stages import stages
from autoscale_ds.sizing.traffic import traffic

LARGE = GPT2Config(**GPT2Config.presets["gpt2_large"])
TRAINING = Training(LARGE, 1024, 64)
H100 = Cluster(16, 8, **known_gpu("h100"))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(3, 1, 4, 1, 1), "tensor is 3, but the model has 20 attention heads, which it must divide"),
        (Layout(1, 37, 1, 1, 1), "the model has only 36 layers"),
        (Layout(1, 2, 4, 2, 1), "a pipeline adds gradients up over its micro-batches"),
        (Layout(2, 2, 4, 1, 1), "one of these ways at a time"),
        (Layout(1, 1, 16, 0, 1), "bf16 at ZeRO 0 has no fp32 master weights"),
        (Layout(1, 1, 16, 4, 1), "zero=4.*zero is 0 to 3"),
        (Layout(1, 1, 16, 1, 3), "64 is not a multiple of micro-batch 3 x data 16 = 48"),
    ],
)
def test_an_impossible_layout_is_refused_with_its_rule(layout, message):
    with pytest.raises(ConfigError, match=message):
        plan(TRAINING, layout, H100)


def test_all_layouts_found_are_possible_use_all_gpus_and_differ():
    found = list(layouts(TRAINING, 16))
    for layout in found:
        layout.check(TRAINING)
        assert layout.gpus == 16
    assert len(set(found)) == len(found)
    assert {layout.zero for layout in found} == {1, 2, 3}
    assert {layout.tensor for layout in found} == {1, 2, 4}
    assert {layout.pipeline for layout in found} == {1, 2, 4, 8, 16}


def test_a_layout_is_read_as_it_is_written():
    layout = Layout(2, 1, 8, 3, 4, checkpointing=True)
    assert parse(layout.name, 16) == layout
    assert parse("zero=2,micro=4", 16) == Layout(1, 1, 16, 2, 4)


@pytest.mark.parametrize("text", ["t=3", "d=4", "t=0", "x=1", "t=two", "micro"])
def test_a_layout_that_cannot_be_read_or_does_not_make_up_the_gpus_is_refused(text):
    with pytest.raises(ConfigError, match="--layout"):
        parse(text, 16)


def test_bytes_between_copies_are_the_rings():
    """2 (n-1)/n a byte for an all-reduce, half for a scatter or gather; ZeRO 3 gathers twice a micro-batch."""
    parameters = stages(LARGE, Layout(1, 1, 8, 1, 1))[0].parameters
    once = 7 / 8 * parameters
    one, two, three = (traffic(TRAINING, Layout(1, 1, 8, zero, 4)) for zero in (1, 2, 3))
    assert (one.gradients, one.weights) == (2 * 4 * once, 2 * once)
    assert (two.gradients, two.weights) == (2 * 2 * once, 2 * once)  # two micro-batches a step
    assert (three.gradients, three.weights) == (2 * 2 * once, 2 * 2 * 2 * once)
    assert one.tensor == one.pipeline == traffic(TRAINING, Layout(1, 1, 1, 1, 4)).total == 0


def test_tensor_parallelism_adds_up_activations_four_times_a_block_or_six_and_twice_for_the_vocabulary():
    activation = 4 * 1024 * 1280 * 2
    found = [traffic(TRAINING, Layout(2, 1, 8, 1, 4, flag)).tensor for flag in (False, True)]
    accumulation = 2
    assert found == [accumulation * (36 * times + 2) * activation for times in (4, 6)]


def test_ranks_of_other_nodes_are_reached_over_the_network():
    assert H100.bandwidth(8) == 450e9
    assert H100.bandwidth(16) == 50e9


def test_the_bubble_of_a_pipeline_is_its_stages_less_one_over_its_micro_batches():
    found = plan(TRAINING, Layout(1, 4, 4, 1, 2), H100)
    assert found.idle / found.compute == pytest.approx(3 / 8)


def test_without_communication_a_step_is_its_flops_at_the_efficiency():
    single = dataclasses.replace(H100, gpus=1)
    found = plan(TRAINING, Layout(1, 1, 1, 1, 4), single, efficiency=0.5)
    assert found.step == pytest.approx(64 * 1024 * LARGE.flops_per_token(1024) / (989e12 * 0.5))
    assert found.mfu == pytest.approx(0.5)


def test_activation_checkpointing_costs_at_most_a_third_more_arithmetic():
    plain, again = (step_flops(TRAINING, Layout(1, 1, 16, 1, 4, flag)) for flag in (False, True))
    assert 1.25 < again / plain < 4 / 3


def test_layouts_that_fit_come_first_and_faster_ones_before_slower():
    small = dataclasses.replace(H100, memory=12e9)
    plans = rank(plan(TRAINING, layout, small) for layout in layouts(TRAINING, 16))
    fitting = [found for found in plans if found.fits]
    assert 0 < len(fitting) < len(plans)
    assert plans[: len(fitting)] == fitting
    assert all(before.step <= after.step * 1.1 for before, after in itertools.pairwise(fitting))
    rest = [found.over for found in plans[len(fitting) :]]
    assert rest == sorted(rest)
    assert all(found.memory.total == pytest.approx(12e9 + found.over) for found in plans[len(fitting) :])


def test_on_one_node_a_small_model_needs_neither_tensor_nor_pipeline_parallelism():
    training = Training(LARGE, 1024, 512)
    node = dataclasses.replace(H100, gpus=8)
    best = rank(plan(training, layout, node) for layout in layouts(training, 8))[0].layout
    assert (best.tensor, best.pipeline, best.data) == (1, 1, 8)


@pytest.mark.parametrize(("name", "value"), [("gpus", 0), ("memory", -1.0), ("inter_node", 0.0), ("gpus", 12)])
def test_a_cluster_that_cannot_be_is_refused(name, value):
    with pytest.raises(ConfigError):
        dataclasses.replace(H100, **{name: value})

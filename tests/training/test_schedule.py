import pytest

from autoscale_ds.training.config import ScheduleConfig
from autoscale_ds.training.schedule import learning_rate


def rates(kind, tokens, **more):
    schedule = ScheduleConfig(kind=kind, warmup_tokens=100, final_fraction=0.1, **more)
    return [learning_rate(t, 1100, 1.0, schedule) for t in tokens]


def test_warm_up_rises_in_a_straight_line():
    assert rates("cosine", [0, 25, 50, 100]) == pytest.approx([0, 0.25, 0.5, 1])


def test_cosine_passes_its_middle_half_way_and_ends_at_the_final_fraction():
    assert rates("cosine", [100, 600, 1100]) == pytest.approx([1, 0.55, 0.1])


def test_linear_descends_in_a_straight_line():
    assert rates("linear", [100, 600, 1100]) == pytest.approx([1, 0.55, 0.1])
    assert rates("linear", [350]) == pytest.approx([0.775])


def test_constant_with_cooldown_is_flat_until_the_cooldown():
    assert rates("constant_with_cooldown", [100, 899, 900, 1000, 1100], cooldown_tokens=200) == pytest.approx(
        [1, 1, 1, 0.55, 0.1]
    )


def test_the_rate_stays_at_its_end_beyond_the_budget():
    assert rates("linear", [5000]) == pytest.approx([0.1])

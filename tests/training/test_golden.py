"""The losses of a short run, kept: a change of structure must not change what is computed.

Recorded at the commit before the model, objective and engine seams. The run of ``layouts_job.py`` in one process: 20
steps of 8 x 32 tokens, ZeRO 1, weights swapped at step 7, stopped at step 12 and resumed. The corpus, the initial
weights and the order of samples are functions of seeds. Last bits differ between processors, so 1e-5 is allowed; on
one machine the records were equal bit for bit.
"""

import pytest
from jobs import losses, read_metrics, settings
from layouts_job import STEPS, train

TRAIN = [
    4.541496,
    4.532978,
    4.439619,
    4.391807,
    4.324903,
    4.213917,
    4.12219,
    4.053838,
    4.000922,
    3.933587,
    3.887383,
    3.806482,
    3.834035,
    3.762972,
    3.851803,
    3.743948,
    3.785324,
    3.821843,
    3.701764,
    3.616398,
]
VALIDATION = {0: 4.561716, 10: 3.891773, 20: 3.714097}


def test_a_short_run_has_the_losses_it_always_had(one_rank, small_corpus, tmp_path):
    ranks, device = one_rank
    tree = settings(tmp_path / "run", small_corpus, budget_tokens=STEPS * 8 * 32)
    ds = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 1}}
    assert [train(tree, ds, ranks, device) for _ in range(2)] == [75, 0]
    assert [loss for loss, _ in losses(tmp_path / "run").values()] == pytest.approx(TRAIN, abs=1e-5)
    scores = {record["step"]: record["loss"] for record in read_metrics(tmp_path / "run", "validation")}
    assert scores == pytest.approx(VALIDATION, abs=1e-5)

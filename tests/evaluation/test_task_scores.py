"""Scores of tasks while a run trains: those of its checkpoint, and a training that does not notice them."""

import json

import pytest
import torch
from jobs import losses, read_metrics
from tiny_models import text_corpus

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'autoscale_ds[eval]')")

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation import harness
from autoscale_ds.evaluation.engine_scorer import EngineScorer
from autoscale_ds.evaluation.task_scores import TaskScores
from autoscale_ds.training.trained import open_trained

TASKS = ["lambada", "hellaswag", "boolq", "blimp_passive_1"]  # the last has no contexts


@pytest.fixture
def text(tmp_path):
    return {"data.corpus": str(text_corpus(tmp_path / "text")), "mixture.weights": {"web": 0.5, "code": 0.5}}


@pytest.fixture
def asked(data):
    return {"evaluation.tasks": TASKS, "evaluation.tasks_data": str(data), "evaluation.tasks_every_steps": 2}


def test_scores_in_training_are_those_of_the_checkpoint_and_training_does_not_notice(
    make_trainer, text, asked, data, over_trained, tmp_path
):
    plain = make_trainer(folder="plain", budget_tokens=3 * 256, **text)
    assert plain.fit() == 0
    plain.close()
    trainer = make_trainer(folder="scored", budget_tokens=3 * 256, **text, **asked)
    assert trainer.fit() == 0
    trainer.close()
    assert losses(trainer.folder.path) == losses(plain.folder.path)

    records = read_metrics(trainer.folder.path, "scores")
    assert [record["step"] for record in records] == [0, 2, 3]  # also before the first step
    expected = harness.run_tasks(over_trained(trainer.folder.path), harness.load_tasks(TASKS, data))
    for result in expected:
        metrics = {name: figure.value for name, figure in result.metrics.items()}
        assert records[-1]["metrics"][result.task] == pytest.approx(metrics, rel=1e-3)
    assert records[-1]["score"]["hellaswag"] == records[-1]["metrics"]["hellaswag"]["acc_norm"]
    assert records[-1]["score"]["lambada_openai"] == records[-1]["metrics"]["lambada_openai"]["acc"]
    assert records[-1]["standard_error"]["boolq"] == pytest.approx(0.5, abs=0.5)
    assert records[-1]["truncated"] > 0


@pytest.fixture
def over_trained():
    """Return lm-eval's view of a run's last checkpoint that reads as many tokens as its training sequences have."""
    from tiny_models import over

    def make(folder):
        made = over(open_trained(folder))
        made.scorer.context = 32
        return made

    return make


def test_an_interrupted_scoring_records_nothing(make_trainer, text, asked):
    trainer = make_trainer(budget_tokens=256, **text, **asked)
    (scores,) = [each for each in trainer.parts.evaluations if isinstance(each, TaskScores)]
    calls = iter([False, True])

    class Site:
        engine, device, rank, world_size = trainer.parts.engine, torch.device("cpu"), 0, 1

        @staticmethod
        def interrupted():
            return next(calls)

    assert scores.run(Site) is None
    trainer.close()


def test_a_continuation_longer_than_a_sequence_is_refused(make_trainer, text):
    trainer = make_trainer(budget_tokens=256, **text)
    scorer = EngineScorer(None, 32)
    with pytest.raises(ConfigError, match="33 tokens, the run reads 32 at once; leave the task out"):
        scorer.log_likelihoods([([0], list(range(33)))])
    trainer.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation.tasks_data": "/nowhere"}, r"evaluation\.tasks_data is /nowhere, which is no folder"),
        ({"objective.kind": "every_third"}, r"evaluation\.tasks scores continuations from left to right"),
    ],
)
def test_tasks_that_cannot_be_scored_are_refused_before_step_0(make_trainer, text, asked, changes, message):
    import every_third  # noqa: F401 - registers itself

    with pytest.raises(ConfigError, match=message):
        make_trainer(budget_tokens=256, **text, **(asked | changes))


def test_a_continuation_that_no_sequence_holds_is_refused_before_step_0_with_its_task(make_trainer, text, asked):
    message = r"a continuation of task hellaswag has \d+ tokens, more than data\.sequence_length=4 reads at once"
    changes = {"data.sequence_length": 4}
    with pytest.raises(ConfigError, match=message):
        make_trainer(budget_tokens=256, **text, **(asked | changes))


def test_a_task_that_generates_text_is_refused(make_trainer, text, asked, data, tmp_path):
    (tmp_path / "asked.jsonl").write_text(json.dumps({"question": "yes", "answer": "no"}) + "\n")
    (tmp_path / "talk.yaml").write_text(
        "task: talk\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        "dataset_kwargs: {data_files: {test: asked.jsonl}}\n"
        "doc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
    )
    changes = {"evaluation.tasks": [str(tmp_path / "talk.yaml")], "evaluation.tasks_data": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"task talk of evaluation\.tasks generates text"):
        make_trainer(budget_tokens=256, **text, **(asked | changes))

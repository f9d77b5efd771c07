"""A toy evaluation in one file, registered by one line: how often the model's next token is the end of a document."""

import pytest
import torch
from jobs import read_metrics

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.base import Evaluation
from autoscale_ds.evaluation.registry import EVALUATIONS
from autoscale_ds.report.build import build


class EndOfDocument(Evaluation):
    name = "end_of_document"
    needs = frozenset({"next_token_logits"})
    every_steps = 7

    def is_empty(self):
        return False

    def run(self, site):
        if site.interrupted():
            return None
        prompts = torch.arange(1, 17, device=site.device).view(2, 8)
        return {"probability": site.engine.next_token_logits(prompts).softmax(-1)[:, 0].mean().item()}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(EVALUATIONS, "end_of_document", lambda run, corpus: EndOfDocument())


def test_a_new_evaluation_runs_when_due_once_each_and_is_in_the_report(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.on_record = lambda record: setattr(trainer.stop, "requested", record["step"] >= 14)
    assert trainer.fit() == 75
    trainer.close()
    again = make_trainer()
    assert again.fit() == 0
    again.close()
    records = read_metrics(again.folder.path, "end_of_document")
    assert [record["step"] for record in records] == [0, 7, 14, 21, 28, 30]
    assert all(0 < record["probability"] < 1 for record in records)
    assert [record["step"] for record in read_metrics(again.folder.path, "validation")] == [0, 10, 20, 30]
    html = build([again.folder.path], tmp_path / "report").read_text()
    assert "end_of_document" in html
    assert "probability" in html


def test_an_evaluation_that_needs_what_the_engine_lacks_is_refused_before_step_0(make_trainer, monkeypatch):
    monkeypatch.setattr(EndOfDocument, "needs", frozenset({"embeddings"}))
    with pytest.raises(ConfigError, match="evaluation end_of_document needs embeddings of the engine"):
        make_trainer()

"""Targets: held-out text whose loss is measured beside that of the domains, and that no weight can reach."""

import pytest
import torch
from jobs import SIZES, losses, read_metrics

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.objectives import Batch
from autoscale_ds.report.build import build


def test_losses_of_targets_are_measured_beside_those_of_domains(make_trainer, measured_corpus, tmp_path):
    plain = make_trainer(folder="plain")
    assert plain.fit() == 0
    plain.close()
    trainer = make_trainer(**{"data.corpus": str(measured_corpus)})
    trainer.on_record = lambda record: setattr(trainer.stop, "requested", record["step"] >= 14)
    assert trainer.fit() == 75
    trainer.close()
    again = make_trainer(**{"data.corpus": str(measured_corpus)})
    assert again.fit() == 0
    records = read_metrics(again.folder.path, "targets")
    assert [record["step"] for record in records] == [0, 10, 20, 30]

    store = Corpus(measured_corpus).store("exams", "validation")  # 18 windows, of which 6 are measured
    windows = torch.stack([torch.from_numpy(store.read(32 * 3 * j, 33).astype("int64")) for j in range(6)])
    expected = [
        again.parts.engine.losses(Batch(part, torch.zeros(len(part), dtype=torch.long))).losses
        for part in windows.split(2)
    ]
    again.close()
    assert records[-1]["target_loss"]["exams"] == pytest.approx(torch.cat(expected).mean().item(), rel=1e-5)
    bits = records[-1]["target_loss"]["exams"] / 0.6931471805599453 / 4  # the corpus says four bytes a token
    assert records[-1]["bits_per_byte"]["exams"] == pytest.approx(bits)
    assert records[-1]["target_loss"]["exams"] < records[0]["target_loss"]["exams"]

    # Nothing else is moved by a target: neither the data, nor the mean over domains.
    assert losses(again.folder.path) == losses(plain.folder.path)
    validations = [read_metrics(each.folder.path, "validation") for each in (plain, again)]
    assert validations[0] == validations[1]
    html = build([again.folder.path], tmp_path / "report").read_text()
    assert "Loss of each target, text that is never trained on, in bits per byte" in html
    assert "last bits per byte" in html


def test_a_target_can_have_no_weight_at_start_nor_in_a_swap(make_trainer, measured_corpus):
    weights = {"web": 0.5, "code": 0.2, "books": 0.2, "exams": 0.1}
    with pytest.raises(AutoScaleError, match="exams is a target, held-out text that is never trained on"):
        make_trainer(folder="refused", **{"data.corpus": str(measured_corpus), "mixture.weights": weights}).fit()
    trainer = make_trainer(**{"data.corpus": str(measured_corpus), "budget_tokens": 512})
    mixture = trainer.folder.path / "mixture"
    (mixture / "inbox").mkdir(parents=True, exist_ok=True)
    (mixture / "inbox" / "w.json").write_text('{"weights": {"web": 0.5, "code": 0.2, "books": 0.2, "exams": 0.1}}')
    assert trainer.fit() == 0
    trainer.close()
    reasons = [path.read_text() for path in (mixture / "rejected").iterdir()]
    assert any("unknown domain 'exams'" in reason for reason in reasons)


def test_a_target_shorter_than_a_window_is_said_and_left_out(make_trainer, corpus_of, caplog):
    corpus = corpus_of(SIZES, validation_tokens=32, targets=("exams",))
    trainer = make_trainer(**{"data.corpus": str(corpus), "budget_tokens": 512})
    assert "target exams is not measured: it has 32 tokens" in caplog.text
    assert trainer.fit() == 0
    trainer.close()
    assert read_metrics(trainer.folder.path, "targets") == []

import pytest

from autoscale_ds.errors import ReportError
from autoscale_ds.training.metrics import MetricsWriter, read_metrics
from autoscale_ds.training.record_kinds import kind_of


def test_a_resumed_run_drops_the_records_of_steps_it_does_again_but_no_swap(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, 0, None)
    for step in range(1, 6):
        writer.write({"kind": "train", "step": step, "loss": 1.0 / step})
        if step == 4:
            writer.write({"kind": "swap", "step": step, "version": 1})
    writer.close()
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')  # torn by the kill
    MetricsWriter(path, 2, None).close()
    assert [(record["kind"], record["step"]) for record in read_metrics(path)] == [
        ("train", 1),
        ("train", 2),
        ("swap", 4),
    ]


def test_a_loss_that_is_no_number_is_null_in_the_file(tmp_path):
    writer = MetricsWriter(tmp_path / "m", 0, None)
    writer.write({"kind": "train", "step": 1, "loss": float("nan"), "domain_loss": {"web": float("inf")}})
    writer.close()
    assert read_metrics(tmp_path / "m") == [{"kind": "train", "step": 1, "loss": None, "domain_loss": {"web": None}}]


def test_a_file_of_another_version_is_refused_and_one_without_a_version_is_read(tmp_path):
    (tmp_path / "old").write_text('{"kind": "train", "step": 1, "loss": 2.0}\n')
    assert read_metrics(tmp_path / "old", "train") == [{"kind": "train", "step": 1, "loss": 2.0}]
    MetricsWriter(tmp_path / "new", 0, None).close()
    assert (tmp_path / "new").read_text() == '{"kind": "format", "step": 0, "version": 1}\n'
    (tmp_path / "new").write_text('{"kind": "format", "step": 0, "version": 2}\n')
    with pytest.raises(ReportError, match="new has version 2, this program reads version 1"):
        read_metrics(tmp_path / "new")


def test_records_of_an_evaluation_nobody_listed_are_shown_by_their_numbers():
    record = {"kind": "skills", "step": 3, "tokens": 9, "addition": 0.25, "by_digits": {"1": 0.5}}
    assert kind_of(record).in_one_line(record) == "skills   addition 0.25"


def test_text_with_unicode_line_ends_stays_one_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, 0, None)
    writer.write({"kind": "swap", "step": 2, "reason": "a\u2028b\u0085c"})
    writer.write({"kind": "train", "step": 3, "loss": 1.0})
    writer.close()
    MetricsWriter(path, 2, None).close()
    assert [(r["kind"], r["step"]) for r in read_metrics(path)] == [("swap", 2)]


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "m").write_text('{"kind": "train", "step": 1}\n\n{"kind": "train", "step": 2}\n')
    with pytest.raises(ReportError, match="m is damaged: line 2 is no record"):
        read_metrics(tmp_path / "m")

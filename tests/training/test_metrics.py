from autoscale_ds.training.metrics import MetricsWriter, read_metrics


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

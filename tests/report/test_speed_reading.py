"""Learning curves of run folders, of which the losses are a known curve."""

import numpy as np
import pytest
from folders import loss_at, write_run

from autoscale_ds.errors import CurveError
from autoscale_ds.report import speed_reading
from autoscale_ds.speed.curve import select
from autoscale_ds.speed.measure import Settings, measure
from autoscale_ds.speed.threshold import Threshold


def test_a_run_folder_gives_a_curve_a_domain_on_every_axis(tmp_path):
    write_run(tmp_path / "a")
    curves, _ = speed_reading.read([str(tmp_path / "a")])
    (books,) = select(curves, metric="loss", series=["books"])
    assert books.run == "a"
    np.testing.assert_allclose(books.values, loss_at(books.axes["tokens"], 0))
    np.testing.assert_allclose(books.axes["step"] * 1000, books.axes["tokens"])
    np.testing.assert_allclose(books.axes["samples"] * 100, books.axes["tokens"])
    (speed,) = measure([books], Settings(Threshold("value", float(loss_at(100_000.0, 0)))))
    assert speed.crossing.at["step"] == pytest.approx(100)


def test_folders_of_one_name_and_a_run_that_was_never_evaluated_are_refused(tmp_path):
    write_run(tmp_path / "x" / "a")
    write_run(tmp_path / "y" / "a")
    with pytest.raises(CurveError, match="have the same name"):
        speed_reading.read([str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a")])
    (tmp_path / "y" / "a" / "metrics.jsonl").unlink()
    with pytest.raises(CurveError, match="no evaluation on record"):
        speed_reading.read([str(tmp_path / "y" / "a")])

"""A start of a run that passes its records to one logger."""

import time

from autoscale_ds.training.loggers import background
from autoscale_ds.training.loggers.base import LoggedRun
from autoscale_ds.training.metrics import MetricsWriter
from autoscale_ds.training.run_folder import RunFolder


def start(folder, resume_step, until, logger, finished=False, after=None):
    """Write train records up to a step, as one start of a run does, and two swaps after step ``after``."""
    memory = RunFolder(folder).logger("listed")
    passed_on = background.BackgroundLogger("listed", logger, LoggedRun(folder, {}, None), memory)
    writer = MetricsWriter(folder / "metrics.jsonl", resume_step, None, [passed_on])
    for step in range(max(resume_step, 0) + 1, until + 1):
        writer.write({"kind": "train", "step": step, "loss": 1.0})
        for version in (1, 2) if step == after else ():
            writer.write({"kind": "swap", "step": step, "version": version, "weights": {"web": 1.0}})
    began = time.monotonic()
    writer.close(finished)
    assert time.monotonic() - began < background.CLOSE_SECONDS + 1
    return logger

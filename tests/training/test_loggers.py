"""Weights & Biases and MLflow beside TensorBoard: one small run, stopped beyond a checkpoint and resumed."""

import importlib.util
import json
import os
import struct
import subprocess
from collections import Counter
from unittest import mock

import psutil
import pytest
from jobs import DS, settings
from logged_start import start

from autoscale_ds import config
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.loggers import registry, wandb_logger
from autoscale_ds.training.loggers.base import LoggedRun, git_commit
from autoscale_ds.training.loggers.mlflow_logger import valid_name
from autoscale_ds.training.metrics import read_metrics
from autoscale_ds.training.run_folder import RunFolder
from autoscale_ds.training.trainer import Trainer

INSTALLED = [name for name, logger in registry.LOGGERS.items() if importlib.util.find_spec(logger.package)]
needs_wandb = pytest.mark.skipif("wandb" not in INSTALLED, reason="wandb is not installed: extra loggers")
needs_mlflow = pytest.mark.skipif("mlflow" not in INSTALLED, reason="mlflow is not installed: extra loggers")
# Warnings of the two packages fail no test.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]
STOPPED_AT, CHECKPOINT, END = 8, 5, 12


class Stopped(Exception):
    """Raised between two steps, as a failure of the job would."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Both packages without a network."""
    folder = tmp_path_factory.mktemp("service")
    offline = {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DISABLE_GIT": "true",  # else W&B would find the commit by itself
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with mock.patch.dict(os.environ, offline):
        yield
        if "wandb" in INSTALLED:
            import wandb

            wandb.teardown()


@pytest.fixture(scope="module")
def logged(service, one_rank, small_corpus, tmp_path_factory):
    """Return the folder of a run and the first loss of each of its steps.

    It got to step 8, was resumed from its checkpoint of step 5 with another weight decay, and ended at 12. The weights
    were swapped after step 6, which the resumed run did again.
    """
    folder = tmp_path_factory.mktemp("logged") / "small"
    changes = {"logging.loggers": INSTALLED, "logging.tensorboard": True, "checkpoints.every_steps": CHECKPOINT}
    tree = settings(folder, small_corpus, budget_tokens=END * 256, **changes, **{"evaluation.every_steps": 4})
    ranks, device = one_rank
    losses = {}

    def note(record):
        if record["kind"] == "train":
            losses.setdefault(record["step"], record["loss"])

    def train(on_record, **more):
        run = config.build(RunConfig, {**tree, **more})
        trainer = Trainer(run, resolve(DS, run, 1), ranks, device, on_record)
        try:
            return trainer.fit()
        finally:
            trainer.close()

    def disturb(record):
        note(record)
        if (record["kind"], record["step"]) == ("train", 6):
            weights = {"web": 0.2, "code": 0.3, "books": 0.5}
            proposal = {"weights": weights, "source": "user", "reason": "more books"}
            (folder / "mixture/inbox/books.json").write_text(json.dumps(proposal))
        if (record["kind"], record["step"]) == ("train", STOPPED_AT):
            raise Stopped

    with pytest.raises(Stopped):
        train(disturb)
    first = {name: json.loads(RunFolder(folder).logger(name).read_text())["id"] for name in INSTALLED}
    assert train(note, optimizer={"learning_rate": 3e-3, "weight_decay": 0.02}) == 0
    assert {name: json.loads(RunFolder(folder).logger(name).read_text())["id"] for name in INSTALLED} == first
    return folder, losses


@pytest.fixture(scope="module")
def run(logged):
    return logged[0]


@pytest.fixture(scope="module")
def board(run):
    """Return the names and steps that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return Counter((name, point.step) for name in shown.Tags()["scalars"] for point in shown.Scalars(name))


def wandb_records(run):
    """Yield what the .wandb files of a run folder hold, in order.

    They are LevelDB logs: blocks of 32 kB, a header of 7 bytes (checksum, length, type) before each part of a record.
    W&B no longer ships a reader in Python.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        data, record, at = path.read_bytes(), b"", 7
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
            _, length, part = struct.unpack_from("<IHB", data, at)
            record += data[at + 7 : at + 7 + length]
            at += 7 + length
            if part in (1, 4):  # whole, or the last part
                yield Record.FromString(record)
                record = b""


def wandb_rows(run):
    """Return the rows of a run's history without W&B's own columns."""
    histories = (record.history for record in wandb_records(run) if record.HasField("history"))
    rows = [{i.nested_key[0]: json.loads(i.value_json) for i in history.item} for history in histories]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def mlflow_run(folder):
    from mlflow import MlflowClient

    client = MlflowClient()
    return client, client.get_run(json.loads(RunFolder(folder).logger("mlflow").read_text())["id"])


def without_swaps(points):
    return {key: count for key, count in points.items() if not key[0].startswith("swap/")}


@needs_wandb
def test_wandb_has_every_scalar_of_tensorboard_once(logged, run, board):
    rows = wandb_rows(run)
    numbers = {"swap/source", "swap/reason", "step"}
    points = Counter((name, row["step"]) for row in rows for name in row if name not in numbers)
    assert set(points.values()) == {1}
    assert without_swaps(points) == without_swaps(board)
    assert {row["step"]: row["train/loss"] for row in rows if "train/loss" in row} == logged[1]


@needs_mlflow
def test_mlflow_has_every_scalar_of_tensorboard_once(logged, run, board):
    client, known = mlflow_run(run)
    history = {name: client.get_metric_history(known.info.run_id, name) for name in known.data.metrics}
    points = Counter((name, point.step) for name, each in history.items() for point in each)
    assert set(points.values()) == {1}
    assert without_swaps(points) == without_swaps(board)
    assert {point.step: point.value for point in history["train/loss"]} == logged[1]


@needs_wandb
def test_a_swap_is_a_point_in_wandb_with_its_reason(run):
    (swap,) = read_metrics(run / "metrics.jsonl", "swap")
    numbers, words = (row for row in wandb_rows(run) if any(name.startswith("swap/") for name in row))
    assert (numbers["step"], numbers["swap/weights/books"]) == (swap["step"], 0.5)
    assert numbers["swap/effective_step"] == swap["effective_step"]
    assert words == {"step": swap["step"], "swap/source": "user", "swap/reason": "more books"}


@needs_mlflow
def test_a_swap_is_a_tag_in_mlflow(run):
    (swap,) = read_metrics(run / "metrics.jsonl", "swap")
    text = f"from step {swap['effective_step']}: web 0.2, code 0.3, books 0.5; source user: more books"
    assert mlflow_run(run)[1].data.tags["swap.1"] == text


@needs_wandb
def test_wandb_has_the_configuration_and_the_commit(run):
    starts = [record.run for record in wandb_records(run) if record.HasField("run")]
    assert {start.run_id for start in starts} == {json.loads(RunFolder(run).logger("wandb").read_text())["id"]}
    assert {start.display_name for start in starts} == {"small"}
    given = {entry.key: json.loads(entry.value_json) for entry in starts[-1].config.update}
    assert given["optimizer"]["weight_decay"] == 0.02
    assert given["deepspeed"]["zero_optimization"] == DS["zero_optimization"]
    assert starts[-1].git.commit == commit()
    codes = [record.exit.exit_code for record in wandb_records(run) if record.HasField("exit")]
    assert codes == [1, 0]  # stopped, then finished


@needs_mlflow
def test_mlflow_has_the_configuration_the_commit_and_settings_that_changed(run):
    _, known = mlflow_run(run)
    assert (known.info.run_name, known.info.status) == ("small", "FINISHED")
    assert known.data.params["mixture.weights.books"] == "0.2"
    assert known.data.params["deepspeed.zero_optimization.stage"] == "1"
    assert known.data.params["optimizer.weight_decay"] == "0.01"
    assert known.data.tags["config.optimizer.weight_decay"] == "0.02"
    assert known.data.tags.get("mlflow.source.git.commit", "") == commit()


@needs_mlflow
def test_mlflow_shows_the_last_value_of_a_setting(service, tmp_path):
    run_id, seen = None, []
    for rate in (0.1, 0.2, 0.1):
        logger = registry.LOGGERS["mlflow"]()
        run_id = logger.open(LoggedRun(tmp_path, {"rate": rate}, None), run_id)
        logger.close(finished=True)
        data = importlib.import_module("mlflow").MlflowClient().get_run(run_id).data
        seen.append((data.params["rate"], data.tags.get("config.rate")))
    assert seen == [("0.1", None), ("0.1", "0.2"), ("0.1", "0.1")]


def commit():
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_a_folder_outside_a_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert git_commit() is None


def test_mlflow_names_of_domains_with_other_characters_stay_apart():
    assert valid_name("train/domain_loss/c++ (2024)") == "train/domain_loss/c_2b__2b_ _28_2024_29_"
    assert valid_name("swap/weights/a//b") == "swap/weights/a/b"
    assert valid_name("train/domain_loss/中文") == "train/domain_loss/中文"


NOWHERE = "http://127.0.0.1:9"  # the port of "discard"; no one listens there
UNREACHABLE = {
    "wandb": {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": NOWHERE},
    "mlflow": {"MLFLOW_TRACKING_URI": NOWHERE, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
}


@pytest.mark.parametrize("name", [pytest.param("wandb", marks=needs_wandb), pytest.param("mlflow", marks=needs_mlflow)])
def test_an_unreachable_server_is_one_warning(service, tmp_path, caplog, name):
    if name == "wandb":
        importlib.import_module(name).teardown()  # it reads its settings from the environment once
    with mock.patch.dict(os.environ, UNREACHABLE[name]), mock.patch.object(wandb_logger, "INIT_SECONDS", 1.0):
        start(tmp_path, -1, 3, registry.LOGGERS[name]())
    (warning,) = (record.message for record in caplog.records if record.name.startswith("autoscale_ds"))
    assert "connection refused" in warning.lower()
    if name == "wandb":
        assert "wandb-core" not in [child.name() for child in psutil.Process().children()]

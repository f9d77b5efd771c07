"""What a run does with any logger: no step twice, no step delayed, one warning, one line where a package is missing."""

import ast
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
from jobs import ROOT, settings
from logged_start import start

from autoscale_ds import cli, config
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.loggers import background, registry
from autoscale_ds.training.loggers.base import MetricsLogger
from autoscale_ds.training.metrics import MetricsWriter, read_metrics

pytestmark = pytest.mark.timeout(120)


class Listed(MetricsLogger):
    """Keeps what it is given; fails or hangs at the steps given to it."""

    package = "json"

    def __init__(self, fails_at=None, hangs_at=None):
        self.opened, self.steps, self.swaps, self.finished, self.abandoned = [], [], [], None, False
        self._fails_at, self._hangs_at = fails_at, hangs_at
        self._released = threading.Event()

    def open(self, run, run_id):
        self.opened.append(run_id)
        return run_id or "id-1"

    def log(self, step, scalars):
        if step == self._fails_at:
            raise ConnectionError("the server\nis away")
        if step == self._hangs_at:
            self._released.wait()
            raise ConnectionError("timed out")
        self.steps.append(step)

    def log_swap(self, swap):
        self.swaps.append(swap["version"])

    def close(self, finished):
        self.finished = finished

    def abandon(self):
        self.abandoned = True
        raise ConnectionError("still away")

    def stop_hanging(self):
        """Fail where it hangs, and wait for the end of its thread."""
        self._released.set()
        for thread in threading.enumerate():
            if thread.name == "logger-listed":
                thread.join()


def test_steps_done_again_are_not_sent_again(tmp_path):
    first = start(tmp_path, -1, 13, Listed(), after=12)
    second = start(tmp_path, 10, 11, Listed())  # stops before where the first was
    third = start(tmp_path, 10, 15, Listed(), finished=True)
    assert (first.opened, second.opened, third.opened) == ([None], ["id-1"], ["id-1"])
    assert first.steps == [*range(1, 13), 12, 12, 13]
    assert (first.swaps, second.swaps, third.swaps) == ([1, 2], [], [])
    assert (second.steps, third.steps) == ([], [14, 15])
    assert (first.finished, third.finished) == (False, True)


def test_a_logger_that_fails_warns_once_and_the_next_start_sends_the_rest(tmp_path, caplog):
    first = start(tmp_path, -1, 9, Listed(fails_at=5))
    assert first.steps == [1, 2, 3, 4]
    (warning,) = caplog.messages
    assert warning.startswith("listed: ConnectionError: the server is away; training goes on without it")
    assert (first.abandoned, first.finished) == (True, None)
    second = start(tmp_path, 8, 10, Listed())
    assert second.steps == [6, 7, 8, 9, 10]  # 5 may have arrived: the service would have it twice
    assert not second.abandoned


def test_a_logger_added_later_gets_the_run_from_its_beginning(tmp_path):
    earlier = MetricsWriter(tmp_path / "metrics.jsonl", -1, None)
    earlier.write({"kind": "train", "step": 1, "loss": 2.0})
    earlier.close()
    assert start(tmp_path, 1, 3, Listed()).steps == [1, 2, 3]


def test_the_end_of_a_run_waits_for_a_logger_only_so_long(tmp_path, caplog):
    with mock.patch.object(background, "CLOSE_SECONDS", 0.3):
        logger = start(tmp_path, -1, 9, Listed(hangs_at=5))
    logger.stop_hanging()
    assert logger.steps == [1, 2, 3, 4]
    assert len(read_metrics(tmp_path / "metrics.jsonl", "train")) == 9
    (warning,) = caplog.messages
    assert "still sending 0 s after the last record" in warning


def test_a_logger_that_falls_behind_is_given_up(tmp_path, caplog):
    with mock.patch.object(background, "_MOST_WAITING", 10):
        logger = start(tmp_path, -1, 50, Listed(hangs_at=1))
    logger.stop_hanging()
    (warning,) = caplog.messages
    assert "10 records wait to be sent" in warning


def test_a_damaged_memory_of_what_was_sent_names_the_file(tmp_path, caplog):
    (tmp_path / "loggers").mkdir()
    (tmp_path / "loggers/listed.json").write_text("{")
    assert start(tmp_path, -1, 2, Listed()).opened == []
    assert "listed.json is damaged" in caplog.text


def test_an_unknown_or_repeated_logger_is_refused():
    with pytest.raises(ConfigError, match=r"logging\.loggers has 'wandbb'; did you mean wandb"):
        config.build(RunConfig, settings("run", "corpus", **{"logging.loggers": ["wandbb"]}))
    with pytest.raises(ConfigError, match=r"logging\.loggers has 'wandb' twice"):
        config.build(RunConfig, settings("run", "corpus", **{"logging.loggers": ["wandb", "wandb"]}))


@pytest.mark.parametrize("name", registry.LOGGERS)
def test_a_logger_that_is_not_installed_ends_the_start_in_one_line(make_trainer, tmp_path, capsys, name):
    missing = {registry.LOGGERS[name].package: None}  # as Python marks what cannot be imported
    with mock.patch.dict(sys.modules, missing), pytest.raises(SystemExit) as ended:
        cli.run(lambda: make_trainer(**{"logging.loggers": [name]}).fit())
    assert ended.value.code == 2
    line = f"error: logging.loggers has {name}, but {name} is not installed: pip install 'autoscale_ds[loggers]'"
    assert capsys.readouterr().err == f"{line}, or leave {name} out\n"
    assert not (tmp_path / "run").exists()


def test_a_folder_of_that_name_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with mock.patch.dict(sys.modules), mock.patch.object(sys, "path", [str(tmp_path)]):
        sys.modules.pop("wandb", None)
        with pytest.raises(ConfigError, match="wandb is not installed"):
            registry.check_installed(["wandb"])


def test_each_package_is_named_in_its_own_file_and_the_registry_alone():
    sources = {path: path.read_text() for path in (ROOT / "autoscale_ds").rglob("*.py")}
    for name, logger in registry.LOGGERS.items():
        files = [path for path, text in sources.items() if name in text and name in _names(ast.walk(ast.parse(text)))]
        assert {path.stem for path in files} == {logger.__module__.rpartition(".")[2], "registry"}


def test_importing_a_logger_does_not_import_its_package():
    for name, logger in registry.LOGGERS.items():
        source = Path(sys.modules[logger.__module__].__file__).read_text()
        assert name in _names(ast.walk(ast.parse(source)))
        assert name not in _names(ast.parse(source).body)  # what runs when the module is imported


def _names(nodes):
    """Return the modules that some nodes import, and their strings."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Constant):
            yield node.value

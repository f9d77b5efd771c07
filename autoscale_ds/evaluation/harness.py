"""Downstream tasks through lm-evaluation-harness: find them, run them over a scorer, and give figures with errors."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscale_ds.config import did_you_mean
from autoscale_ds.corpus.hub import hub_obstacle
from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.scoring import Row, Score, Scorer
from autoscale_ds.evaluation.task_files import expand, local_task, read_task_file, shipped_tasks

# For standard errors without a closed form (perplexity); lm-eval's own 100,000 take minutes.
_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Figure:
    """A metric's value and its standard error over items; None where it has none."""

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class TaskResult:
    """Figures of one task.

    Attributes
    ----------
    task : str
        Name.
    version : str
        Of the task; numbers of other versions are not comparable.
    items : int or None
        Documents measured; None for the mean of a group.
    metrics : dict of str to Figure
        By lm-eval's name of the metric, with that of its filter where there is one.
    """

    task: str
    version: str
    items: int | None
    metrics: dict[str, Figure]


def lm_eval_version() -> str:
    """Return the installed version of lm-eval; raises ConfigError when there is none."""
    from importlib.metadata import version

    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("downstream tasks need lm-eval, which is not installed; pip install 'autoscale_ds[eval]'")
    return version("lm_eval")


def load_tasks(names: Sequence[str], data: Path | None) -> dict[str, Any]:
    """Return lm-eval's tasks, ready to be run.

    Parameters
    ----------
    names : sequence of str
        Of tasks that this package has files for, of lm-eval's own, or paths of task files (``.yaml``).
    data : Path or None
        Folder with the documents of our tasks; None takes lm-eval's own tasks, whose documents come from the hub.

    Raises
    ------
    ConfigError
        For a name that there is none of, and data that is missing or cannot be used.
    """
    lm_eval_version()
    chosen: dict[str, Any] = {"tasks": {}, "groups": {}}
    with _quiet():
        for name in expand(list(names)):
            loaded = _load(name, data)
            for kind in chosen:
                chosen[kind].update(loaded.get(kind, {}))
    return chosen


def _load(name: str, data: Path | None) -> dict[str, Any]:
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and (data is None or name not in shipped_tasks()):
        return _load_from_hub(name)
    path = Path(name) if is_file else shipped_tasks()[name]
    if is_file and not path.is_file():
        raise ConfigError(f"task file {path} does not exist")
    local = data is not None and (read_task_file(path).get("dataset_kwargs") or {}).get("data_files")
    config = local_task(path, data) if local and data is not None else read_task_file(path)
    return {"tasks": {config["task"]: _built(config, path)}}


def _built(config: dict[str, Any], path: Path) -> Any:
    from lm_eval.api.task import ConfigurableTask

    try:
        return ConfigurableTask(config=dict(config))
    except Exception as error:  # of templates, of data files it names itself
        raise ConfigError(f"task {config['task']} of {path} cannot be used: {_reason(error)}") from None


def _load_from_hub(name: str) -> dict[str, Any]:
    """Return one of lm-eval's own tasks or groups of tasks; raises ConfigError when its data cannot be had."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if name not in manager.task_index:
        hint = did_you_mean(name, [*shipped_tasks(), *manager.all_tasks])
        raise ConfigError(f"there is no task {name!r}{hint or '; lm-eval ls tasks lists all'}")
    obstacle = hub_obstacle()
    if obstacle is not None:
        _use_the_cache_alone()
    try:
        loaded: dict[str, Any] = manager.load([name])
    except Exception as error:  # of the hub's client, which raises many
        advice = "give them with" if name in shipped_tasks() else f"take one of {', '.join(shipped_tasks())} with"
        raise ConfigError(
            f"the documents of task {name} come from the Hugging Face hub, which did not give them "
            f"({obstacle or _reason(error):.150}); {advice} --data FOLDER (evaluation.tasks_data of a run)"
        ) from None
    return loaded


def _use_the_cache_alone() -> None:
    """Let `datasets` look in its cache only, for the rest of the process: its client retries for half a minute."""
    import datasets
    import huggingface_hub.constants

    datasets.config.HF_HUB_OFFLINE = True
    huggingface_hub.constants.HF_HUB_OFFLINE = True


def run_tasks(model: Any, tasks: dict[str, Any], limit: int | None = None) -> list[TaskResult]:
    """Return the figures of each task.

    Parameters
    ----------
    model : lm_eval.api.model.LM
        See ``adapted`` and ``hf_backend``.
    tasks : dict
        From ``load_tasks``.
    limit : int or None
        Only the first items of each task.
    """
    from lm_eval.evaluator import evaluate

    with _quiet():
        results = evaluate(model, tasks, limit=limit, bootstrap_iters=_BOOTSTRAPS, log_samples=False)
    assert results is not None
    items, versions = results["n-samples"], results["versions"]
    return [
        TaskResult(
            task,
            str(versions.get(task, "none")),
            int(items[task]["effective"]) if task in items else None,
            _figures(metrics),
        )
        for task, metrics in results["results"].items()
    ]


class _Lengths:
    """A scorer that computes nothing, and keeps the tokens of the longest continuation."""

    context, truncated, longest = 0, 0, 0

    def log_likelihoods(self, rows: Sequence[Row]) -> list[Score]:
        self.longest = max([self.longest, *(len(continuation) for _, continuation in rows)])
        return [Score(0.0, True)] * len(rows)

    def greedy(self, prompts: Any, max_tokens: int, stop: Any) -> list[list[int]]:
        raise NotImplementedError


def longest_continuations(
    model_of: Callable[[Scorer], Any], tasks: dict[str, Any], limit: int | None = None
) -> dict[str, int]:
    """Return the tokens of each task's longest continuation, without a model; 0 for a task that has none.

    Parameters
    ----------
    model_of : callable
        Given a scorer, returns lm-eval's view of it, see ``adapted``.
    """
    longest = {}
    with _quiet():
        for name, task in tasks["tasks"].items():
            task.build_all_requests(limit=limit, rank=0, world_size=1)
            lengths = _Lengths()
            asked = [request for request in task.instances if request.request_type == "loglikelihood"]
            model_of(lengths).loglikelihood(asked)
            longest[name] = lengths.longest
    return longest


def _figures(metrics: dict[str, Any]) -> dict[str, Figure]:
    """Return the metrics of ``{"acc,none": 0.5, "acc_stderr,none": 0.1}``."""
    figures = {}
    for key, value in metrics.items():
        name, comma, kind = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        error = metrics.get(f"{name}_stderr,{kind}")
        named = name if kind == "none" else f"{name} ({kind})"
        figures[named] = Figure(float(value), float(error) if isinstance(error, (int, float)) else None)
    return figures


def num_requests(tasks: dict[str, Any], limit: int | None) -> int:
    """Return how many requests the tasks make of a model, about: a document has as many as it has choices."""
    total = 0
    for task in tasks["tasks"].values():
        documents = task.task_docs if hasattr(task, "task_docs") else task.eval_docs
        count = len(documents) if limit is None else min(limit, len(documents))
        choices = task.doc_to_choice(documents[0]) if task.OUTPUT_TYPE == "multiple_choice" else [None]
        total += count * len(choices)
    return total


def adapted(
    scorer: Scorer, encode: Callable[[str], list[int]], decode: Callable[[Sequence[int]], str], end_of_document: int
) -> Any:
    """Return lm-eval's view of a scorer, see ``lm_adapter.ScorerLM``."""
    lm_eval_version()
    from autoscale_ds.evaluation.lm_adapter import ScorerLM

    return ScorerLM(scorer, encode, decode, end_of_document)


def hf_backend(folder: Path, batch_size: int, device: str, advance: Callable[[int], None]) -> Any:
    """Return lm-eval's own model of a Hugging Face folder, see ``hf_adapter.HuggingFaceLM``."""
    lm_eval_version()
    missing = next((name for name in ("accelerate", "peft") if importlib.util.find_spec(name) is None), None)
    if missing:
        raise ConfigError(f"--backend hf needs {missing}, which is not installed; pip install 'autoscale_ds[eval]'")
    from autoscale_ds.evaluation.hf_adapter import HuggingFaceLM

    with _quiet():
        return HuggingFaceLM(str(folder), batch_size, device, advance)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval from printing, from its warnings and bars, and from starting processes for its bootstrap."""
    import datasets
    from tqdm import tqdm

    datasets.disable_progress_bars()
    logger, variable = logging.getLogger("lm_eval"), "DISABLE_MULTIPROC"
    level, before, begin = logger.level, os.environ.get(variable), tqdm.__init__
    logger.setLevel(logging.ERROR)
    os.environ[variable] = "1"
    tqdm.__init__ = functools.partialmethod(begin, disable=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = begin
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__

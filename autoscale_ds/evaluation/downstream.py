"""Everything ``tools/evaluate.py`` measures of a trained model, and the record it writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation import harness
from autoscale_ds.evaluation.harness import TaskResult
from autoscale_ds.evaluation.rank_sharing import SharedScorer
from autoscale_ds.evaluation.scoring import ModelScorer, Scorer
from autoscale_ds.evaluation.text_perplexity import TextScore, text_score
from autoscale_ds.files import finite
from autoscale_ds.training.distributed import Ranks, gather_objects
from autoscale_ds.training.trained import TrainedModel, described, is_hf_folder, text_to_ids

_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What to measure, and how.

    Attributes
    ----------
    tasks : sequence of str
        Names of tasks or paths of task files.
    data : Path or None
        Folder with the documents of our tasks.
    texts : sequence of Path
        UTF-8 files whose perplexity is measured.
    stride : int or None
        Tokens a window moves over a text; None is half the model's context.
    limit : int or None
        Only the first items of each task.
    batch_size : int
        Rows of a forward pass.
    backend : {"ours", "hf"}
        Who scores the tasks: this package, or lm-eval's own backend for Hugging Face folders.
    """

    tasks: Sequence[str] = ()
    data: Path | None = None
    texts: Sequence[Path] = ()
    stride: int | None = None
    limit: int | None = None
    batch_size: int = 16
    backend: Literal["ours", "hf"] = "ours"


@dataclass
class Measured:
    """Results of a plan."""

    tasks: list[TaskResult] = field(default_factory=list)
    texts: dict[str, TextScore] = field(default_factory=dict)
    truncated: int | None = None
    """Requests that were longer than the model's context; None where lm-eval's backend does not say."""
    seconds: float = 0.0


def load(plan: Plan, folder: Path, world_size: int = 1) -> dict[str, Any]:
    """Return the plan's tasks with their documents, before a model is loaded; raises ConfigError for a bad plan."""
    if not plan.tasks and not plan.texts:
        raise ConfigError("there is nothing to measure; give --tasks NAME,NAME or --text FILE")
    if plan.backend == "hf" and not is_hf_folder(folder):
        raise ConfigError(f"{folder} is no Hugging Face folder; --backend hf needs one: tools/export_hf.py writes it")
    if plan.backend == "hf" and world_size > 1:
        raise ConfigError(f"--backend hf works on one rank, {world_size} were started; leave torchrun or --backend out")
    for path in plan.texts:
        read_text(path)
    return harness.load_tasks(plan.tasks, plan.data) if plan.tasks else {"tasks": {}, "groups": {}}


def measure(
    plan: Plan, tasks: dict[str, Any], trained: TrainedModel, ranks: Ranks, advance: Callable[[int], None]
) -> Measured:
    """Return the results of a plan, the same on all ranks. Collective.

    Parameters
    ----------
    tasks : dict
        From ``load``.
    trained : TrainedModel
        The same on every rank.
    ranks : Ranks
        All are data parallel.
    advance : callable
        Told how many requests this rank has done since the last call.
    """
    started, made = time.monotonic(), Measured()
    end = trained.tokenizer.info.end_of_document
    scorer: Scorer = ModelScorer(trained.model, plan.batch_size, end, advance)
    if ranks.world_size > 1:
        scorer = SharedScorer(scorer, ranks.rank, ranks.world_size, gather_objects)
    if tasks["tasks"]:
        made.tasks = harness.run_tasks(_model(plan, trained, scorer, advance), tasks, plan.limit)
    for path in plan.texts:
        text = read_text(path)
        (tokens,) = text_to_ids(trained.tokenizer, [text])
        stride = plan.stride or max(1, trained.spec.context // 2)
        made.texts[str(path)] = text_score(scorer, text, tokens, stride, end)
    made.truncated = scorer.truncated if plan.backend == "ours" else None
    made.seconds = time.monotonic() - started
    return made


def _model(plan: Plan, trained: TrainedModel, scorer: Scorer, advance: Callable[[int], None]) -> Any:
    if plan.backend == "hf":
        device = next(trained.model.parameters()).device
        return harness.hf_backend(trained.folder, plan.batch_size, str(device), advance)
    tokenizer = trained.tokenizer
    return harness.adapted(
        scorer, lambda text: text_to_ids(tokenizer, [text])[0], tokenizer.decode, tokenizer.info.end_of_document
    )


def record(plan: Plan, trained: TrainedModel, measured: Measured, ranks: Ranks) -> dict[str, Any]:
    """Return the results and what they depend on as plain values; null where a figure is not finite."""
    tasks = {
        result.task: {
            "version": result.version,
            "items": result.items,
            "metrics": {name: asdict(figure) for name, figure in result.metrics.items()},
        }
        for result in measured.tasks
    }
    figures = {"tasks": tasks, "texts": {path: asdict(score) for path, score in measured.texts.items()}}
    return {
        "version": _VERSION,
        **described(trained),
        "backend": plan.backend,
        "lm_eval": harness.lm_eval_version() if tasks else None,
        "limit": plan.limit,
        "batch_size": plan.batch_size,
        "ranks": ranks.world_size,
        "truncated": measured.truncated,
        "seconds": round(measured.seconds, 3),
        **finite(figures),
    }


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; raises ConfigError when it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"text {path} cannot be read: {error}") from None

"""Scores of downstream tasks while a run trains, through lm-evaluation-harness."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.inspection import corpus_tokenizer
from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation import harness
from autoscale_ds.evaluation.base import Evaluation, Site
from autoscale_ds.evaluation.engine_scorer import EngineScorer, Interrupted
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.trained import text_to_ids

# The figure of a task that is drawn and predicted, the first of these that it has.
_MAIN = ("acc_norm", "acc", "exact_match")


class TaskScores(Evaluation):
    """Scores with their standard errors by task.

    Parameters
    ----------
    tasks : dict
        From ``harness.load_tasks``.
    model_of : callable
        Given a ``Scorer``, returns lm-eval's view of it.
    length : int
        Tokens the model reads at once.
    every_steps : int or None
        How often; None is only at the end.
    limit : int or None
        Only the first items of each task.
    """

    name = "scores"
    needs = frozenset({"losses"})

    def __init__(
        self,
        tasks: dict[str, Any],
        model_of: Callable[[Any], Any],
        length: int,
        every_steps: int | None,
        limit: int | None,
    ) -> None:
        self.tasks = tasks
        self.every_steps = every_steps
        self._model_of = model_of
        self._length = length
        self._limit = limit

    @classmethod
    def of_run(cls, run: RunConfig, corpus: Corpus) -> TaskScores:
        """Return the one a configuration asks for; raises ConfigError for tasks that cannot be scored in training."""
        asked = run.evaluation
        tasks: dict[str, Any] = {"tasks": {}, "groups": {}}
        if not asked.tasks:
            return cls(tasks, lambda scorer: None, run.data.sequence_length, None, None)
        if run.objective.kind != "causal":
            raise ConfigError(
                f"evaluation.tasks scores continuations from left to right, which objective.kind={run.objective.kind} "
                "does not predict; leave it out"
            )
        data = Path(asked.tasks_data) if asked.tasks_data else None
        if data is not None and not data.is_dir():
            raise ConfigError(
                f"evaluation.tasks_data is {data}, which is no folder; expected one with the tasks' documents"
            )
        tasks = harness.load_tasks(asked.tasks, data)
        for name, task in tasks["tasks"].items():
            if task.OUTPUT_TYPE == "generate_until":
                raise ConfigError(
                    f"task {name} of evaluation.tasks generates text, which a run does not while it trains; score "
                    "checkpoints with tools/evaluate.py"
                )
        tokenizer = corpus_tokenizer(corpus)
        encode = functools.cache(lambda text: text_to_ids(tokenizer, [text])[0])  # the same texts every time

        def model_of(scorer: Any) -> Any:
            return harness.adapted(scorer, encode, tokenizer.decode, tokenizer.info.end_of_document)

        length = run.data.sequence_length
        for name, longest in harness.longest_continuations(model_of, tasks, asked.tasks_limit).items():
            if longest > length:
                raise ConfigError(
                    f"a continuation of task {name} has {longest:,} tokens, more than data.sequence_length={length:,} "
                    "reads at once; train on longer sequences, or leave the task out of evaluation.tasks"
                )
        return cls(tasks, model_of, length, asked.tasks_every_steps, asked.tasks_limit)

    def is_empty(self) -> bool:
        """Return whether no task was asked for."""
        return not self.tasks["tasks"]

    def run(self, site: Site) -> dict[str, Any] | None:
        """Return the figures by task; see ``Evaluation.run``."""
        scorer = EngineScorer(site, self._length)
        try:
            results = harness.run_tasks(self._model_of(scorer), self.tasks, self._limit)
        except Interrupted:
            return None
        main = {result.task: _main(result) for result in results}
        return {
            "score": {task: figure.value for task, figure in main.items()},
            "standard_error": {task: f.standard_error for task, f in main.items() if f.standard_error is not None},
            "metrics": {
                result.task: {name: figure.value for name, figure in result.metrics.items()} for result in results
            },
            "truncated": scorer.truncated,
        }


def _main(result: harness.TaskResult) -> harness.Figure:
    """Return the figure of a task that stands for it."""
    name = next((name for name in _MAIN if name in result.metrics), next(iter(result.metrics)))
    return result.metrics[name]

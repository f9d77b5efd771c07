"""The evaluations of a run. A new one is one file and one entry here.

An entry is called with the run's configuration and its open corpus and returns the evaluation, or an empty one where it
does not apply. Every entry runs, at the interval it gives itself; ``run.evaluation`` holds what a user sets.
"""

from __future__ import annotations

from collections.abc import Callable

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.evaluation.base import Evaluation
from autoscale_ds.evaluation.perplexity import ValidationPerplexity
from autoscale_ds.evaluation.targets import Targets
from autoscale_ds.evaluation.task_scores import TaskScores
from autoscale_ds.training.config import RunConfig

EVALUATIONS: dict[str, Callable[[RunConfig, Corpus], Evaluation]] = {
    "validation": ValidationPerplexity.of_run,
    "targets": Targets.of_run,
    "scores": TaskScores.of_run,
}


def evaluations(run: RunConfig, corpus: Corpus) -> list[Evaluation]:
    """Return the evaluations that have something to measure, in the order they run."""
    made = [make(run, corpus) for make in EVALUATIONS.values()]
    return [evaluation for evaluation in made if not evaluation.is_empty()]


def check_needs(evaluation: Evaluation, engine: object) -> None:
    """Raise ConfigError when an engine lacks something that an evaluation calls."""
    missing = sorted(name for name in evaluation.needs if not hasattr(engine, name))
    if missing:
        raise ConfigError(
            f"evaluation {evaluation.name} needs {missing[0]} of the engine, which this layout of ranks does not "
            "have; leave it out, or train in another layout (parallel.*)"
        )

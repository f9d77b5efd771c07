"""Loss of what is measured and never trained on: a corpus's targets and its tasks' completions."""

from __future__ import annotations

import logging
from typing import Any

from autoscale_ds.corpus import Corpus
from autoscale_ds.evaluation.base import Evaluation, Site
from autoscale_ds.evaluation.completions import CompletionSet
from autoscale_ds.evaluation.perplexity import ValidationSet, evaluate, validation_figures
from autoscale_ds.training.config import RunConfig

log = logging.getLogger(__name__)
_FROM_LEFT_TO_RIGHT = "causal"  # the objective under which a completion's loss given its prompt is defined


class Targets(Evaluation):
    """Loss, perplexity and bits per byte by target.

    A kind of record of its own, so that the mean over domains means the same with and without targets.

    Parameters
    ----------
    windows : ValidationSet
        Of the targets' text.
    completions : CompletionSet
        Of the tasks.
    every_steps : int or None
        How often; None is only at the end.
    """

    name = "targets"
    needs = frozenset({"losses"})

    def __init__(self, windows: ValidationSet, completions: CompletionSet, every_steps: int | None) -> None:
        self.windows = windows
        self.completions = completions
        self.every_steps = every_steps

    @classmethod
    def of_run(cls, run: RunConfig, corpus: Corpus) -> Targets:
        """Return the one a configuration asks for, and warn of what is not measured whole."""
        length, asked = run.data.sequence_length, run.evaluation
        windows = ValidationSet(corpus, length, asked.windows_per_domain, corpus.targets)
        tasks = corpus.tasks if run.objective.kind == _FROM_LEFT_TO_RIGHT else []
        if tasks != corpus.tasks:
            log.warning(
                "tasks are not measured: their completions are predicted from left to right, which "
                "objective.kind=%s does not",
                run.objective.kind,
            )
        completions = CompletionSet(corpus, tasks, length, asked.items_per_task)
        _warn(corpus, windows, completions, length)
        return cls(windows, completions, asked.every_steps)

    def is_empty(self) -> bool:
        """Return whether there is no target, or none that can be measured."""
        return not len(self.windows) and not len(self.completions)

    def run(self, site: Site) -> dict[str, Any] | None:
        """Return the figures by target; see ``Evaluation.run``."""
        texts = evaluate(site, self.windows)
        tasks = None if texts is None else evaluate(site, self.completions)
        if texts is None or tasks is None:
            return None
        figures = validation_figures({**texts, **tasks})
        return {"target_loss" if key == "domain_loss" else key: value for key, value in figures.items()}


def _warn(corpus: Corpus, windows: ValidationSet, completions: CompletionSet, length: int) -> None:
    for name in sorted(set(corpus.targets) - set(windows.names)):
        log.warning(
            "target %s is not measured: it has %s tokens, a window of data.sequence_length=%s needs one more than "
            "that; give it more text or train with shorter sequences",
            name,
            f"{corpus.tokens_of(name, 'validation'):,}",
            f"{length:,}",
        )
    for name in completions.names:
        if cut := completions.truncated.get(name):
            log.warning(
                "task %s: %s prompts are longer than data.sequence_length and cut on the left", name, f"{cut:,}"
            )
        if lost := completions.left_out.get(name):
            log.warning("task %s: %s completions longer than data.sequence_length are left out", name, f"{lost:,}")

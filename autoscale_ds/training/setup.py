"""From a configuration to the parts of a run: weights, planner, journal, and what is printed before step 0."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoscale_ds import config as configuration
from autoscale_ds import controllers
from autoscale_ds.controllers import Budget, Controller, RunFacts
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import CheckpointError, ConfigError, MixtureError
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.models import ModelSpec
from autoscale_ds.stream.dataset import count_windows
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner
from autoscale_ds.stream.spec import StreamSpec, share_in_words
from autoscale_ds.training.config import DataConfig, RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.hardware import precision, zero_stage
from autoscale_ds.training.hot_swap import first_event

log = logging.getLogger(__name__)


# Weights a solver found may differ in late digits between machines; what a user changes is larger.
SAME_WEIGHT = 1e-4


class WeightsReader:
    """Turns weights as a configuration writes them into weights of the corpus's domains.

    Parameters
    ----------
    corpus : Corpus
        As it is now.
    began_with : iterable of str, optional
        Domains that the run began with: rules speak of those, and domains that joined later need no weight. None is
        all that the corpus holds.
    own_copy : callable
        From a path in the configuration to the file to read, see ``RunFolder.own_copy``.
    """

    def __init__(
        self,
        corpus: Corpus,
        began_with: Iterable[str] | None = None,
        own_copy: Callable[[str], str] = lambda path: path,
    ) -> None:
        self._corpus = corpus
        self._first = set(corpus.domains if began_with is None else began_with)
        self.own_copy = own_copy

    def __call__(self, asked: str | Mapping[str, float] | None) -> DomainWeights:
        """Return the weights by rule, from a weights.json, or as given by name; None is uniform.

        Raises
        ------
        MixtureError
            For a domain that the run has never had, or one it began with that has no weight.
        """
        first = [name for name in self._corpus.domains if name in self._first] or self._corpus.domains
        joined = dict.fromkeys([name for name in self._corpus.domains if name not in first], 0.0)
        if asked is None or asked == "uniform":
            return DomainWeights({**joined, **DomainWeights.uniform(first)})
        if asked == "proportional":
            tokens = self._corpus.num_tokens()
            return DomainWeights({**joined, **DomainWeights.normalised({name: float(tokens[name]) for name in first})})
        weights = WeightsFile.read(self.own_copy(asked)).weights if isinstance(asked, str) else DomainWeights(asked)
        weights = DomainWeights({**joined, **weights})
        for name in sorted(set(weights).intersection((*self._corpus.targets, *self._corpus.tasks))):
            raise MixtureError(f"{name} is a target, held-out text that is never trained on; it can have no weight")
        left = self._first.difference(self._corpus.domains)
        weights.check_domains([*self._corpus.domains, *(name for name in weights if name in left)])
        return weights


def initial_weights(asked: str | Mapping[str, float] | None, corpus: Corpus) -> DomainWeights:
    """Return weights a run can start with: by rule, from a weights.json, or as given by name; None is uniform."""
    return WeightsReader(corpus)(asked)


def stream_spec(run: RunConfig, corpus: Corpus, had: Sequence[str] = ()) -> StreamSpec:
    """Return what fixes the data order of a run besides its journal.

    ``had`` are domains that the run has had: the configuration may still name those that left.
    """
    num_windows = count_windows(corpus, run.data.sequence_length)
    return StreamSpec(
        seed=run.seed,
        global_batch=run.data.global_batch,
        num_windows=num_windows,
        max_epochs=_max_epochs(run.data, corpus.domains, had),
        when_exhausted=run.data.when_exhausted,
        unique_windows=unique_windows(run.data.window_share, num_windows),
    )


def unique_windows(share: float, num_windows: Mapping[str, int]) -> dict[str, int]:
    """Return how many windows each domain is drawn from, to the nearest one; empty where it is all of them.

    Raises
    ------
    ConfigError
        When a domain that holds text would be left without one window.
    """
    if share == 1:
        return {}
    for name, count in num_windows.items():
        if 0 < share * count < 1 - 1e-9:
            raise ConfigError(
                f"data.window_share is {share:g}, which leaves domain {name!r} ({count:,} windows) without one; "
                f"expected at least {1 / count:.3g}: raise it, or give the domain more text"
            )
    return {name: round(share * count) for name, count in num_windows.items()}


def unique_tokens(spec: StreamSpec, sequence_length: int) -> dict[str, int]:
    """Return the tokens of text that a run can draw from each domain: one pass over its windows, or its share."""
    return {name: spec.epoch_windows(name) * sequence_length for name in spec.num_windows}


def recorded_spec(run: RunConfig, events: Sequence[Event], corpus: Path | None = None) -> StreamSpec:
    """Return what a run's data order begins with: all of it is in the first event, and no corpus is needed.

    A journal from before that was so takes the sizes of domains from the corpus as it is now.
    """
    if events and events[0].stream is not None:
        return StreamSpec(run.seed, run.data.global_batch, {})
    return stream_spec(run, Corpus(corpus or run.data.corpus))


def token_limits(spec: StreamSpec, sequence_length: int) -> dict[str, float]:
    """Return the tokens that may be read of each domain with a limit on its epochs.

    One sample less than the epochs have: what is read stays within a sample of what the weights ask for, and the last
    of them must not end the run.
    """
    samples = {name: math.floor(epochs * spec.epoch_windows(name)) for name, epochs in spec.max_epochs.items()}
    return {name: float(max(count - 1, 0) * sequence_length) for name, count in samples.items()}


def controller(
    run: RunConfig, budget: Budget, spec: StreamSpec, shape: ModelSpec, weights: WeightsReader
) -> Controller:
    """Return who decides the weights of a run."""
    constant = (run.schedule.warmup_tokens, budget.tokens - run.schedule.cooldown_tokens)
    limits = token_limits(spec, run.data.sequence_length)
    facts = RunFacts(
        budget,
        weights,
        run.mixture.weights,
        shape.num_parameters,
        constant,
        limits,
        unique_tokens(spec, run.data.sequence_length),
        own_copy=weights.own_copy,
    )
    return controllers.build(run.mixture.controller, facts)


def opening_event(run: RunConfig, controller: Controller, weights: WeightsReader) -> Event:
    """Return the event a run starts with; in a dry run the configured weights, and the controller's only in the log."""
    first, source = controller.initial(), "config" if controller.name == "fixed" else f"controller:{controller.name}"
    if run.mixture.dry_run:
        log.info("dry run: the first weights would be %s: %s", first.weights.as_dict(), first.reason)
        return first_event(weights(run.mixture.weights), "mixture.weights: dry run")
    return first_event(first.weights, first.reason, source)


def check_first_weights(run: RunConfig, journal: Journal, asked: DomainWeights) -> None:
    """Refuse weights in the configuration that are no longer those the run was started with.

    Raises
    ------
    ConfigError
        With the key to restore.
    """
    key = "weights" if run.mixture.dry_run else run.mixture.controller.first_weights
    before = journal.events[0].weights
    if any(abs(asked.get(name, 0.0) - weight) > SAME_WEIGHT for name, weight in before.items()):
        raise ConfigError(
            f"mixture.{key} is no longer what this run was started with: its first weights are not those in "
            f"{journal.path}; change the weights of a run with tools/swap_weights.py, or start another with "
            "run=ANOTHER_FOLDER"
        )


def says_the_same(run: RunConfig, last: Mapping[str, Any] | None) -> bool:
    """Return whether the keys that gave the first weights are as they were at the last start.

    Then the journal counts, and what a file or a rule gave need not be worked out again.
    """
    if last is None:
        return False
    now, before = (tree.get("mixture") or {} for tree in (configuration.to_dict(run), last))
    keys = ("controller", "dry_run", "weights", run.mixture.controller.first_weights)
    return all(now.get(key) == before.get(key) for key in keys)


def check_journal_copy(journal: list[Event], copy: Sequence[Mapping[str, Any]]) -> None:
    """Raise CheckpointError unless the run's journal continues the copy a checkpoint carries."""
    if journal[: len(copy)] != [Event.from_json(dict(event)) for event in copy]:
        raise CheckpointError(
            "the run's mixture/journal.jsonl does not continue the checkpoint's copy of it (run.json); the data order "
            "cannot be continued: put the copy's events back into the file"
        )


def describe(run: RunConfig, ds_config: Mapping[str, Any], shape: ModelSpec, ranks: Ranks) -> list[str]:
    """Return the arithmetic of a run, printed before step 0."""
    micro, accumulation = ds_config["train_micro_batch_size_per_gpu"], ds_config["gradient_accumulation_steps"]
    return [
        f"model      {shape.layers} layers x {shape.width} wide x {shape.heads} heads, vocabulary {shape.vocabulary:,} "
        f"(stored {shape.padded_vocabulary:,}): {shape.num_parameters:,} parameters, "
        f"{shape.flops_per_token(run.data.sequence_length) / 1e9:.3g} GFLOP per token",
        f"hardware   {_layout(ranks)}, ZeRO stage {zero_stage(ds_config)}, {precision(ds_config)}",
        f"batch      micro-batch {micro} x accumulation {accumulation} x data-parallel {ranks.data_parallel_size} = "
        f"{run.data.global_batch} sequences; x {run.data.sequence_length} = {run.tokens_per_step:,} tokens a step",
        *_window_share(run),
        *_loss_weights(run),
        *_warm_up_warning(run),
    ]


def _window_share(run: RunConfig) -> list[str]:
    share = run.data.window_share
    return [f"data       every domain is drawn from {share_in_words(share)}"] if share < 1 else []


def _loss_weights(run: RunConfig) -> list[str]:
    weights = run.objective.domain_weights
    if not weights:
        return []
    given = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return [f"loss       weights by domain before scaling: {given}; others 1"]


def _warm_up_warning(run: RunConfig) -> list[str]:
    warm_up, budget = run.schedule.warmup_tokens, run.total_steps * run.tokens_per_step
    if warm_up <= budget:
        return []
    return [
        f"warning    schedule.warmup_tokens {warm_up:,.0f} is more than the budget: the learning rate ends at "
        f"{budget / warm_up:.0%} of its peak; lower it, or raise budget_tokens"
    ]


def _layout(ranks: Ranks) -> str:
    ways = {"data": ranks.data_parallel_size, **dataclasses.asdict(ranks.parallel)}
    shared = " x ".join(f"{name}-parallel {size}" for name, size in ways.items() if size > 1 or name == "data")
    return f"{ranks.world_size} rank{'s' if ranks.world_size > 1 else ''} = {shared}"


def describe_domains(run: RunConfig, budget: Budget, planner: MixturePlanner, weights: DomainWeights) -> list[str]:
    """Return tokens and epochs planned by domain for the rest of the run, if the weights stay as they are."""
    tokens_left = max(budget.tokens - budget.tokens_at(planner.next_step), 0)
    lines = []
    for name in planner.domains:
        weight, windows = weights.get(name, 0.0), planner.spec.epoch_windows(name)
        planned = weight * tokens_left
        epochs = planned / (windows * run.data.sequence_length) if windows else 0.0
        lines.append(f"  {name:<20} weight {weight:8.5f}   {planned:16,.0f} tokens   {epochs:8.2f} epochs")
    for coming in planner.forecast(weights, budget.total_steps):
        lines.append(f"  {coming.domain} completes epoch {coming.epoch:g} at step {coming.step:,}")
    return lines


def _max_epochs(data: DataConfig, domains: list[str], had: Sequence[str]) -> dict[str, float]:
    asked = data.max_epochs
    if asked is None:
        return {}
    if isinstance(asked, Mapping):
        unknown = sorted(set(asked).difference(domains, had))
        if unknown:
            raise ConfigError(f"data.max_epochs names {unknown[0]!r}; the domains are: {', '.join(domains)}")
        return {name: epochs for name, epochs in asked.items() if name in domains}
    return dict.fromkeys(domains, float(asked))

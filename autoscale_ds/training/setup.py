"""From a configuration to the parts of a run: weights, planner, journal, and what is printed before step 0."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoscale_ds import controllers
from autoscale_ds.controllers import Controller, RunFacts
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import CheckpointError, ConfigError
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.models import ModelSpec
from autoscale_ds.stream.dataset import count_windows
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.planner import MixturePlanner, StreamSpec
from autoscale_ds.training.config import DataConfig, RunConfig
from autoscale_ds.training.distributed import Ranks
from autoscale_ds.training.hardware import precision, zero_stage
from autoscale_ds.training.hot_swap import first_event

log = logging.getLogger(__name__)


# Weights a solver found may differ in late digits between machines; what a user changes is larger.
SAME_WEIGHT = 1e-4


def initial_weights(asked: str | Mapping[str, float] | None, corpus: Corpus) -> DomainWeights:
    """Return weights a run can start with: by rule, from a weights.json, or as given by name; None is uniform."""
    if asked is None or asked == "uniform":
        return DomainWeights.uniform(corpus.domains)
    if asked == "proportional":
        return DomainWeights.normalised({name: float(count) for name, count in corpus.num_tokens().items()})
    weights = WeightsFile.read(asked).weights if isinstance(asked, str) else DomainWeights(asked)
    weights.check_domains(corpus.domains)
    return weights


def stream_spec(run: RunConfig, corpus: Corpus) -> StreamSpec:
    """Return what fixes the data order of a run besides its journal."""
    return StreamSpec(
        seed=run.seed,
        global_batch=run.data.global_batch,
        num_windows=count_windows(corpus, run.data.sequence_length),
        max_epochs=_max_epochs(run.data, corpus.domains),
        when_exhausted=run.data.when_exhausted,
    )


def token_limits(spec: StreamSpec, sequence_length: int) -> dict[str, float]:
    """Return the tokens that may be read of each domain with a limit on its epochs.

    One sample less than the epochs have: what is read stays within a sample of what the weights ask for, and the last
    of them must not end the run.
    """
    samples = {name: math.floor(epochs * spec.num_windows[name]) for name, epochs in spec.max_epochs.items()}
    return {name: float(max(count - 1, 0) * sequence_length) for name, count in samples.items()}


def controller(run: RunConfig, corpus: Corpus, shape: ModelSpec) -> Controller:
    """Return who decides the weights of a run."""
    constant = (run.schedule.warmup_tokens, run.budget.tokens - run.schedule.cooldown_tokens)

    def weights(asked: str | Mapping[str, float] | None) -> DomainWeights:
        return initial_weights(asked, corpus)

    limits = token_limits(stream_spec(run, corpus), run.data.sequence_length)
    facts = RunFacts(run.budget, weights, run.mixture.weights, shape.num_parameters, constant, limits)
    return controllers.build(run.mixture.controller, facts)


def open_journal(journal: Journal, run: RunConfig, corpus: Corpus, controller: Controller) -> list[str]:
    """Begin or repair the run's journal and return its lines; only the owner of the run may call this.

    Raises
    ------
    ConfigError
        When the configuration's weights are no longer those the run was started with.
    """
    if journal.repair():
        log.warning("the last line of %s was torn by a crash and has been removed", journal.path)
    first = _first_event(run, corpus, controller)
    if not journal.events:
        journal.append(first)
    before = journal.events[0].weights
    if any(abs(first.weights.get(name, 0.0) - weight) > SAME_WEIGHT for name, weight in before.items()):
        key = "weights" if run.mixture.dry_run else run.mixture.controller.first_weights
        raise ConfigError(
            f"mixture.{key} is no longer what this run was started with: its first weights are not those in "
            f"{journal.path}; change the weights of a run with tools/swap_weights.py, or start another with "
            "run=ANOTHER_FOLDER"
        )
    return [event.to_json() for event in journal.events]


def _first_event(run: RunConfig, corpus: Corpus, controller: Controller) -> Event:
    """Return the event a run starts with; in a dry run the configured weights, and the controller's only in the log."""
    first, source = controller.initial(), "config" if controller.name == "fixed" else f"controller:{controller.name}"
    if run.mixture.dry_run:
        log.info("dry run: the first weights would be %s: %s", first.weights.as_dict(), first.reason)
        weights, reason = initial_weights(run.mixture.weights, corpus), "mixture.weights: dry run"
        return first_event(weights, reason)
    return first_event(first.weights, first.reason, source)


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
    tokens = run.total_steps * run.tokens_per_step
    return [
        f"model      {shape.layers} layers x {shape.width} wide x {shape.heads} heads, vocabulary {shape.vocabulary:,} "
        f"(stored {shape.padded_vocabulary:,}): {shape.num_parameters:,} parameters, "
        f"{shape.flops_per_token(run.data.sequence_length) / 1e9:.3g} GFLOP per token",
        f"hardware   {_layout(ranks)}, ZeRO stage {zero_stage(ds_config)}, {precision(ds_config)}",
        f"batch      micro-batch {micro} x accumulation {accumulation} x data-parallel {ranks.data_parallel_size} = "
        f"{run.data.global_batch} sequences; x {run.data.sequence_length} = {run.tokens_per_step:,} tokens a step",
        f"budget     {run.total_steps:,} steps = {tokens:,} tokens",
        *_loss_weights(run),
        *_warm_up_warning(run),
    ]


def _loss_weights(run: RunConfig) -> list[str]:
    weights = run.objective.domain_weights
    if not weights:
        return []
    given = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return [f"loss       weights by domain before scaling: {given}; others 1"]


def _warm_up_warning(run: RunConfig) -> list[str]:
    warm_up, budget = run.schedule.warmup_tokens, run.budget.tokens
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


def describe_domains(run: RunConfig, planner: MixturePlanner, weights: DomainWeights) -> list[str]:
    """Return tokens and epochs planned by domain for the rest of the run, if the weights stay as they are."""
    tokens_left = max(run.total_steps - planner.next_step, 0) * run.tokens_per_step
    lines = []
    for name in planner.names:
        weight, windows = weights.get(name, 0.0), planner.spec.num_windows[name]
        planned = weight * tokens_left
        epochs = planned / (windows * run.data.sequence_length) if windows else 0.0
        lines.append(f"  {name:<20} weight {weight:8.5f}   {planned:16,.0f} tokens   {epochs:8.2f} epochs")
    for coming in planner.forecast(weights, run.total_steps):
        lines.append(f"  {coming.domain} completes epoch {coming.epoch:g} at step {coming.step:,}")
    return lines


def _max_epochs(data: DataConfig, domains: list[str]) -> dict[str, float]:
    asked = data.max_epochs
    if asked is None:
        return {}
    if isinstance(asked, Mapping):
        unknown = sorted(set(asked) - set(domains))
        if unknown:
            raise ConfigError(f"data.max_epochs names {unknown[0]!r}; the domains are: {', '.join(domains)}")
        return dict(asked)
    return dict.fromkeys(domains, float(asked))

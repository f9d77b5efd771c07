"""From the ``mixture`` section of a configuration to its controller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from autoscale_ds.controllers.autoscale import AutoScaleAnytime, AutoScaleTarget
from autoscale_ds.controllers.base import Budget, Controller, Fixed
from autoscale_ds.controllers.config import MixtureConfig, RefitConfig
from autoscale_ds.controllers.refit import Evidence, Refit
from autoscale_ds.controllers.staged import Staged
from autoscale_ds.errors import AutoScaleError, ConfigError
from autoscale_ds.laws import LossModel, registry
from autoscale_ds.mixture import DomainWeights, RunTable
from autoscale_ds.search.predictor import LawOptimum, Predictor, read_predictor

# How weights are written in a configuration becomes weights: a rule, a file, or numbers by name.
Reader = Callable[[str | Mapping[str, float] | None], DomainWeights]


def build(
    config: MixtureConfig,
    budget: Budget,
    read_weights: Reader,
    parameters: int,
    constant_tokens: tuple[float, float] = (0.0, math.inf),
    limits: Mapping[str, float] | None = None,
) -> Controller:
    """Return the controller of a run.

    Parameters
    ----------
    config : MixtureConfig
    budget : Budget
    read_weights : callable
        From ``uniform``, ``proportional``, a file or a mapping to weights of exactly the corpus's domains.
    parameters : int
        Size of the model, for laws that know size.
    constant_tokens : (float, float)
        Between these tokens the run's learning rate is constant, see ``Evidence``.
    limits : mapping of str to float, optional
        Tokens that may be read of a domain, where there is a limit; the optimum of a law stays within.

    Raises
    ------
    ConfigError, MixtureError
        For weights, a predictor or run tables that do not fit the corpus.
    """
    if config.controller == "staged":
        return _staged(config, budget, read_weights)
    if config.controller == "autoscale":
        assert config.predictor is not None, "checked by the configuration"
        predictor = read_predictor(
            config.predictor, budget_tokens=budget.tokens, parameters=parameters, floor=config.floor, limits=limits
        )
        _check_predictor(predictor, config, budget, list(read_weights(None)))
        return _autoscale(config, budget, predictor, parameters, constant_tokens)
    given = "given" if isinstance(config.weights, Mapping) else config.weights or "uniform"
    return Fixed(read_weights(config.weights), f"mixture.weights: {given}")


def _staged(config: MixtureConfig, budget: Budget, read_weights: Reader) -> Staged:
    stages = []
    for i, stage in enumerate(config.stages):
        try:
            stages.append((read_weights(stage.weights), stage.until_tokens, stage.transition))
        except AutoScaleError as error:
            raise ConfigError(f"mixture.stages[{i}].weights: {error}") from None
    return Staged(stages, budget, config.interval_tokens)


def _autoscale(
    config: MixtureConfig, budget: Budget, predictor: Predictor, parameters: int, constant_tokens: tuple[float, float]
) -> Controller:
    source = Path(config.predictor or "").name
    if config.mode == "anytime":
        return AutoScaleAnytime(predictor, budget, source, config.interval_tokens)
    target = AutoScaleTarget(predictor, budget, source)
    if config.refit is None:
        return target
    if not isinstance(predictor, LawOptimum) or predictor.model.law not in registry.NAMES:
        raise ConfigError(
            f"mixture.refit needs the law.json of one law as mixture.predictor, and {source} is none; make one with "
            "fit_mixture.py fit --law NAME"
        )
    evidence = _evidence(config.refit, predictor.model, source, parameters, constant_tokens)
    bounds = predictor.bounds(budget.tokens)
    return Refit(target, evidence, budget, config.refit.every_tokens, config.refit.max_distance, bounds)


def _evidence(
    config: RefitConfig, law: LossModel, source: str, parameters: int, constant_tokens: tuple[float, float]
) -> Evidence:
    runs = RunTable.read(config.runs, phase="constant").with_domains(law.domains).with_targets(list(law.targets))
    if not set(runs.targets) & set(law.domains):
        raise ConfigError(f"mixture.refit needs targets this run measures, its domains; {source} has none of them")
    return Evidence(runs, law.law, math.nan if np.isnan(runs.parameters).all() else parameters, constant_tokens)


def _check_predictor(predictor: Predictor, config: MixtureConfig, budget: Budget, domains: list[str]) -> None:
    """Raise ConfigError for a predictor of other domains, or one that no mixture within bounds is left to."""
    try:
        DomainWeights.uniform(list(predictor.domains)).check_domains(domains)
    except AutoScaleError as error:
        raise ConfigError(
            f"mixture.predictor {config.predictor} is for other domains than the corpus: {error}"
        ) from None
    if isinstance(predictor, LawOptimum):
        try:
            predictor.bounds(budget.tokens)
        except AutoScaleError as error:
            raise ConfigError(
                f"data.max_epochs and mixture.floor leave no mixture for {budget.tokens:,} tokens: {error}"
            ) from None
    elif config.floor > 0:
        raise ConfigError(
            f"mixture.floor is {config.floor:g}, but mixture.predictor {config.predictor} is no law.json and holds a "
            "floor of its own; leave mixture.floor out, and give --floor when you make that file"
        )

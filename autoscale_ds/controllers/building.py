"""From the ``mixture`` section of a configuration to its controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autoscale_ds.controllers.autoscale import AutoScaleAnytime, AutoScaleTarget
from autoscale_ds.controllers.base import Budget, Controller, Fixed
from autoscale_ds.controllers.config import MixtureConfig
from autoscale_ds.controllers.staged import Staged
from autoscale_ds.errors import AutoScaleError, ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.predictor import Predictor, read_predictor

# How weights are written in a configuration becomes weights: a rule, a file, or numbers by name.
Reader = Callable[[str | Mapping[str, float] | None], DomainWeights]


def build(config: MixtureConfig, budget: Budget, read_weights: Reader, parameters: int) -> Controller:
    """Return the controller of a run.

    Parameters
    ----------
    config : MixtureConfig
    budget : Budget
    read_weights : callable
        From ``uniform``, ``proportional``, a file or a mapping to weights of exactly the corpus's domains.
    parameters : int
        Size of the model, for laws that know size.

    Raises
    ------
    ConfigError, MixtureError
        For weights or a predictor that do not fit the corpus.
    """
    if config.controller == "staged":
        return _staged(config, budget, read_weights)
    if config.controller == "autoscale":
        return _autoscale(config, budget, list(read_weights(None)), parameters)
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


def _autoscale(config: MixtureConfig, budget: Budget, domains: list[str], parameters: int) -> Controller:
    assert config.predictor is not None, "checked by the configuration"
    predictor = _predictor(config.predictor, budget, domains, parameters)
    source = Path(config.predictor).name
    if config.mode == "anytime":
        return AutoScaleAnytime(predictor, budget, source, config.interval_tokens)
    return AutoScaleTarget(predictor, budget, source)


def _predictor(path: str, budget: Budget, domains: list[str], parameters: int) -> Predictor:
    predictor = read_predictor(path, budget_tokens=budget.tokens, parameters=parameters)
    try:
        DomainWeights.uniform(list(predictor.domains)).check_domains(domains)
    except AutoScaleError as error:
        raise ConfigError(f"mixture.predictor {path} is for other domains than the corpus: {error}") from None
    return predictor

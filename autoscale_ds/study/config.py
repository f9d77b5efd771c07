"""STUDY.yaml: corpus, objective, budget of the search, main run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoscale_ds import config as configuration
from autoscale_ds.errors import ConfigError
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import read_ds_config


@dataclass(frozen=True)
class ProbesConfig:
    """The search: many small runs."""

    config: str
    """Run configuration of a probe, a YAML file as for ``launch/train.py``."""
    deepspeed_config: str
    tokens: tuple[float, ...]
    """Budgets of probes. Two of them show how effects of mixtures grow with tokens."""
    share: float = 0.1
    """All probes together have at most this share of the main run's tokens."""
    first: int = 8
    """Mixtures of the first batch, by D-optimal design, at every budget."""
    batch: int = 4
    """Runs that are added at a time, until enough is known or the share is spent."""
    workers: int = 1
    """Processes that train probes at the same time on this machine."""
    match_repetition: bool = True
    """Draw every probe from so little text that it repeats it as the main run will."""
    overrides: tuple[str, ...] = ()
    """``key=value`` over the run configuration."""

    def __post_init__(self) -> None:
        if not self.tokens or min(self.tokens) <= 0:
            raise ConfigError(f"probes.tokens is {list(self.tokens)}, expected budgets, [1e6, 2e6] for example")
        if not 0 < self.share < math.inf:
            raise ConfigError(f"probes.share is {self.share:g}, expected a positive number, 0.1 for example")
        for name in ("first", "batch", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"probes.{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class MainConfig:
    """The run the mixture is for."""

    config: str
    deepspeed_config: str
    tokens: float
    """Its budget."""
    launcher: str = "deepspeed --num_gpus 1"
    """What stands before ``launch/train.py``: ``deepspeed --num_gpus 8``, ``torchrun …``, ``srun …``."""
    overrides: tuple[str, ...] = ()
    baseline: bool = False
    """Whether to train the same run with the mixture of ``against`` too, and compare."""

    def __post_init__(self) -> None:
        if not 0 < self.tokens < math.inf:
            raise ConfigError(f"main.tokens is {self.tokens:g}, expected a positive number, 10e9 for example")


@dataclass(frozen=True)
class StudyConfig:
    """The whole of a study file."""

    folder: str
    """Where everything the study makes is kept."""
    corpus: str
    """The corpus folder. With ``preprocess`` it is made where it is missing."""
    probes: ProbesConfig
    main: MainConfig
    preprocess: str | None = None
    """A YAML file of ``tools/preprocess_domains.py``."""
    objective: str = "mean-loss"
    """A kind of objective; left out where ``targets`` are given."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """What is minimised: losses of these domains, held-out targets or tasks, with these weights."""
    against: str = "uniform"
    """What one would train otherwise: uniform, proportional or a file of weights."""

    @classmethod
    def read(cls, path: str | Path) -> StudyConfig:
        """Read a study file and the files it names.

        Raises
        ------
        ConfigError
            For a key or value that is wrong, a file that is missing, or a share that holds no first batch.
        """
        study = configuration.load(cls, path)
        if study.targets and study.objective != "mean-loss":
            raise ConfigError(f"objective is {study.objective} and targets are given; leave one out")
        for part, name in ((study.probes, "probes"), (study.main, "main")):
            try:
                configuration.load(RunConfig, part.config, [*part.overrides, "run=STUDY"])
                read_ds_config(part.deepspeed_config)
            except ConfigError as error:
                raise ConfigError(f"{path}, {name}: {error}") from None
        if study.preprocess is not None and not Path(study.preprocess).exists():
            raise ConfigError(f"{path}: preprocess is {study.preprocess}, which does not exist")
        if study.preprocess is None and not (Path(study.corpus) / "corpus.json").exists():
            raise ConfigError(
                f"{path}: corpus is {study.corpus}, which has no corpus.json; make it with "
                "tools/preprocess_domains.py, or let the study make it: preprocess: FILE"
            )
        study.refuse_small_share(path)
        return study

    def refuse_small_share(self, path: str | Path) -> None:
        """Raise ConfigError when the share has no room for the first batch and one run more."""
        least = self.probes.first * sum(self.probes.tokens) + min(self.probes.tokens)
        most = self.probes.share * self.main.tokens
        if least > most * (1 + 1e-9):
            raise ConfigError(
                f"{path}: the first batch and one run more have {least:g} tokens, but probes.share "
                f"{self.probes.share:g} of main.tokens {self.main.tokens:g} is {most:g}; raise the share, or give "
                "smaller probes.tokens or probes.first"
            )

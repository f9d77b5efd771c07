"""Which runs a sweep consists of: ``plan.json``, the one file every worker agrees on.

A run is a mixture, a budget and a seed; everything else is the sweep's: one configuration and one DeepSpeed file. Runs
of one seed share initial weights and the order of every domain, whatever their mixture (common random numbers), so
differences between mixtures have little noise.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from autoscale_ds import config as configuration
from autoscale_ds.corpus import Corpus, CorpusIdentity
from autoscale_ds.errors import AutoScaleError, ConfigError
from autoscale_ds.files import write_json
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.search.design import ProbeRun
from autoscale_ds.stream.dataset import count_windows
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve
from autoscale_ds.training.setup import unique_windows

KIND, VERSION = "sweep", 1
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedRun:
    """One run to train.

    Attributes
    ----------
    run : str
        Unique name, ``<design>@<seed>``.
    design : str
        Name of mixture and scale, the same for all seeds: ``1M/low/web``.
    scale : float
        Budget of the design's base run, tokens; a perturbed run may have more or fewer.
    weights : DomainWeights
        Its mixture.
    tokens : float
        Its own budget.
    seed : int
        Seed of initial weights and data order.
    """

    run: str
    design: str
    scale: float
    weights: DomainWeights
    tokens: float
    seed: int

    @property
    def folder(self) -> str:
        """Name of its folder under ``SWEEP/runs``."""
        return self.run.replace("/", ".")


@dataclass(frozen=True)
class Target:
    """The run the sweep is made for, as far as known; the cost of the sweep is reported relative to it."""

    tokens: float | None = None
    parameters: float | None = None


@dataclass(frozen=True)
class SweepPlan:
    """All runs of a sweep and what they share.

    Attributes
    ----------
    config : mapping
        A RunConfig as nested mappings. ``run``, ``seed``, ``mixture.weights`` and ``budget_tokens`` are replaced for
        each run; warm-up and cooldown are scaled with the budget, so that every run has the same schedule.
    deepspeed : mapping
        Content of the DeepSpeed configuration file.
    runs : tuple of PlannedRun
        The runs, in the order in which workers take them.
    evaluations : int
        Validations a run, evenly spaced, the last at its end.
    target : Target
        The run the sweep is made for.
    corpus : CorpusIdentity or None
        What the runs are trained on; None in plans from before it was kept.
    match_repetition : float or None
        Tokens of the run whose repetition every run has: a run is drawn from ``scale / match_repetition`` of each
        domain's windows. None draws from all windows.
    bundle : Bundle or None
        Domains whose proportions every run keeps; run tables have them as one.
    """

    config: Mapping[str, Any]
    deepspeed: Mapping[str, Any]
    runs: tuple[PlannedRun, ...]
    evaluations: int = 4
    target: Target = field(default_factory=Target)
    corpus: CorpusIdentity | None = None
    match_repetition: float | None = None
    bundle: Bundle | None = None

    @classmethod
    def read(cls, folder: str | Path) -> SweepPlan:
        """Read ``plan.json`` of a sweep folder; raises ConfigError when there is none or it is damaged."""
        path = Path(folder) / PLAN_FILE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{folder} is no sweep: it has no {PLAN_FILE}; make one with launch/sweep.py plan"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON: {error}") from None
        if not isinstance(raw, dict) or raw.get("kind") != KIND or raw.get("version") != VERSION:
            raise ConfigError(f"{path} is no sweep plan of version {VERSION}; make one with launch/sweep.py plan")
        try:
            runs = tuple(PlannedRun(**{**run, "weights": DomainWeights(run["weights"])}) for run in raw["runs"])
            corpus = CorpusIdentity.from_json(raw["corpus"]) if raw.get("corpus") else None
            shared = raw["config"], raw["deepspeed"], runs, raw["evaluations"], Target(**raw["target"]), corpus
            bundle = Bundle.from_json(raw["bundle"]) if raw.get("bundle") else None
            return cls(*shared, raw.get("match_repetition"), bundle)
        except (KeyError, TypeError, AutoScaleError) as error:
            raise ConfigError(f"{path} is damaged: {error}") from None

    def write(self, folder: str | Path) -> None:
        """Write ``plan.json`` atomically, making the folder if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        runs = [{**asdict(run), "weights": run.weights.as_dict()} for run in self.runs]
        head = {"version": VERSION, "kind": KIND, "evaluations": self.evaluations, "target": asdict(self.target)}
        shared: dict[str, Any] = {"config": dict(self.config), "deepspeed": dict(self.deepspeed)}
        if self.match_repetition is not None:
            shared["match_repetition"] = self.match_repetition
        if self.bundle is not None:
            shared["bundle"] = self.bundle.to_json()
        corpus = self.corpus.to_json() if self.corpus is not None else None
        write_json(Path(folder) / PLAN_FILE, {**head, **shared, "corpus": corpus, "runs": runs})

    def extended(self, more: SweepPlan) -> SweepPlan:
        """Return the plan with the runs of another that it does not have yet, under that name or another.

        Raises
        ------
        ConfigError
            When the two would train differently, or give one name to two different runs.
        """
        old, new = self._shared(), more._shared()
        if old != new:
            where = _first_difference(old, new)
            raise ConfigError(f"the sweep was planned with {where}; restore it, or plan another sweep folder")
        known = {run.run: run for run in self.runs}
        trained = {(run.weights, run.tokens, run.seed) for run in self.runs}
        for run in more.runs:
            if known.get(run.run, run) != run:
                raise ConfigError(f"run {run.run} is planned already with other weights or tokens; name it differently")
        added = [run for run in more.runs if (run.weights, run.tokens, run.seed) not in trained]
        _refuse_same_folder([*self.runs, *added])
        target = more.target if more.target != Target() else self.target
        return replace(self, config=more.config, runs=(*self.runs, *added), target=target, corpus=more.corpus)

    def _shared(self) -> dict[str, Any]:
        """Return what all runs share, every default filled in: a newer version may know more keys."""
        config = configuration.to_dict(configuration.build(RunConfig, self.config))
        config["mixture"].pop("weights")  # each run's own
        config["data"].pop("corpus")  # where it lies: what it is made of counts, see check_corpus
        shared = {"config": config, "deepspeed": dict(self.deepspeed), "evaluations": self.evaluations}
        bundle = None if self.bundle is None else self.bundle.to_json()
        return {**shared, "match_repetition": self.match_repetition, "bundle": bundle}

    def window_share(self, scale: float) -> float:
        """Return the share of every domain's windows that runs of a scale are drawn from."""
        return 1.0 if self.match_repetition is None else scale / self.match_repetition

    def run_config(self, planned: PlannedRun, folder: str | Path) -> RunConfig:
        """Return the configuration of one run, its folder under ``SWEEP/runs``."""
        tree: dict[str, Any] = copy.deepcopy(dict(self.config))
        scale = planned.tokens / float(tree["budget_tokens"])
        schedule = tree.setdefault("schedule", {})
        for name in ("warmup_tokens", "cooldown_tokens"):
            schedule[name] = float(schedule.get(name, 0.0)) * scale
        tree.update(run=str(run_folder(folder, planned)), seed=planned.seed, budget_tokens=planned.tokens)
        tree["mixture"] = {**tree.get("mixture", {}), "weights": planned.weights.as_dict()}
        if self.match_repetition is not None:
            tree["data"]["window_share"] = self.window_share(planned.scale)
        run = configuration.build(RunConfig, tree)
        every = max(run.total_steps // self.evaluations, 1)
        return replace(run, evaluation=replace(run.evaluation, every_steps=every))

    def domains(self, corpus: Corpus) -> list[str]:
        """Return the domains as run tables have them."""
        return corpus.domains if self.bundle is None else self.bundle.names(corpus.domains)

    def reduced(self, weights: DomainWeights) -> DomainWeights:
        """Return a mixture as run tables have it; raises MixtureError for one that breaks the kept proportions."""
        return weights if self.bundle is None else self.bundle.reduced(weights)

    def expanded(self, weights: DomainWeights) -> DomainWeights:
        """Return a mixture of domains of run tables as a run trains it."""
        return weights if self.bundle is None else self.bundle.expanded(weights)

    def check_corpus(self, folder: str | Path, corpus: Corpus) -> None:
        """Raise ConfigError for a corpus of other text or another tokenizer than the sweep was planned with."""
        difference = self.corpus.difference(corpus.identity) if self.corpus is not None else None
        if difference:
            raise ConfigError(
                f"the corpus {corpus.folder} is not the one {folder} was planned with: {difference}; put that one back "
                "(a moved or copied one is given as --corpus DIR), or plan another sweep folder"
            )

    def check(self, folder: str | Path, corpus: Corpus) -> None:
        """Raise ConfigError or MixtureError for anything that would stop a worker later."""
        self._check_shares(corpus)
        for planned in self.runs:
            run = self.run_config(planned, folder)
            planned.weights.check_domains(corpus.domains)
            self.reduced(planned.weights)
        resolve(self.deepspeed, run, 1)
        run.model.build(run.data.sequence_length, corpus.manifest.tokenizer.vocabulary_size)
        empty = [name for name in corpus.domains if not corpus.shards(name, "validation")]
        if empty:
            raise ConfigError(f"domain {empty[0]!r} has no validation text; preprocess with --validation-fraction")

    def _check_shares(self, corpus: Corpus) -> None:
        """Raise ConfigError for a run larger than the one whose repetition it has, or left without a window."""
        if self.match_repetition is None:
            return
        data = configuration.build(RunConfig, self.config).data
        if data.window_share != 1:
            raise ConfigError(
                f"data.window_share is {data.window_share:g}, but --match-repetition gives every run its share; leave "
                "one out"
            )
        num_windows = count_windows(corpus, data.sequence_length)
        for scale in sorted({run.scale for run in self.runs}):
            if scale > self.match_repetition:
                raise ConfigError(
                    f"a scale of {tokens_label(scale)} tokens is larger than --match-repetition "
                    f"{tokens_label(self.match_repetition)}, expected at most that; plan it in another sweep"
                )
            unique_windows(self.window_share(scale), num_windows)


def run_folder(sweep: str | Path, planned: PlannedRun) -> Path:
    """Return the run folder of a planned run."""
    return Path(sweep) / "runs" / planned.folder


def with_seeds(
    designs: Sequence[ProbeRun], scale: float, seeds: Sequence[int], base_seeds: Sequence[int] = ()
) -> list[PlannedRun]:
    """Return designs of one scale as runs, one a seed.

    Parameters
    ----------
    designs : sequence of ProbeRun
        The first is the base (or prior) of the scale.
    scale : float
        Budget of the base, tokens; it begins the names.
    seeds, base_seeds : sequence of int
        Seeds of every design, and further ones of the base alone, which tell the noise between runs.
    """
    runs = []
    for position, design in enumerate(designs):
        name = f"{tokens_label(scale)}/{design.run}"
        chosen = sorted({*seeds, *base_seeds}) if position == 0 else seeds
        runs += [PlannedRun(f"{name}@{s}", name, scale, design.weights, design.tokens, s) for s in chosen]
    _refuse_same_folder(runs)
    return runs


def tokens_label(tokens: float) -> str:
    """Return a token count as people write it: 750k, 1.5M, 300M, 10B.

    >>> tokens_label(1.5e6)
    '1.5M'
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.4g}{unit}"
    return f"{tokens:.4g}"


def _refuse_same_folder(runs: Sequence[PlannedRun]) -> None:
    seen: dict[str, str] = {}
    for run in runs:
        if seen.setdefault(run.folder, run.run) != run.run:
            raise ConfigError(f"runs {seen[run.folder]} and {run.run} would share a folder; rename a domain")


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    """Return 'key old, not new' of the first value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    return f"{where} {json.dumps(old)}, not {json.dumps(new)}"

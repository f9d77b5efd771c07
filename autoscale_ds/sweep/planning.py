"""From what a user asks of a sweep to its plan: the settings all runs share, and the runs.

``launch/sweep.py plan`` fills a ``PlanRequest`` from its command line; everything is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoscale_ds import config as configuration
from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError, MixtureError
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.search import design
from autoscale_ds.search.design import ProbeRun
from autoscale_ds.sweep.designs import named_mixture, read_designs
from autoscale_ds.sweep.plan import PLAN_FILE, PlannedRun, SweepPlan, Target, with_seeds
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import read_ds_config

# Validations a run: enough to see a loss curve, few enough to cost little of a probe run.
EVALUATIONS = 4


@dataclass(frozen=True)
class PlanRequest:
    """What to plan. The options of ``launch/sweep.py plan`` have the same names.

    Attributes
    ----------
    sweep : Path
        Sweep folder; runs are added when it has a plan already.
    corpus : path or None
        Where the corpus lies, if not where the configuration or the plan there is says.
    config, deepspeed_config : path or None
        Run configuration (YAML) and DeepSpeed file; may be None when the sweep has a plan already.
    overrides : sequence of str
        ``key=value`` of the run configuration.
    evaluations : int or None
        Validations a run; None is ``EVALUATIONS``.
    target_tokens, target_parameters : float or None
        The run this sweep is for; the cost of the sweep is reported relative to it.
    match_repetition : float or None
        Tokens of the run whose repetition every run is to have; None is that of the plan there is.
    reuse : path or None
        A sweep over other or earlier domains: those whose text is the same here keep the proportions that
        ``reuse_weights`` gives them.
    reuse_weights : path or None
        The optimum found with it.
    tokens : sequence of float
        Budgets, one scale each.
    kind : str
        Kind of design, see ``search.design.KINDS``.
    runs : int or None
        Number of mixtures, for the kinds that need it.
    mixtures : sequence of str
        Mixtures to train as they are, instead of a design; see ``named_mixture``.
    designs : sequence of str
        Files written by ``fit_mixture.py design``, instead of a design and ``tokens``.
    prior : str or None
        Base mixture; None is uniform.
    low, high : float
        Factors of a ``ddo`` design.
    floor : float
        Smallest weight of a ``dirichlet`` or ``axis`` design.
    design_seed : int
        Which mixtures a ``dirichlet`` design draws.
    first_seed, seeds, base_seeds : int
        Every mixture is trained with seeds ``first_seed`` to ``first_seed + seeds - 1``, the base of a design with
        ``base_seeds`` in place of ``seeds`` where that is more.
    """

    sweep: Path
    corpus: Path | None = None
    config: str | Path | None = None
    deepspeed_config: str | Path | None = None
    overrides: Sequence[str] = ()
    evaluations: int | None = None
    target_tokens: float | None = None
    target_parameters: float | None = None
    match_repetition: float | None = None
    reuse: Path | None = None
    reuse_weights: Path | None = None
    tokens: Sequence[float] = ()
    kind: str = "ddo"
    runs: int | None = None
    mixtures: Sequence[str] = ()
    designs: Sequence[str | Path] = ()
    prior: str | None = None
    low: float = 1 / 3
    high: float = 3.0
    floor: float = 0.0
    design_seed: int = 0
    first_seed: int = 0
    seeds: int = 1
    base_seeds: int = 0


def make_plan(request: PlanRequest) -> tuple[SweepPlan, int]:
    """Return the checked plan of a new or extended sweep, and how many of its runs are new; nothing is written.

    Raises
    ------
    ConfigError, MixtureError
        For a request that is incomplete, contradicts the sweep there is, or holds a run that could not be trained.
    """
    known = SweepPlan.read(request.sweep) if (request.sweep / PLAN_FILE).exists() else None
    shared = shared_settings(request, known)
    folder = request.corpus or shared.config["data"]["corpus"]
    corpus = Corpus(folder)
    if known is not None:
        known.check_corpus(request.sweep, corpus)
    config = {**shared.config, "data": {**shared.config["data"], "corpus": str(folder)}}
    moves_only = known is not None and request.corpus is not None and not (request.tokens or request.designs)
    if request.reuse is not None or request.reuse_weights is not None:
        shared = replace(shared, bundle=bundle_of(request, corpus))
    runs = () if moves_only else tuple(planned_runs(request, corpus, shared))
    made = replace(shared, config=config, runs=runs, corpus=corpus.identity)
    whole = made if known is None else known.extended(made)
    whole.check(request.sweep, corpus)
    return whole, len(whole.runs) - (len(known.runs) if known else 0)


def shared_settings(request: PlanRequest, known: SweepPlan | None) -> SweepPlan:
    """Return a plan without runs: configuration, DeepSpeed file and target, from the request or the sweep there is."""
    if known is not None and request.config is None:
        if request.overrides:
            raise ConfigError(
                f"{request.sweep} is planned already, {request.overrides[0]} would change its runs; plan another sweep"
            )
        _refuse_other_settings(request, known)
        target = Target(
            request.target_tokens or known.target.tokens, request.target_parameters or known.target.parameters
        )
        return replace(known, runs=(), target=target, corpus=None)
    if request.config is None or request.deepspeed_config is None:
        raise ConfigError(f"{request.sweep} is not planned yet: give --config and --deepspeed_config")
    # run_config() replaces the run folder for each run; a RunConfig needs some value until then.
    run = configuration.load(RunConfig, request.config, [*request.overrides, "run=SWEEP"])
    target = Target(request.target_tokens, request.target_parameters)
    deepspeed = read_ds_config(request.deepspeed_config)
    return SweepPlan(
        configuration.to_dict(run),
        deepspeed,
        (),
        request.evaluations or EVALUATIONS,
        target,
        match_repetition=request.match_repetition,
        bundle=known.bundle if known is not None else None,
    )


def _refuse_other_settings(request: PlanRequest, known: SweepPlan) -> None:
    """Raise ConfigError for an option that differs from the plan there is, which counts."""
    if request.deepspeed_config is not None and read_ds_config(request.deepspeed_config) != known.deepspeed:
        raise ConfigError(
            f"{request.sweep} has another DeepSpeed file than {request.deepspeed_config}; plan another sweep"
        )
    if request.evaluations not in (None, known.evaluations):
        raise ConfigError(
            f"--evaluations is {request.evaluations}, but {request.sweep} is planned with {known.evaluations}; "
            "leave it out, or plan another sweep"
        )
    if request.match_repetition not in (None, known.match_repetition):
        planned = "without it" if known.match_repetition is None else f"with {known.match_repetition:g}"
        raise ConfigError(
            f"--match-repetition is {request.match_repetition:g}, but {request.sweep} is planned {planned}; leave it "
            "out, or plan another sweep"
        )


def bundle_of(request: PlanRequest, corpus: Corpus) -> Bundle:
    """Return the domains whose text is that of an earlier sweep, in the proportions of its optimum.

    Raises
    ------
    ConfigError, MixtureError
        When either option is missing, the earlier sweep does not know its text, or nothing or everything changed.
    """
    if request.reuse is None or request.reuse_weights is None:
        given, missing = ("--reuse", "--reuse-weights") if request.reuse else ("--reuse-weights", "--reuse")
        raise ConfigError(f"{given} needs {missing} too: the sweep over the old domains, and the optimum found with it")
    then, now = SweepPlan.read(request.reuse).corpus, corpus.identity
    if then is None:
        raise ConfigError(f"{request.reuse} is from before plans knew the text of their domains; plan without --reuse")
    if then.tokenizer != now.tokenizer:
        raise ConfigError(
            f"{request.reuse} has another tokenizer than {corpus.folder}, so its domains have other tokens and nothing "
            "can be reused"
        )
    old_names = {text: name for name, text in then.domains.items()}
    same = {}
    for name, text in now.domains.items():
        if text in old_names:  # of several of one text its own, where it kept its name
            same[name] = name if then.domains.get(name) == text else old_names[text]
    if len(same) < 2:
        raise ConfigError(
            f"of the domains of {request.reuse} {', '.join(same) or 'none'} is unchanged in {corpus.folder}, expected "
            "at least 2 to keep proportions among; plan without --reuse"
        )
    if len(same) == len(now.domains):
        raise ConfigError(
            f"every domain of {corpus.folder} is unchanged since {request.reuse}: its optimum, without the domains "
            "that left, is the mixture, and there is nothing to plan for"
        )
    optimum = WeightsFile.read(request.reuse_weights).weights
    try:
        optimum.check_domains(sorted(then.domains))
    except MixtureError as error:
        raise ConfigError(f"{request.reuse_weights}, for the domains of {request.reuse}: {error}") from None
    return Bundle.of({name: optimum[old] for name, old in same.items()}, corpus.domains)


def planned_runs(request: PlanRequest, corpus: Corpus, shared: SweepPlan) -> list[PlannedRun]:
    """Return the runs asked for, every mixture with each of its seeds."""
    seeds = range(request.first_seed, request.first_seed + request.seeds)
    base_seeds = range(request.first_seed, request.first_seed + request.base_seeds)
    if request.designs:
        if request.mixtures or request.tokens:
            other = "--mixture" if request.mixtures else "--tokens"
            raise ConfigError(f"--designs gives the mixtures and their tokens, so {other} has no effect; leave one out")
        plans = [read_designs(path) for path in request.designs]
        return [run for designs in plans for run in with_seeds(designs, designs[0].tokens, seeds, base_seeds)]
    if not request.tokens:
        raise ConfigError("which budgets? give --tokens, for example --tokens 1e6,2e6, or --designs FILE")
    runs = []
    for tokens in request.tokens:
        mixtures = designs_at(request, tokens, corpus, shared)
        runs += with_seeds(mixtures, tokens, seeds, () if request.mixtures else base_seeds)
    return runs


def designs_at(request: PlanRequest, tokens: float, corpus: Corpus, shared: SweepPlan) -> list[ProbeRun]:
    """Return the mixtures of one scale, the base or prior of a design first."""
    if request.mixtures:
        named = [named_mixture(text, corpus) for text in request.mixtures]
        return [ProbeRun(name, weights, tokens) for name, weights in named]
    if request.prior:
        prior = shared.reduced(named_mixture(request.prior, corpus)[1])
    else:
        prior = DomainWeights.uniform(shared.domains(corpus))
    designs = design.plan(
        request.kind,
        prior,
        tokens,
        runs=request.runs,
        low=request.low,
        high=request.high,
        floor=request.floor,
        seed=request.design_seed,
    )
    return [replace(each, weights=shared.expanded(each.weights)) for each in designs]

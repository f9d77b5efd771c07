#!/usr/bin/env python3
r"""From logged losses to the best weights at any scale.

Examples:
  # which law describes these runs? compare all on held-out runs, keep the best
  python tools/fit_mixture.py fit runs.csv --out law.json
  python tools/fit_mixture.py fit small.csv large.parquet --law exposure --targets wikipedia,github --out law.json

  # how well does it predict other runs?
  python tools/fit_mixture.py score law.json held_out.csv

  # what would these mixtures reach?
  python tools/fit_mixture.py predict law.json mixtures.csv --tokens 10e9

  # the best mixture for 10 B tokens of a 774 M model, no domain read more than 4 times
  python tools/fit_mixture.py optimize law.json --tokens 10e9 --parameters 774e6 --max-epochs 4 --corpus corpora/all \
      --out weights.json

  # is changing the mixture worth it? expected gain over what would be trained otherwise, its probability, a verdict
  python tools/fit_mixture.py decide law.json --tokens 10e9 --against uniform --out weights.json

  # AutoScale: the best mixture at each of two scales, then at the target's
  python tools/fit_mixture.py design --domains web,code,books --kind ddo --tokens 0.3e9 --out plan.json
  python tools/fit_mixture.py ddo runs_0.3B.csv --base base --floor 0.02 --out w1.json
  python tools/fit_mixture.py autoscale --at 0.3e9=w1.json --at 1.2e9=w2.json --tokens 10e9 --floor 0.02 \
      --out weights.json
  # ... and whether that is better than keeping the last optimum, judged by a law fitted to all scales
  python tools/fit_mixture.py autoscale --at 0.3e9=w1.json --at 1.2e9=w2.json --tokens 10e9 --floor 0.02 \
      --decide --law law.json --out weights.json

  # is the ranking of mixtures the same at every scale?
  python tools/fit_mixture.py stability runs.csv

Runs are CSV, JSON lines or Parquet with the columns run, parameters, tokens, weight/<domain>, loss/<target>; --columns
renames those of other tools, 'config.weights.*=weight/*' for example. Every command takes --json for machines and
--plot FILE.png for a figure. A weight is a share of training tokens, not of documents. weights.json is what
tools/swap_weights.py --weights takes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from autoscale_ds import cli
from autoscale_ds.errors import MixtureError
from autoscale_ds.files import check_outputs
from autoscale_ds.laws import lawfile, selection
from autoscale_ds.laws.score import score
from autoscale_ds.laws.stability import stability
from autoscale_ds.mixture import DomainWeights, WeightsFile, repeats
from autoscale_ds.mixture.bundle import are_same
from autoscale_ds.mixture.mixturesfile import read_mixtures
from autoscale_ds.report import mixture_figures as figures
from autoscale_ds.report import mixture_inputs as inputs
from autoscale_ds.report import mixture_options as options
from autoscale_ds.report import mixture_text, style
from autoscale_ds.report.mixture_text import Report
from autoscale_ds.search import AutoScale, design, moving, solver, uncertainty
from autoscale_ds.search import decision as decisions
from autoscale_ds.search.ddo_sweep import DDOSweep
from autoscale_ds.search.predictor import save_optima

SEEN = "has the name of a table the law was fitted to: how well it describes its own runs says little of others"


def main() -> None:
    """Run one command."""
    arguments = options.parser(__doc__ or "", COMMANDS).parse_args()
    if arguments.plot:
        style.require("--plot")
    outputs = {"--out": "out", "--save-path": "save_path", "--plot": "plot"}
    named = {option: getattr(arguments, attribute, None) for option, attribute in outputs.items()}
    options.refuse_ignored(arguments)
    check_outputs(named, inputs.input_files(arguments))
    result, text = arguments.command(arguments)
    print(cli.json_text(result) if arguments.json else text)


# -- commands: read, compute, write, draw, report ---------------------------------------------------------------


def fit(a: argparse.Namespace) -> Report:
    """Fit a law to run tables."""
    table = repeats.averaged(inputs.read_runs(a))
    with cli.counting("fitting", selection.num_steps(table, a.law_name, a.seed)) as advance:
        fitted = selection.fit(table, a.law_name, purpose=a.purpose, seed=a.seed, advance=advance)
    fitted = fitted.with_source(files=[Path(path).name for path in a.runs], loss_kind=a.loss_kind or "nats")
    lawfile.save(fitted, a.out)
    if a.plot:
        figures.plot_fit(a.plot, fitted, table)
    return mixture_text.of_fit(fitted, table, a.out)


def score_(a: argparse.Namespace) -> Report:
    """Score a law on run tables."""
    fitted, table = lawfile.load(a.law), inputs.read_runs(a)
    if not are_same(fitted.bundle, table.bundle):
        raise MixtureError(f"{a.law} and the runs do not take the same domains as one in the same proportions")
    known = [path for path in a.runs if Path(path).name in fitted.source.get("files", ())]
    result = {**score(fitted, table), "warnings": [f"{path} {SEEN}" for path in known]}
    if a.plot:
        figures.plot_predictions(a.plot, fitted, table)
    return result, mixture_text.of_score(result)


def predict(a: argparse.Namespace) -> Report:
    """Predict the losses of given mixtures, with intervals."""
    fitted = inputs.read_law(a.law, a)
    mixtures = read_mixtures(a.mixtures, fitted.domains, fitted.bundle)
    tokens = inputs.fill_scales(mixtures.tokens, a.tokens, "tokens", a.mixtures)
    sizes = inputs.fill_scales(mixtures.parameters, a.parameters, "parameters", a.mixtures)
    if np.isnan(tokens).any():
        name = mixtures.names[int(np.isnan(tokens).argmax())]
        raise MixtureError(f"{a.mixtures} does not say how many tokens {name!r} is for; give --tokens")
    warnings: dict[str, None] = {}  # in order, each once
    for weights, budget, size in zip(mixtures.weights, tokens, sizes, strict=True):
        known = None if np.isnan(size) else float(size)
        fitted.refuse_beyond(budget, known)
        fitted.size(known)
        by_name = dict(zip(fitted.domains, map(float, weights), strict=True))
        warnings |= dict.fromkeys(fitted.warnings(by_name, budget, known))
    predicted = solver.losses(fitted, fitted.inputs(mixtures.weights, tokens, sizes))
    return mixture_text.of_predictions(fitted, mixtures, tokens, sizes, predicted, list(warnings))


def optimize(a: argparse.Namespace) -> Report:
    """Find the best mixture of a law."""
    fitted = inputs.read_law(a.law, a)
    fitted.refuse_beyond(a.tokens, a.parameters)
    names = list(fitted.domains)
    objective, prior = inputs.read_objective(a, tuple(fitted.targets)), inputs.read_prior(a, names, fitted.bundle)
    goal = solver.Goal(fitted, objective, a.tokens, fitted.size(a.parameters), prior, a.kl or 0.0)
    caps = inputs.read_caps(a, names, a.tokens, fitted.bundle)
    best = solver.optimize(goal, solver.seen_bounds(fitted, a.floor, caps, allow_unseen=a.allow_unseen), seed=a.seed)
    source = f"fit_mixture.py optimize, law {fitted.law}, {goal.objective.name}"
    file = WeightsFile(best.weights, a.tokens, source, best.intervals)
    file.expanded(fitted.bundle).write(a.out)
    if a.plot:
        figures.plot_weights(a.plot, {"uniform": DomainWeights.uniform(names), "best": best.weights}, best.intervals)
    return mixture_text.of_optimum(
        best, goal, file, caps, fitted.warnings(best.weights, a.tokens, a.parameters, optimum=True)
    )


def decide(a: argparse.Namespace) -> Report:
    """Decide whether to change the mixture of a run, by the gain that laws expect and how sure they are of it."""
    laws = [inputs.read_law(path, a) for path in a.laws]
    names = list(laws[0].domains)
    objective = inputs.read_objective(a, tuple(laws[0].targets))
    goals = []
    for law in laws:
        law.refuse_beyond(a.tokens, a.parameters)
        goals.append(solver.Goal(law, objective, a.tokens, law.size(a.parameters)))
    against = inputs.read_against(a, laws[0])
    bounds = solver.seen_bounds(
        laws[0], a.floor, inputs.read_caps(a, names, a.tokens, laws[0].bundle), allow_unseen=a.allow_unseen
    )
    belief = decisions.Belief(tuple(goals), a.seed)
    with cli.counting("draws", len(belief.every)) as advance:
        found = decisions.decide(belief, against, bounds, risk=a.risk, advance=advance)
    source = f"fit_mixture.py decide, against {a.against}, {objective.name}: {found.sentence}"
    file = WeightsFile(found.weights, a.tokens, source)
    file.expanded(laws[0].bundle).write(a.out)
    if a.plot:
        figures.plot_weights(a.plot, {a.against: against, "best": found.best}, found.within_noise)
    warnings = [text for law in laws for text in law.warnings(found.best, a.tokens, a.parameters, optimum=True)]
    return mixture_text.of_decision(found, objective.name, a.against, file, list(dict.fromkeys(warnings)))


def ddo(a: argparse.Namespace) -> Report:
    """Solve one scale from perturbation runs."""
    table = inputs.read_runs(a)
    sweep = DDOSweep.of(table, a.base, inputs.read_objective(a, table.targets))
    if not a.accept_noise:
        sweep.refuse_noise()
    fitted = sweep.fitted
    caps = inputs.read_caps(a, list(fitted.base), fitted.tokens, table.bundle)
    weights, intervals = sweep.optimum(sweep.redrawn(seed=a.seed), floor=a.floor, caps=caps)
    source = f"fit_mixture.py ddo, base {a.base}, {sweep.objective.name}"
    file = WeightsFile(weights, fitted.tokens, source, intervals)
    file.expanded(table.bundle).write(a.out)
    if a.plot:
        figures.plot_curves(a.plot, fitted)
    return mixture_text.of_ddo(fitted, file, sweep.effects)


def autoscale(a: argparse.Namespace) -> Report:
    """Extrapolate the optima of two scales or more (AutoScale as published), or decide whether to move at all."""
    files = inputs.read_scales(a)
    optima = [(tokens, file.weights) for tokens, file in files]
    path = AutoScale.fit(optima, floor=a.floor)
    published = path.predict(a.tokens)
    intervals = uncertainty.path_intervals(files, a.tokens, published, floor=a.floor, seed=a.seed)
    goal = law_goal(a, path.domains) if a.law else None
    joint = solver.minimum(goal, solver.seen_bounds(goal.model, a.floor)) if goal else None
    move = decision(a, files, published, goal, joint) if a.decide else None
    weights = move.weights if move else published
    source = f"fit_mixture.py autoscale{' --decide' if move else ''}, optima at "
    source += f"{', '.join(f'{tokens:g}' for tokens, _ in optima)} tokens{f': {move.reason}' if move else ''}"
    if move and move.share == 0:  # weights that are kept have the intervals they had
        intervals = dict(files[-1][1].intervals)
    elif move:  # the decision may lie outside of what the path alone would say
        low_high = intervals.items()
        intervals = {name: (min(low, weights[name]), max(high, weights[name])) for name, (low, high) in low_high}
    file = WeightsFile(weights, a.tokens, source, intervals)
    file.write(a.out)
    if a.save_path:
        save_optima(a.save_path, decided_path(optima, a.tokens, weights) if move else optima, a.floor)
    if a.plot:
        figures.plot_path(a.plot, path, optima, a.tokens)
    return mixture_text.of_autoscale(path, optima, file, published, joint, move)


def law_goal(a: argparse.Namespace, domains: tuple[str, ...]) -> solver.Goal:
    """Return the objective of the law fitted to all scales at once, at the budget."""
    fitted = inputs.read_law(a.law, a)
    fitted.refuse_beyond(a.tokens, a.parameters)
    if fitted.bundle is not None:
        raise MixtureError(
            f"{a.law} takes {', '.join(fitted.bundle.shares)} as one domain, so it cannot judge a path of each; give a "
            "law of all domains, or leave it out"
        )
    DomainWeights.uniform(list(domains)).check_domains(list(fitted.domains))
    objective = inputs.read_objective(a, tuple(fitted.targets))
    return solver.Goal(fitted, objective, a.tokens, fitted.size(a.parameters))


def decision(
    a: argparse.Namespace,
    files: list[tuple[float, WeightsFile]],
    published: DomainWeights,
    goal: solver.Goal | None,
    joint: DomainWeights | None,
) -> moving.Move:
    """Return whether, and how far, to move from the optimum of the largest scale."""
    last = files[-1][1].weights
    if goal is None or joint is None:
        return moving.Move(last, "", 0.0, (0.0, 0.0, 0.0), 0.0, moving.NO_EVIDENCE)
    if not goal.model.scales.tokens_vary:
        raise MixtureError(f"{a.law} was fitted to one token count and cannot judge a move to another; fit several")
    paths = uncertainty.path_draws(files, floor=a.floor, seed=a.seed, wrong=0)
    drawn = [path(a.tokens) for path in paths]
    candidates = {
        "published path": (published, moving.supported(last, published, drawn)),
        "joint law's optimum": (joint, 1.0),
    }
    return moving.decide(last, candidates, goal)


def decided_path(
    optima: list[tuple[float, DomainWeights]], tokens: float, weights: DomainWeights
) -> list[tuple[float, DomainWeights]]:
    """Return the optima a run follows after a decision: from the last known one to the decided one."""
    last = optima[-1]
    return [last, (tokens, weights)] if tokens > 1.01 * last[0] else [(tokens, weights), (2 * tokens, weights)]


def plan(a: argparse.Namespace) -> Report:
    """Plan the runs of a sweep."""
    centre = inputs.read_centre(a)
    runs = design.plan(
        a.kind,
        centre,
        a.tokens,
        runs=a.num_runs,
        low=1 / 3 if a.low is None else a.low,
        high=3.0 if a.high is None else a.high,
        floor=a.floor,
        caps=inputs.read_caps(a, list(centre), a.tokens) if a.kind == "dirichlet" else {},
        parameters=a.parameters,
        seed=a.seed,
    )
    costs = design.cost(runs, target_tokens=a.target_tokens, target_parameters=a.target_parameters)
    content = design.write_plan(a.out, runs, a.kind, costs)
    if a.plot:
        figures.plot_plan(a.plot, runs)
    return mixture_text.of_plan(content, a.out)


def stability_(a: argparse.Namespace) -> Report:
    """Compare the ranking of mixtures between scales."""
    table = inputs.read_runs(a)
    objective = inputs.read_objective(a, table.targets) if a.objective else None
    result = stability(table, objective)
    if a.plot:
        figures.plot_stability(a.plot, result)
    return result, mixture_text.of_stability(result)


# Their options have the same names in autoscale_ds/report/mixture_options.py.
COMMANDS = {
    "fit": fit,
    "score": score_,
    "predict": predict,
    "optimize": optimize,
    "decide": decide,
    "ddo": ddo,
    "autoscale": autoscale,
    "design": plan,
    "stability": stability_,
}


if __name__ == "__main__":
    cli.run(
        main,
        interrupted=cli.FROM_THE_START,
        memory_advice="lower --runs, or the number of domains and runs in the tables",
    )

#!/usr/bin/env python3
r"""From logged losses to the best weights at any scale.

Examples:
  # which law describes these runs? compare all on held-out runs, keep the best
  python tools/fit_mixture.py fit runs.csv --out law.json
  python tools/fit_mixture.py fit small.csv large.parquet --law exposure-scale --targets wikipedia,github --out law.json

  # how well does it predict other runs?
  python tools/fit_mixture.py score law.json held_out.csv

  # the best mixture for 10 B tokens of a 774 M model, no domain read more than 4 times
  python tools/fit_mixture.py optimize law.json --tokens 10e9 --parameters 774e6 --max-epochs 4 --corpus corpora/all \
      --out weights.json

  # AutoScale: the best mixture at each of two scales, then at the target's
  python tools/fit_mixture.py design --domains web,code,books --kind ddo --tokens 0.3e9 --out plan.json
  python tools/fit_mixture.py ddo runs_0.3B.csv --base base --floor 0.02 --out w1.json
  python tools/fit_mixture.py autoscale --at 0.3e9=w1.json --at 1.2e9=w2.json --tokens 10e9 --floor 0.02 \
      --out weights.json

  # is the ranking of mixtures the same at every scale?
  python tools/fit_mixture.py stability runs.csv

Runs are CSV or Parquet with the columns run, parameters, tokens, weight/<domain>, loss/<target>. Every command takes
--json for machines and --plot FILE.png for a figure. weights.json is what tools/swap_weights.py --weights takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_ds import cli
from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture import (
    DDO,
    AutoScale,
    DomainWeights,
    LossModel,
    Objective,
    RunTable,
    WeightsFile,
    design,
    figures,
    lawfile,
    laws,
    model,
    plots,
    repeats,
    reports,
    selection,
    solver,
    uncertainty,
)
from autoscale_ds.mixture.ddo import perturbations
from autoscale_ds.mixture.objective import KINDS as OBJECTIVES
from autoscale_ds.mixture.predictor import save_optima
from autoscale_ds.mixture.score import score
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.stability import stability


def main() -> None:
    """Run one command."""
    arguments = parser().parse_args()
    if arguments.plot:
        plots.require()
    refuse_unwritable(getattr(arguments, "out", None), getattr(arguments, "save_path", None), arguments.plot)
    result, text = arguments.command(arguments)
    print(json.dumps(result, indent=2, ensure_ascii=False) if arguments.json else text)


def refuse_unwritable(*paths: str | None) -> None:
    """Refuse an output in a folder that does not exist before the work, not after it."""
    for path in paths:
        if path and not Path(path).absolute().parent.is_dir():
            raise MixtureError(f"cannot write {path}: the folder {Path(path).parent} does not exist; make it first")


def fit(a: argparse.Namespace) -> tuple[Any, str]:
    """Fit a law to run tables."""
    table = read_runs(a)
    table = repeats.averaged(table)
    fitted = selection.choose(table, seed=a.seed) if a.law == "auto" else model.fit_law(table, a.law, seed=a.seed)
    fitted = fitted.with_source(
        runs=len(table),
        files=[Path(path).name for path in a.runs],
        largest_weights=dict(zip(table.domains, map(float, table.weights.max(0)), strict=True)),
    )
    lawfile.save(fitted, a.out)
    if a.plot:
        figures.plot_fit(a.plot, fitted, table)
    return reports.of_fit(fitted, table, a.out)


def score_(a: argparse.Namespace) -> tuple[Any, str]:
    """Score a law on run tables."""
    fitted, table = lawfile.load(a.law), RunTable.read(a.runs, drop_bad=a.drop_bad)
    result = score(fitted, table)
    if a.plot:
        figures.plot_predictions(a.plot, fitted, table)
    return result, reports.of_score(result)


def optimize(a: argparse.Namespace) -> tuple[Any, str]:
    """Find the best mixture of a law."""
    fitted = lawfile.load(a.law)
    names = list(fitted.domains)
    prior = WeightsFile.read(a.prior).weights if a.prior else None
    if prior is not None:
        prior.check_domains(names)
    if a.kl and prior is None:
        raise MixtureError(f"--kl {a.kl:g} needs the mixture to stay near: give --prior FILE")
    goal = solver.Goal(
        model=fitted,
        objective=read_objective(a.objective, list(fitted.targets), a.corpus),
        tokens=a.tokens,
        parameters=default_size(fitted) if a.parameters is None else a.parameters,
        prior=None if prior is None else np.array([prior[name] for name in names]),
        kl=a.kl,
    )
    caps = read_caps(a, names)
    found = solver.optimize(goal, Bounds.of(names, a.floor, caps), seed=a.seed)
    source = f"fit_mixture.py optimize, law {fitted.law}, {goal.objective.name}"
    file = WeightsFile(found.weights, a.tokens, source, found.intervals)
    file.write(a.out)
    warnings = fitted.warnings(found.weights, a.tokens, a.parameters)
    if a.plot:
        figures.plot_weights(a.plot, {"uniform": DomainWeights.uniform(names), "best": found.weights}, found.intervals)
    return reports.of_optimum(found, goal, file, caps, warnings)


def ddo(a: argparse.Namespace) -> tuple[Any, str]:
    """Solve one scale from perturbation runs."""
    table = read_runs(a)
    objective = read_objective(a.objective, list(table.targets), a.corpus)
    means = repeats.averaged(table)
    fitted = DDO.from_table(means, a.base, objective)
    designs = [means.runs[row] for row, _, _ in perturbations(means, a.base)]
    found = repeats.effects(table, a.base, objective, designs)
    if repeats.is_clear(found) is False and not a.accept_noise:
        raise MixtureError(
            f"the perturbations around {a.base!r} do not stand out of the noise between seeds (median "
            f"{np.median([effect.ratio for effect in found]):.2g} standard errors, 2 wanted): repeat them with more "
            "seeds (sweep.py plan --seeds), train longer, or fit noise with --accept-noise"
        )
    caps = {**epoch_caps(a, list(fitted.base), fitted.tokens), **parse_caps(a.cap)}
    ranges = {}
    if repeats.is_clear(found) is not None:
        options = {"floor": a.floor, "caps": caps, "seed": a.seed}
        ranges = uncertainty.intervals(uncertainty.ddo_draws(fitted, table, a.base, objective, found, **options))
    source = f"fit_mixture.py ddo, base {a.base}, {objective.name}"
    file = WeightsFile(fitted.optimum(floor=a.floor, caps=caps), fitted.tokens, source, ranges)
    file.write(a.out)
    if a.plot:
        figures.plot_curves(a.plot, fitted)
    return reports.of_ddo(fitted, file, found)


def autoscale(a: argparse.Namespace) -> tuple[Any, str]:
    """Extrapolate the optima of two scales or more."""
    files = [parse_scale(text) for text in a.at]
    optima = [(tokens, file.weights) for tokens, file in files]
    path = AutoScale.fit(optima, floor=a.floor)
    scales = ", ".join(f"{tokens:g}" for tokens, _ in sorted(optima, key=lambda pair: pair[0]))
    ranges = uncertainty.path_intervals(files, a.tokens, floor=a.floor, seed=a.seed)
    source = f"fit_mixture.py autoscale, optima at {scales} tokens"
    file = WeightsFile(path.predict(a.tokens), a.tokens, source, ranges)
    file.write(a.out)
    if a.save_path:
        save_optima(a.save_path, optima, a.floor)
    if a.plot:
        figures.plot_path(a.plot, path, optima, a.tokens)
    return reports.of_autoscale(path, optima, file, joint_optimum(a, list(path.domains)) if a.law else None)


def joint_optimum(a: argparse.Namespace, domains: list[str]) -> DomainWeights:
    """Return the optimum of a law fitted to all scales at once, to show beside the extrapolation."""
    fitted = lawfile.load(a.law)
    DomainWeights.uniform(domains).check_domains(list(fitted.domains))
    size = default_size(fitted) if a.parameters is None else a.parameters
    goal = solver.Goal(fitted, Objective.of_kind("mean-loss", tuple(fitted.targets)), a.tokens, size)
    return solver.optimize(goal, Bounds.of(list(fitted.domains), a.floor), seed=a.seed).weights


def plan(a: argparse.Namespace) -> tuple[Any, str]:
    """Plan the runs of a sweep."""
    prior = read_prior(a)
    if a.kind == "ddo":
        runs = design.ddo_plan(prior, a.tokens, low=a.low, high=a.high, parameters=a.parameters)
    elif a.runs is None or a.runs < 1:
        raise MixtureError(f"--kind {a.kind} needs the number of runs: give --runs K of at least 1")
    elif a.kind == "axis":
        runs = design.axis_plan(prior, a.runs, a.tokens, floor=a.floor, parameters=a.parameters)
    else:
        caps = {**epoch_caps(a, list(prior), a.tokens), **parse_caps(a.cap)}
        runs = design.dirichlet_plan(
            prior, a.runs, a.tokens, floor=a.floor, caps=caps, parameters=a.parameters, seed=a.seed
        )
    costs = design.cost(runs, target_tokens=a.target_tokens, target_parameters=a.target_parameters)
    content = design.write_plan(a.out, runs, a.kind, costs)
    if a.plot:
        figures.plot_plan(a.plot, runs)
    return reports.of_plan(content, a.out)


def stability_(a: argparse.Namespace) -> tuple[Any, str]:
    """Compare the ranking of mixtures between scales."""
    result = stability(read_runs(a))
    if a.plot:
        figures.plot_stability(a.plot, result)
    return result, reports.of_stability(result)


def read_runs(a: argparse.Namespace) -> RunTable:
    """Read the run tables, saying on stderr what was dropped."""
    table = RunTable.read(a.runs, drop_bad=a.drop_bad)
    for line in table.dropped:
        print(f"dropped: {line}", file=sys.stderr)
    return table.with_targets([name for text in a.targets for name in text.split(",") if name]) if a.targets else table


def read_objective(text: str, targets: list[str], corpus: str | None) -> Objective:
    """Return a kind of objective by name, or one read from a JSON file."""
    if text not in OBJECTIVES and not Path(text).exists():
        raise MixtureError(f"objective {text!r} is neither a file nor one of {', '.join(OBJECTIVES)}")
    if text not in OBJECTIVES:
        return Objective.read(text, targets)
    bytes_per_token = None
    if text == "bits-per-byte" and corpus:
        opened = open_corpus(corpus)
        bytes_per_token = {t: b for t in targets if t in opened.domains and (b := opened.bytes_per_token(t))}
    return Objective.of_kind(text, targets, bytes_per_token=bytes_per_token)


def read_caps(a: argparse.Namespace, domains: list[str]) -> dict[str, float]:
    """Return the largest weight of each domain from --max-epochs and --cap, the smaller where both are given."""
    caps = epoch_caps(a, domains, a.tokens)
    for name, cap in parse_caps(a.cap).items():
        caps[name] = min(cap, caps.get(name, 1.0))
    return caps


def epoch_caps(a: argparse.Namespace, domains: list[str], tokens: float) -> dict[str, float]:
    """Return max epochs x available tokens / budget of each domain."""
    if a.max_epochs is None:
        return {}
    if not a.corpus:
        raise MixtureError("--max-epochs needs to know how many tokens there are: give --corpus DIR")
    if not a.max_epochs > 0:
        raise MixtureError(f"--max-epochs is {a.max_epochs:g}, expected a positive number")
    corpus = open_corpus(a.corpus)
    missing = [name for name in domains if name not in corpus.domains]
    if missing:
        raise MixtureError(f"{a.corpus} has no domain {missing[0]!r}; it holds: {', '.join(corpus.domains)}")
    available = {name: sum(shard.tokens for shard in corpus.shards(name)) for name in domains}
    return {name: a.max_epochs * count / tokens for name, count in available.items()}


def open_corpus(folder: str) -> Any:
    """Open a corpus folder; imported here, so that other commands run without it."""
    from autoscale_ds.corpus import Corpus

    return Corpus(folder)


def default_size(fitted: LossModel) -> float:
    """Return NaN where the law knows no size; refuse to guess one where it does."""
    if fitted.scales.parameters_vary:
        raise MixtureError("this law depends on the model size: give --parameters, 774e6 for example")
    return float("nan")


def read_prior(a: argparse.Namespace) -> DomainWeights:
    """Return the centre of a design: --prior, else uniform over --domains or the corpus."""
    names = [name for name in (a.domains or "").split(",") if name]
    if a.corpus and not names:
        names = open_corpus(a.corpus).domains
    if a.prior:
        prior = WeightsFile.read(a.prior).weights
        if names:
            prior.check_domains(names)
        return prior
    if len(names) < 2 or len(set(names)) < len(names):
        raise MixtureError(
            f"the design has domains {names}; give at least 2 different: --domains a,b,c or --corpus DIR"
        )
    return DomainWeights.uniform(names)


def parse_scale(text: str) -> tuple[float, WeightsFile]:
    """Parse TOKENS=FILE."""
    tokens, separator, path = text.partition("=")
    try:
        number = float(tokens)
    except ValueError:
        separator = ""
    if not separator:
        raise MixtureError(f"--at {text!r} is not of the form TOKENS=FILE, for example --at 0.3e9=w1.json")
    return number, WeightsFile.read(path)


def parse_caps(texts: list[str]) -> Mapping[str, float]:
    """Parse DOMAIN=WEIGHT."""
    caps = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            caps[name] = float(number)
        except ValueError:
            caps[name] = -1.0
        if not name or not 0 <= caps[name] <= 1:
            raise MixtureError(f"--cap {text!r} is not of the form DOMAIN=WEIGHT, for example --cap books=0.2")
    return caps


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, options, example) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=function.__doc__,
            description=function.__doc__,
            epilog=f"example:\n  python tools/fit_mixture.py {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.add_argument("--plot", metavar="FILE.png", help="draw a figure (extra 'plots')")
        sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
        options(sub)
    return top


def _runs(s: argparse.ArgumentParser) -> None:
    s.add_argument("runs", nargs="+", metavar="RUNS", help="run tables, CSV or Parquet")
    s.add_argument(
        "--drop-bad", "--drop-nan", action="store_true", help="leave out rows with NaN instead of refusing them"
    )


def _targets(s: argparse.ArgumentParser) -> None:
    s.add_argument("--targets", nargs="+", metavar="NAME", help="only these targets (default: all)")


def _bounds(s: argparse.ArgumentParser) -> None:
    s.add_argument("--floor", type=float, default=0.0, help="smallest weight of every domain (default: 0)")
    s.add_argument("--cap", action="append", default=[], metavar="DOMAIN=W", help="largest weight of a domain")
    s.add_argument("--max-epochs", type=float, help="read no domain of --corpus more often than this")
    s.add_argument("--corpus", metavar="DIR", help="corpus folder (corpus.json): domains and their tokens")


def _out(s: argparse.ArgumentParser, what: str) -> None:
    s.add_argument("--out", required=True, metavar="FILE.json", help=what)


def _fit_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)
    s.add_argument("--law", default="auto", help=f"auto (default) or one of: {', '.join(laws.NAMES)}")
    _out(s, "the fitted law")


def _score_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("law", metavar="LAW.json")
    _runs(s)


def _optimize_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("law", metavar="LAW.json")
    s.add_argument("--tokens", type=float, required=True, help="training budget, tokens")
    s.add_argument("--parameters", type=float, help="model size, where the law depends on it")
    _bounds(s)
    s.add_argument("--prior", metavar="FILE", help="weights to stay near")
    s.add_argument("--kl", type=float, default=0.0, help="price of a nat of divergence from --prior (0.05 to 0.1)")
    s.add_argument(
        "--objective", default="mean-loss", help=f"JSON of target weights, or one of: {', '.join(OBJECTIVES)}"
    )
    _out(s, "the weights")


def _ddo_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)
    s.add_argument("--base", required=True, metavar="RUN", help="name of the unperturbed run, without @seed")
    s.add_argument("--accept-noise", action="store_true", help="fit also what does not stand out of the noise")
    s.add_argument("--objective", default="mean-perplexity", help=f"JSON or one of: {', '.join(OBJECTIVES)}")
    _bounds(s)
    _out(s, "the weights")


def _autoscale_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("--at", action="append", default=[], metavar="TOKENS=FILE", help="optimum at a scale; two or more")
    s.add_argument("--tokens", type=float, required=True, help="training budget, tokens")
    s.add_argument("--floor", type=float, default=0.0, help="weight the optima were held above, and kept (default: 0)")
    s.add_argument("--law", metavar="LAW.json", help="show the optimum of this law (lowest mean loss) beside it")
    s.add_argument("--parameters", type=float, help="model size, where that law depends on it")
    s.add_argument("--save-path", metavar="FILE.json", help="the path itself, for mixture.predictor of a run")
    _out(s, "the weights")


def _design_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("--domains", metavar="A,B,C", help="domain names (or --corpus, or --prior)")
    s.add_argument("--kind", choices=design.KINDS, default="dirichlet")
    s.add_argument("--runs", type=int, metavar="K", help="number of runs (ddo: always 2 m + 1)")
    s.add_argument("--tokens", type=float, required=True, help="tokens of a run (ddo: of the base run)")
    s.add_argument("--parameters", type=float, help="model size of the probe runs, for the cost in FLOPs")
    s.add_argument("--prior", metavar="FILE", help="mixture at the centre (default: uniform)")
    s.add_argument("--low", type=float, default=1 / 3, help="ddo: factor of the low runs (default: 1/3)")
    s.add_argument("--high", type=float, default=3.0, help="ddo: factor of the high runs (default: 3)")
    s.add_argument("--target-tokens", type=float, help="budget of the target run, to compare the cost with")
    s.add_argument("--target-parameters", type=float, help="size of the target run, to compare the cost with")
    _bounds(s)
    _out(s, "the plan")


def _stability_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)


COMMANDS: dict[str, tuple[Any, Callable[[argparse.ArgumentParser], None], str]] = {
    "fit": (fit, _fit_options, "runs.csv --law auto --out law.json"),
    "score": (score_, _score_options, "law.json held_out.csv --json"),
    "optimize": (optimize, _optimize_options, "law.json --tokens 10e9 --floor 0.01 --out weights.json"),
    "ddo": (ddo, _ddo_options, "runs.csv --base base --objective mean-perplexity --floor 0.02 --out weights.json"),
    "autoscale": (
        autoscale,
        _autoscale_options,
        "--at 0.3e9=w1.json --at 1.2e9=w2.json --tokens 10e9 --out weights.json",
    ),
    "design": (
        plan,
        _design_options,
        "--domains web,code,books --kind dirichlet --runs 32 --tokens 1e9 --out plan.json",
    ),
    "stability": (stability_, _stability_options, "runs.csv"),
}


if __name__ == "__main__":
    cli.run(main)

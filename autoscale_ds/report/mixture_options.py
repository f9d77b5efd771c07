"""The options of fit_mixture.py: which each command takes, and which of them are of use together."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from autoscale_ds.cli import CommandLine, file_name, natural, positive, positive_int, real, share
from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import lawfile, registry
from autoscale_ds.mixture import losskinds
from autoscale_ds.mixture.objective import KINDS as OBJECTIVES
from autoscale_ds.report.mixture_text import Report
from autoscale_ds.search import design


def parser(description: str, commands: Mapping[str, Callable[[argparse.Namespace], Report]]) -> argparse.ArgumentParser:
    """Return the command line: one sub-command each, whose docstring is its help."""
    top = CommandLine(description=description)
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")
    for name, command in commands.items():
        add_options, example = OPTIONS[name]
        sub = subparsers.add_parser(
            name,
            help=command.__doc__,
            description=command.__doc__,
            epilog=f"example:\n  python tools/fit_mixture.py {name} {example}",
        )
        sub.set_defaults(command=command, name=name)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.add_argument("--plot", type=file_name, metavar="FILE.png", help="draw a figure (extra 'plots')")
        sub.add_argument("--seed", type=natural, default=0, help="seed of everything random (default: 0)")
        add_options(sub)
    return top


# -- what each command takes ------------------------------------------------------------------------------------


def _runs(s: argparse.ArgumentParser) -> None:
    s.add_argument("runs", nargs="+", metavar="RUNS", help="run tables: CSV, JSON lines or Parquet")
    s.add_argument(
        "--drop-bad", "--drop-nan", action="store_true", help="leave out rows with NaN instead of refusing them"
    )
    s.add_argument(
        "--accept-changed", action="store_true", help="take runs together although a domain's text changed between them"
    )
    s.add_argument(
        "--loss-kind", choices=list(losskinds.KINDS), help="what the losses are (default: nats per token, and checked)"
    )
    s.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="rename columns; a * stands for the rest of a name: 'config.weights.*=weight/*' (repeatable)",
    )


def _targets(s: argparse.ArgumentParser) -> None:
    s.add_argument("--targets", nargs="+", metavar="NAME", help="only these targets (default: all)")


def _bounds(s: argparse.ArgumentParser) -> None:
    s.add_argument("--floor", type=share, default=0.0, help="smallest weight of every domain (default: 0)")
    s.add_argument("--cap", action="append", default=[], metavar="DOMAIN=W", help="largest weight of a domain")
    s.add_argument("--max-epochs", type=positive, help="read no domain of --corpus more often than this")
    s.add_argument(
        "--corpus", type=file_name, metavar="DIR", help="corpus folder (corpus.json): domains and their tokens"
    )


def _unique(s: argparse.ArgumentParser) -> None:
    s.add_argument(
        "--unique",
        metavar="FILE|NAME=TOKENS,…",
        help="for a law of repetition: tokens of text of every domain, as JSON by name or as given (default: those of "
        "--corpus)",
    )


def _out(s: argparse.ArgumentParser, what: str) -> None:
    s.add_argument("--out", required=True, type=file_name, metavar="FILE.json", help=what)


def _fit_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)
    s.add_argument(
        "--law",
        dest="law_name",
        metavar="LAW",
        default="auto",
        help=f"auto (default) or one of: {', '.join(registry.NAMES)}",
    )
    s.add_argument(
        "--for",
        dest="purpose",
        choices=["optimum", "forecast"],
        default="optimum",
        help="what auto compares on held-out runs: differences between mixtures at one scale, which decide the best "
        "mixture (default), or losses",
    )
    _out(s, "the fitted law")


def _score_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("law", metavar="LAW.json")
    _runs(s)


def _predict_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("law", metavar="LAW.json")
    s.add_argument("mixtures", metavar="MIXTURES", help="a table of weight/<domain> columns, or a weights.json")
    s.add_argument("--tokens", type=positive, help="training budget, where the table has no column tokens")
    s.add_argument("--parameters", type=positive, help="model size, where the table has no column parameters")
    s.add_argument("--corpus", type=file_name, metavar="DIR", help="corpus folder, for a law of repetition")
    _unique(s)


def _goal(s: argparse.ArgumentParser) -> None:
    s.add_argument("--tokens", type=positive, required=True, help="training budget, tokens")
    s.add_argument("--parameters", type=positive, help="model size, where the law depends on it")
    _bounds(s)
    _unique(s)
    s.add_argument("--allow-unseen", action="store_true", help="give domains more than any run of the table gave them")
    s.add_argument(
        "--objective",
        type=file_name,
        default="mean-loss",
        help=f"JSON of target weights, or one of: {', '.join(OBJECTIVES)}",
    )
    _out(s, "the weights")


def _optimize_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("law", metavar="LAW.json")
    s.add_argument("--prior", type=file_name, metavar="FILE", help="weights to stay near")
    s.add_argument("--kl", type=real(least=0), help="price of a nat of divergence from --prior (0.05 to 0.1)")
    _goal(s)


def _decide_options(s: argparse.ArgumentParser) -> None:
    s.add_argument(
        "laws", nargs="+", metavar="LAW.json", help="several laws of one table are taken to be equally likely"
    )
    s.add_argument(
        "--against",
        type=file_name,
        default="uniform",
        help="what would be trained otherwise: uniform (default), proportional to --corpus, or a file of weights",
    )
    s.add_argument(
        "--risk",
        type=real(above=0.5, most=0.99),
        help="choose by the gain that is exceeded with this probability, 0.9 for example (default: by the mean)",
    )
    _goal(s)


def _ddo_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)
    s.add_argument("--base", required=True, metavar="RUN", help="name of the unperturbed run, without @seed")
    s.add_argument("--accept-noise", action="store_true", help="fit also what does not stand out of the noise")
    s.add_argument(
        "--objective", type=file_name, default="mean-perplexity", help=f"JSON or one of: {', '.join(OBJECTIVES)}"
    )
    _bounds(s)
    _out(s, "the weights")


def _autoscale_options(s: argparse.ArgumentParser) -> None:
    s.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="TOKENS=FILE",
        help="optimum at a scale, weights.json of ddo or optimize; two or more",
    )
    s.add_argument("--tokens", type=positive, required=True, help="training budget, tokens")
    s.add_argument("--floor", type=share, default=0.0, help="weight the optima were held above, and kept (default: 0)")
    s.add_argument(
        "--law", type=file_name, metavar="LAW.json", help="show the optimum of this law beside it, and decide by it"
    )
    s.add_argument("--parameters", type=positive, help="model size, where that law depends on it")
    s.add_argument(
        "--decide",
        action="store_true",
        help="keep the optimum of the largest scale, or move from it only as far as --law shows a gain with "
        "probability 0.9; without --law it is kept",
    )
    s.add_argument(
        "--objective",
        type=file_name,
        help=f"of --law: JSON of target weights, or one of: {', '.join(OBJECTIVES)} (default: mean-loss)",
    )
    s.add_argument(
        "--corpus", type=file_name, metavar="DIR", help="corpus folder, for bits-per-byte or a law of repetition"
    )
    _unique(s)
    s.add_argument(
        "--save-path", type=file_name, metavar="FILE.json", help="the path itself, for mixture.predictor of a run"
    )
    _out(s, "the weights")


def _design_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("--domains", metavar="A,B,C", help="domain names (or --corpus, or --prior)")
    s.add_argument("--kind", choices=design.KINDS, default="dirichlet")
    s.add_argument(
        "--runs", dest="num_runs", type=positive_int, metavar="K", help="number of runs (ddo: always 2 m + 1)"
    )
    s.add_argument("--tokens", type=positive, required=True, help="tokens of a run (ddo: of the base run)")
    s.add_argument("--parameters", type=positive, help="model size of the probe runs, for the cost in FLOPs")
    s.add_argument("--prior", type=file_name, metavar="FILE", help="mixture at the centre (default: uniform)")
    s.add_argument("--low", type=real(least=0), help="ddo: factor of the low runs (default: 1/3)")
    s.add_argument("--high", type=positive, help="ddo: factor of the high runs (default: 3)")
    s.add_argument("--target-tokens", type=positive, help="budget of the target run, to compare the cost with")
    s.add_argument("--target-parameters", type=positive, help="size of the target run, to compare the cost with")
    _bounds(s)
    _out(s, "the plan")


def _stability_options(s: argparse.ArgumentParser) -> None:
    _runs(s)
    _targets(s)
    s.add_argument(
        "--objective",
        type=file_name,
        help=f"rank by one number, not target by target: JSON of target weights, or one of: {', '.join(OBJECTIVES)}",
    )
    s.add_argument("--corpus", type=file_name, metavar="DIR", help="corpus folder, for bits-per-byte")


OPTIONS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str]] = {
    "fit": (_fit_options, "runs.csv --law auto --out law.json"),
    "score": (_score_options, "law.json held_out.csv --json"),
    "predict": (_predict_options, "law.json mixtures.csv --tokens 10e9"),
    "optimize": (_optimize_options, "law.json --tokens 10e9 --floor 0.01 --out weights.json"),
    "decide": (_decide_options, "law.json --tokens 10e9 --against uniform --out weights.json"),
    "ddo": (_ddo_options, "runs.csv --base base --objective mean-perplexity --floor 0.02 --out weights.json"),
    "autoscale": (_autoscale_options, "--at 0.3e9=w1.json --at 1.2e9=w2.json --tokens 10e9 --out weights.json"),
    "design": (_design_options, "--domains web,code,books --kind dirichlet --runs 32 --tokens 1e9 --out plan.json"),
    "stability": (_stability_options, "runs.csv"),
}


# -- which of them are of use together --------------------------------------------------------------------------

# Command, option, when it counts, and what it counts for: given in vain it is refused, as its user expects an effect.
USED: tuple[tuple[str, str, Callable[[argparse.Namespace], Any], str], ...] = (
    ("optimize", "prior", lambda a: a.kl is not None, "--kl, the price of leaving it (0.05 to 0.1)"),
    ("predict", "corpus", lambda a: _counts_repetition(a), "a law of repetition"),
    ("predict", "unique", lambda a: _counts_repetition(a), "a law of repetition"),
    (
        "optimize",
        "corpus",
        lambda a: _reads_corpus(a) or _counts_repetition(a),
        "--max-epochs or --objective bits-per-byte, or a law of repetition",
    ),
    ("optimize", "unique", lambda a: _counts_repetition(a), "a law of repetition"),
    ("ddo", "corpus", lambda a: _reads_corpus(a), "--max-epochs or --objective bits-per-byte"),
    (
        "decide",
        "corpus",
        lambda a: a.against == "proportional" or _reads_corpus(a) or _counts_repetition(a),
        "--against proportional, --max-epochs or --objective bits-per-byte, or a law of repetition",
    ),
    ("decide", "unique", lambda a: _counts_repetition(a), "a law of repetition"),
    ("stability", "corpus", lambda a: _reads_corpus(a), "--objective bits-per-byte"),
    ("autoscale", "objective", lambda a: a.law, "--law"),
    ("autoscale", "parameters", lambda a: a.law, "--law"),
    (
        "autoscale",
        "corpus",
        lambda a: a.law and (_reads_corpus(a) or _counts_repetition(a)),
        "--law and --objective bits-per-byte, or a law of repetition",
    ),
    ("autoscale", "unique", lambda a: a.law and _counts_repetition(a), "--law, of a law of repetition"),
    ("design", "num_runs", lambda a: a.kind != "ddo", "--kind dirichlet or axis; ddo has 2 m + 1 runs"),
    ("design", "floor", lambda a: a.kind != "ddo", "--kind dirichlet or axis"),
    ("design", "cap", lambda a: a.kind == "dirichlet", "--kind dirichlet"),
    ("design", "max_epochs", lambda a: a.kind == "dirichlet", "--kind dirichlet"),
    ("design", "low", lambda a: a.kind == "ddo", "--kind ddo"),
    ("design", "high", lambda a: a.kind == "ddo", "--kind ddo"),
    ("design", "target_parameters", lambda a: a.target_tokens and a.parameters, "--target-tokens and --parameters"),
)


def refuse_ignored(a: argparse.Namespace) -> None:
    """Raise MixtureError for an option that would change nothing."""
    for command, option, counts, needed in USED:
        if a.name == command and getattr(a, option) and not counts(a):
            flag = "--runs" if option == "num_runs" else f"--{option.replace('_', '-')}"
            raise MixtureError(f"{flag} changes nothing here; it needs {needed}")


def _counts_repetition(a: argparse.Namespace) -> bool:
    """Return whether a law of the command needs the tokens of text of every domain."""
    paths = a.laws if a.name == "decide" else [a.law]
    return any(lawfile.load(path).needs_unique for path in paths)


def _reads_corpus(a: argparse.Namespace) -> bool:
    return a.objective == "bits-per-byte" or getattr(a, "max_epochs", None) is not None

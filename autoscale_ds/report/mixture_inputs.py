"""What the options of fit_mixture.py name: files, corpora, and numbers by name."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.cli import positive, share
from autoscale_ds.errors import MixtureError
from autoscale_ds.laws import LossModel, lawfile
from autoscale_ds.laws.scales import SAME
from autoscale_ds.mixture import DomainWeights, Objective, RunTable, WeightsFile
from autoscale_ds.mixture.bundle import Bundle
from autoscale_ds.mixture.jsonfiles import read_json
from autoscale_ds.mixture.objective import KINDS as OBJECTIVES
from autoscale_ds.mixture.simplex import epoch_caps, tightest

log = logging.getLogger(__name__)  # without a handler Python writes warnings to stderr


def input_files(a: argparse.Namespace) -> list[str]:
    """Return the files a command reads."""
    single = [getattr(a, name, None) for name in ("law", "mixtures", "prior", "objective", "against")]
    single += getattr(a, "laws", [])
    single += [text for text in [getattr(a, "unique", None)] if text and "=" not in text]
    scales = [text.partition("=")[2] for text in getattr(a, "at", [])]
    corpus = [f"{a.corpus}/corpus.json"] if getattr(a, "corpus", None) else []
    words = (*OBJECTIVES, "uniform", "proportional")
    return [name for name in [*getattr(a, "runs", []), *single, *scales, *corpus] if name and name not in words]


def read_runs(a: argparse.Namespace) -> RunTable:
    """Read the run tables, saying on stderr what was dropped and what could not be checked."""
    options = {"drop_bad": a.drop_bad, "loss_kind": a.loss_kind, "columns": a.columns}
    table = RunTable.read(a.runs, **options, accept_changed=a.accept_changed)
    for line in table.notes:
        log.warning("%s", line)
    for line in table.dropped:
        log.warning("dropped: %s", line)
    if getattr(a, "targets", None) is None:
        return table
    targets = [name for text in a.targets for name in text.split(",") if name]
    if not targets:
        raise MixtureError(f"--targets names none; the table has: {', '.join(table.targets)}")
    return table.with_targets(targets)


def fill_scales(given: npt.NDArray[np.float64], option: float | None, what: str, path: str) -> npt.NDArray[np.float64]:
    """Return tokens or sizes of mixtures (n,), those of an option where the file says none; say which counts."""
    if option is None:
        return given
    said = ~np.isnan(given)
    if said.all():
        raise MixtureError(
            f"{path} gives the {what} of every mixture, so --{what} {option:g} would change nothing; leave the option "
            f"out, or take {what} out of the file"
        )
    if said.any():
        log.warning("--%s %g is taken for %d mixtures of %s, the others say theirs", what, option, (~said).sum(), path)
    return np.where(said, given, option)


def read_objective(a: argparse.Namespace, targets: Sequence[str]) -> Objective:
    """Return the objective; bits per byte know the bytes of a token from the corpus."""
    bytes_per_token = None
    kind = a.objective or "mean-loss"
    if kind == "bits-per-byte" and a.corpus:
        bytes_per_token = _open_corpus(a.corpus).bytes_per_token_of(targets)
    return Objective.named(kind, targets, bytes_per_token)


def read_caps(
    a: argparse.Namespace, domains: Sequence[str], tokens: float, bundle: Bundle | None = None
) -> dict[str, float]:
    """Return the largest weight of each domain from --max-epochs and --cap, the smaller where both are given."""
    caps = parse_caps(a.cap)
    if a.max_epochs is None:
        return caps
    if not a.corpus:
        raise MixtureError("--max-epochs needs to know how many tokens there are: give --corpus DIR")
    if not a.max_epochs > 0:
        raise MixtureError(f"--max-epochs is {a.max_epochs:g}, expected a positive number")
    available = _tokens_of(a.corpus, domains, bundle)
    return tightest(epoch_caps(dict.fromkeys(domains, a.max_epochs), available, tokens), caps)


def read_law(path: str, a: argparse.Namespace) -> LossModel:
    """Return a fitted law, with the tokens of text of every domain where it counts how often text is repeated."""
    law = lawfile.load(path)
    if not law.needs_unique or not (a.unique or a.corpus):
        return law
    if not a.unique:
        return law.with_unique(_tokens_of(a.corpus, law.domains, law.bundle))
    given = parse_unique(a.unique)
    return law.with_unique(given if law.bundle is None or law.bundle.name in given else law.bundle.tokens(given))


def parse_unique(text: str) -> dict[str, float]:
    """Return the tokens of text by domain: NAME=TOKENS with commas between, or the JSON file of that name."""
    if "=" in text:
        form = "NAME=TOKENS,…, for example --unique books=2e9,web=1e12"
        pairs = [part.rpartition("=") for part in text.split(",")]
        return {name: _of_form(text, bool(name), number, positive, "--unique", form) for name, _, number in pairs}
    raw = read_json(text)
    if not isinstance(raw, dict) or not all(isinstance(count, (int, float)) and count > 0 for count in raw.values()):
        raise MixtureError(f"--unique {text}: expected a JSON object of domains and their positive tokens")
    return {name: float(count) for name, count in raw.items()}


def _tokens_of(corpus: str, domains: Sequence[str], bundle: Bundle | None = None) -> dict[str, float]:
    """Return the training tokens of each domain."""
    available = _open_corpus(corpus).num_tokens()
    if bundle is not None:
        available = bundle.tokens(available)
    missing = [name for name in domains if name not in available]
    if missing:
        raise MixtureError(f"{corpus} has no domain {missing[0]!r}; it holds: {', '.join(available)}")
    return {name: float(available[name]) for name in domains}


def parse_caps(texts: Sequence[str]) -> dict[str, float]:
    """Parse DOMAIN=WEIGHT."""
    caps = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name in caps:
            raise MixtureError(f"--cap gives {name!r} twice; leave one out")
        caps[name] = _of_form(text, bool(name), number, share, "--cap", "DOMAIN=WEIGHT, for example --cap books=0.2")
    return caps


def read_against(a: argparse.Namespace, law: LossModel) -> DomainWeights:
    """Return the mixture that a decision is compared with; uniform counts domains that are reused as one as one."""
    domains, bundle = list(law.domains), law.bundle
    if a.against == "uniform":
        return DomainWeights.uniform(domains)
    if a.against != "proportional":
        weights = WeightsFile.read(a.against).weights
        weights = weights if bundle is None else bundle.reduced(weights)
        weights.check_domains(domains)
        return weights
    if not a.corpus:
        raise MixtureError("--against proportional needs to know how many tokens there are: give --corpus DIR")
    if bundle is not None:
        return bundle.reduced(DomainWeights.normalised(_open_corpus(a.corpus).num_tokens()))
    return DomainWeights.normalised(_tokens_of(a.corpus, domains))


def read_prior(
    a: argparse.Namespace, domains: Sequence[str], bundle: Bundle | None = None
) -> npt.NDArray[np.float64] | None:
    """Return the mixture to stay near in the order of these domains, None without one."""
    if a.kl and not a.prior:
        raise MixtureError(f"--kl {a.kl:g} needs the mixture to stay near: give --prior FILE")
    if not a.prior:
        return None
    prior = WeightsFile.read(a.prior).weights
    prior = prior if bundle is None else bundle.reduced(prior)
    prior.check_domains(list(domains))
    return np.array([prior[name] for name in domains])


def read_centre(a: argparse.Namespace) -> DomainWeights:
    """Return the centre of a design: --prior, else uniform over --domains or the corpus."""
    names = [name for name in (a.domains or "").split(",") if name]
    if a.corpus and not names:
        names = _open_corpus(a.corpus).domains
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


def read_scales(a: argparse.Namespace) -> list[tuple[float, WeightsFile]]:
    """Return the optimum of every --at, smallest scale first."""
    return sorted((_parse_scale(text) for text in a.at), key=lambda pair: pair[0])


def _parse_scale(text: str) -> tuple[float, WeightsFile]:
    """Parse TOKENS=FILE."""
    tokens, separator, path = text.partition("=")
    number = _of_form(text, bool(separator), tokens, positive, "--at", "TOKENS=FILE, for example --at 0.3e9=w1.json")
    file = WeightsFile.read(path)
    if file.tokens is not None and not number / SAME <= file.tokens <= number * SAME:
        raise MixtureError(
            f"--at {text}: {path} says it is for {file.tokens:g} tokens; give that number, or mend the file"
        )
    return number, file


def _of_form(text: str, is_pair: bool, number: str, parse: Callable[[str], float], option: str, form: str) -> float:
    """Return the number of an option of the form NAME=NUMBER or NUMBER=NAME."""
    if not is_pair:
        raise MixtureError(f"{option} {text!r} is not of the form {form}")
    try:
        return parse(number)
    except argparse.ArgumentTypeError as error:
        raise MixtureError(f"{option} {text!r}: {error}") from None


def _open_corpus(folder: str) -> Any:
    """Open a corpus folder; imported here, so that other commands run without it."""
    from autoscale_ds.corpus import Corpus

    return Corpus(folder)

"""The steps of a study, each one or more ordinary commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import write_json
from autoscale_ds.laws.lawfile import load
from autoscale_ds.study.config import MainConfig, StudyConfig
from autoscale_ds.sweep.searching import SEARCH_OVER

Command = list[str]


class Run(Protocol):
    """Runs a command of the project, whose exit code is one of those allowed, and returns it."""

    def __call__(self, command: Sequence[str], allowed: Sequence[int] = (0,), out: Path | None = None) -> int:
        """Write what it prints to a file, where one is given, once it has ended well."""


@dataclass(frozen=True)
class Paths:
    """Where a study keeps what it makes."""

    folder: Path

    @property
    def objective(self) -> Path:
        """What is minimised, for the commands."""
        return self.folder / "objective.json"

    @property
    def probes(self) -> Path:
        """The sweep."""
        return self.folder / "probes"

    @property
    def law(self) -> Path:
        """The fitted law."""
        return self.folder / "law.json"

    @property
    def weights(self) -> Path:
        """What the main run trains."""
        return self.folder / "weights.json"

    @property
    def decision(self) -> Path:
        """The decision, as JSON."""
        return self.folder / "decision.json"

    @property
    def main(self) -> Path:
        """The main run."""
        return self.folder / "main"

    @property
    def baseline(self) -> Path:
        """The run with the other mixture."""
        return self.folder / "baseline"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes
    ----------
    name : str
        What it is called in the study's record; never two of one name.
    what : str
        What it does, for people.
    do : callable
        Runs its commands; going on where an earlier call was stopped is up to them.
    """

    name: str
    what: str
    do: Callable[[Run], None]


def steps(study: StudyConfig) -> list[Step]:
    """Return the steps of a study in their order."""
    paths = Paths(Path(study.folder))
    asked = objective(study, paths)
    found = []
    if study.preprocess is not None:
        found.append(Step("preprocess", "tokenise the text", lambda run: preprocess(study, run)))
    found += [
        Step("plan", "plan the first probes", lambda run: plan(study, paths, run)),
        Step("search", "train probes until enough is known", lambda run: search(study, paths, asked, run)),
        Step("decide", "decide on the mixture", lambda run: decide(study, paths, asked, run)),
        Step("main", "train with the decided mixture", lambda run: train(study, paths.main, str(paths.weights), run)),
    ]
    if study.main.baseline:
        found.append(
            Step(
                "baseline", f"train with {study.against}", lambda run: train(study, paths.baseline, study.against, run)
            ),
        )
    found.append(Step("report", "draw the report", lambda run: report(study, paths, run)))
    return found


def objective(study: StudyConfig, paths: Paths) -> list[str]:
    """Return the option that names the objective."""
    return ["--objective", str(paths.objective) if study.targets else study.objective]


def preprocess(study: StudyConfig, run: Run) -> None:
    """Make the corpus."""
    if not (Path(study.corpus) / "corpus.json").exists():
        run(["tools/preprocess_domains.py", "--config", str(study.preprocess), "--output", study.corpus])


def plan(study: StudyConfig, paths: Paths, run: Run) -> None:
    """Write the objective, where the study gives targets, and plan the first batch."""
    refuse_few_probes(study)
    if study.targets:
        write_json(paths.objective, dict(study.targets))
    probes, main = study.probes, study.main
    tokens = ",".join(f"{each:g}" for each in probes.tokens)
    command = ["launch/sweep.py", "plan", str(paths.probes), "--config", probes.config]
    command += ["--deepspeed_config", probes.deepspeed_config, "--kind", "d-optimal", "--runs", str(probes.first)]
    command += ["--tokens", tokens, "--target-tokens", f"{main.tokens:g}"]
    command += ["--match-repetition", f"{main.tokens:g}"] if probes.match_repetition else []
    run([*command, f"data.corpus={study.corpus}", *probes.overrides])


def refuse_few_probes(study: StudyConfig) -> None:
    """Raise ConfigError when the first batch is too small for any law; else this would be known after training it."""
    domains, budgets = Corpus(study.corpus).domains, len(study.probes.tokens)
    least = len(domains) + 2  # laws.exposure, which needs the fewest
    if study.probes.first * budgets < least:
        at = "1 budget" if budgets == 1 else f"{budgets} budgets"
        raise ConfigError(
            f"probes.first is {study.probes.first}, at {at}; {len(domains)} domains need {least} runs: give "
            f"probes.first {-(-least // budgets)}, or more budgets in probes.tokens"
        )


def search(study: StudyConfig, paths: Paths, asked: Sequence[str], run: Run) -> None:
    """Train what is planned and ask for more, until enough is known or the share is spent."""
    probes = study.probes
    ask = ["launch/sweep.py", "next", str(paths.probes), "--runs", str(probes.batch), "--against", study.against]
    ask += [*asked, "--max-share", f"{probes.share:g}"]
    while True:
        run(["launch/sweep.py", "work", str(paths.probes), "--workers", str(probes.workers)])
        if run(ask, (0, SEARCH_OVER)) == SEARCH_OVER:
            break
    run(["launch/sweep.py", "collect", str(paths.probes)])


def decide(study: StudyConfig, paths: Paths, asked: Sequence[str], run: Run) -> None:
    """Fit the law that predicts held-out probes best, and decide by it."""
    run(["tools/fit_mixture.py", "fit", str(paths.probes / "runs.parquet"), "--out", str(paths.law)])
    command = ["tools/fit_mixture.py", "decide", str(paths.law), "--tokens", f"{study.main.tokens:g}", *asked]
    command += ["--against", study.against, "--out", str(paths.weights), "--json"]
    needed = study.against == "proportional" or study.objective == "bits-per-byte" or load(paths.law).needs_unique
    run([*command, *(["--corpus", study.corpus] if needed else [])], out=paths.decision)


def train(study: StudyConfig, folder: Path, weights: str, run: Run) -> None:
    """Train the main run, or the same with another mixture."""
    run(training(study.main, study.corpus, folder, weights))


def training(main: MainConfig, corpus: str, folder: Path, weights: str) -> Command:
    """Return the command of a training job."""
    command = [*shlex.split(main.launcher), "launch/train.py", "--config", main.config]
    command += ["--deepspeed_config", main.deepspeed_config, f"run={folder}", f"data.corpus={corpus}"]
    return [*command, f"budget_tokens={main.tokens:g}", f"mixture.weights={weights}", *main.overrides]


def report(study: StudyConfig, paths: Paths, run: Run) -> None:
    """Draw one page of the probes and the main run, compared with the baseline where there is one."""
    runs = [f"--label=decided={paths.main}", f"--label={study.against}={paths.baseline}"]
    what = [str(paths.probes), *(runs if study.main.baseline else [str(paths.main)])]
    run(["tools/report.py", *what, "--out", str(paths.report)])

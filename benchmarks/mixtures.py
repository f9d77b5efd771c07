r"""Does a mixture found by small probes win at the target scale? Methods and mixtures by hand on seven real domains.

    python benchmarks/mixtures.py raw/ eval/                  one GPU: a quarter of an hour; CPU cores: give a smaller
                                                              model and budget at the end of the line, as below
    python benchmarks/mixtures.py raw/ eval/ --budgets 2e5,4e5 model.width=96 model.layers=2 model.heads=2
    python benchmarks/mixtures.py raw/ eval/ --steps search   some steps only: probes on one machine, targets elsewhere

raw/ holds NAME.jsonl.gz of RedPajama's seven domains, eval/ the documents of the shipped tasks (docs/evaluation.md).
Stop it at will: the same command goes on. Tables are printed and kept under benchmarks/results/mixtures/.

Objectives (stated before any run)
  mean-loss          losses of the seven domains
  science-and-code   losses of arxiv and github
  tasks              bits per byte of the gold completions of hellaswag, arc_easy and openbookqa, which are no domain
  mean-perplexity    perplexities of the seven domains

Steps
  ddo      AutoScale's probes: 2m + 1 runs at a 16th and at an 8th of T, the tokens of the largest target (3 T in all)
  random   24 Dirichlet mixtures at T / 8 (3 T)
  search   12 mixtures by D-optimal design at T / 8, then up to 3 more for each objective from sweep.py next, all drawn
           from an eighth of the text (--match-repetition); at most 3 T for all objectives, less where enough is known
  decide   every method's mixture for every objective, and what the decision expects to gain over each mixture by hand:
           predictions-T.json, written before any run of a target
  compare  all mixtures at every budget with 3 seeds that no probe has had: same model and schedule, paired by seed
  tables   of the mixtures whose runs have all finished

Methods
  uniform, proportional, llama       fixed, whatever the objective
  nearest, half-nearest              by hand: only the domains nearest to the target; half of them, half of the others
  ddo-kept, autoscale                DDO's optimum at T / 8; the two optima extrapolated to T (arXiv 2407.20177); only
                                     for objectives that gain from more tokens of every domain
  regmix, data-mixing                LightGBM and the data mixing law on the random runs (2407.01492, 2403.16952)
  decided                            fit_mixture.py decide on the search's runs, against uniform

Everything is done by the commands of launch/ and tools/, which are printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)  # this folder holds a tokenize.py (see _machine.py)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds import cli
from autoscale_ds.corpus import Corpus
from autoscale_ds.files import write_json
from autoscale_ds.laws import lawfile
from autoscale_ds.mixture import DomainWeights, Objective
from autoscale_ds.mixture.weightsfile import WeightsFile
from autoscale_ds.search.decision import Belief
from autoscale_ds.search.solver import Goal
from autoscale_ds.search.uncertainty import ends_of_90
from autoscale_ds.sweep.plan import tokens_label
from autoscale_ds.sweep.searching import SEARCH_OVER
from benchmarks._machine import RESULTS, describe
from benchmarks._mixture_tables import FIXED, compared, draw, markdown, read_curves
from benchmarks._real_text import ROOT, TARGETS, prepare

OUT = RESULTS / "mixtures"
VOCABULARY = 8192
BUDGETS, SHORTER, SEEDS, FIRST_SEED = (5e6, 8e6), 8, 3, 100
# A path through optima needs weights above 0.
FLOOR = 0.02
RANDOM_RUNS, FIRST_RUNS, NEXT_RUNS = 24, 12, 3
# Touvron et al., arXiv 2302.13971, table 1.
LLAMA = {
    "commoncrawl": 0.67,
    "c4": 0.15,
    "github": 0.045,
    "wikipedia": 0.045,
    "books": 0.045,
    "arxiv": 0.025,
    "stackexchange": 0.02,
}
# What a person would take for nearest to what an objective measures.
NEAREST = {"science-and-code": ("arxiv", "github"), "tasks": ("c4", "commoncrawl")}
OBJECTIVES = ("mean-loss", "science-and-code", "tasks", "mean-perplexity")
DRAWN = {"science-and-code": "arxiv and github", "tasks": "gold completions of three tasks"}
METHODS = ("ddo-kept", "autoscale", "regmix", "data-mixing", "decided")
STEPS = ("ddo", "random", "search", "decide", "compare", "tables")


@dataclass(frozen=True)
class Proof:
    """The protocol in one folder, for targets of several budgets."""

    folder: Path
    budgets: tuple[float, ...]
    workers: int
    overrides: tuple[str, ...] = ()
    objectives: tuple[str, ...] = OBJECTIVES
    methods: tuple[str, ...] = METHODS

    @property
    def corpus(self) -> Path:
        """The corpus folder."""
        return self.folder / "corpus"

    @property
    def largest(self) -> float:
        """Tokens of the largest target."""
        return max(self.budgets)

    @property
    def probe(self) -> float:
        """Tokens of a probe."""
        return self.largest / SHORTER

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.folder / name

    def found(self, method: str, objective: str, tokens: float) -> Path:
        """Return the file of the weights that a method has for an objective at a budget."""
        return self.folder / "weights" / f"{method}-{objective}-{tokens_label(tokens)}.json"

    def predictions(self, tokens: float) -> Path:
        """Return the file of what is expected at a budget."""
        return self.folder / f"predictions-{tokens_label(tokens)}.json"

    # -- what is minimised ----------------------------------------------------------------------------------------

    def write_objectives(self) -> None:
        """Write what each objective is, for the commands."""
        corpus = Corpus(self.corpus)
        domains = dict.fromkeys(corpus.domains, 1.0)
        bits = {name: 1 / (np.log(2) * each) for name, each in corpus.bytes_per_token_of(TARGETS).items()}
        (self.folder / "objectives").mkdir(parents=True, exist_ok=True)
        for name, content in {
            "mean-loss": domains,
            "science-and-code": dict.fromkeys(NEAREST["science-and-code"], 1.0),
            "tasks": bits,
            "mean-perplexity": {"weights": domains, "kind": "mean-perplexity"},
        }.items():
            write_json(self.objective(name), content)

    def objective(self, name: str) -> Path:
        """Return the file of an objective."""
        return self.folder / "objectives" / f"{name}.json"

    # -- probes ---------------------------------------------------------------------------------------------------

    def ddo(self) -> None:
        """Train AutoScale's probes."""
        self.plan("ddo", "--kind", "ddo", "--tokens", f"{self.probe / 2:g},{self.probe:g}")
        self.train("ddo")

    def random(self) -> None:
        """Train random mixtures."""
        self.plan("random", "--kind", "dirichlet", "--runs", RANDOM_RUNS, "--tokens", f"{self.probe:g}")
        self.train("random")

    def search(self) -> None:
        """Train a first batch, then what the results ask for, objective by objective."""
        first = ["--kind", "d-optimal", "--runs", FIRST_RUNS, "--tokens", f"{self.probe:g}"]
        self.plan("search", *first, "--match-repetition", f"{self.largest:g}")
        self.train("search")
        asked = self.folder / "asked.json"
        done = json.loads(asked.read_text()) if asked.exists() else []
        for name in OBJECTIVES:
            if name not in done:
                command = ["next", self.sweep("search"), "--runs", NEXT_RUNS, "--objective", self.objective(name)]
                run("launch/sweep.py", *command, allowed=(0, SEARCH_OVER))
                write_json(asked, done := [*done, name])
        self.train("search")

    def plan(self, name: str, *what: Any, windows: int = 32, evaluations: int = 1) -> None:
        """Plan a sweep; what is planned already is not planned again."""
        configs = ["--config", "benchmarks/configs/mixtures.yaml", "--deepspeed_config"]
        configs += ["benchmarks/configs/mixtures_ds.json", f"data.corpus={self.corpus}"]
        common = ["--target-tokens", f"{self.largest:g}", "--evaluations", evaluations, *configs]
        settings = [f"evaluation.windows_per_domain={windows}", *self.overrides]
        run("launch/sweep.py", "plan", self.sweep(name), *what, *common, *settings)

    def train(self, name: str) -> None:
        """Work on a sweep until it is done."""
        run("launch/sweep.py", "work", self.sweep(name), "--workers", self.workers)
        run("launch/sweep.py", "collect", self.sweep(name))

    # -- weights --------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Find the mixtures of all methods, and write what is expected of the decided ones."""
        (self.folder / "weights").mkdir(exist_ok=True)
        laws = {"decided": ("search", "auto"), "regmix": ("random", "regmix"), "data-mixing": ("random", "data-mixing")}
        for method, (sweep, law) in laws.items():
            table = self.sweep(sweep) / "runs.parquet"
            if not self.law(method).exists() or self.law(method).stat().st_mtime < table.stat().st_mtime:
                fit("fit", table, "--law", law, "--out", self.law(method))
        for tokens in self.budgets:
            predictions = {}
            for name in OBJECTIVES:
                self.find_others(name, tokens)
                options = ["--tokens", f"{tokens:g}", "--objective", self.objective(name), "--against", "uniform"]
                if lawfile.load(self.law("decided")).needs_unique:
                    options += ["--corpus", self.corpus]
                options += ["--json", "--out", self.found("decided", name, tokens)]
                decision = json.loads(fit("decide", self.law("decided"), *options, quiet=True))
                print(f"  {name}: {decision['verdict']}", flush=True)
                predictions[name] = {"decision": decision, "gain_over": self.expected(name, tokens)}
            write_json(self.predictions(tokens), predictions)

    def law(self, method: str) -> Path:
        """Return the file of a method's law."""
        return self.folder / f"law-{method}.json"

    def find_others(self, name: str, tokens: float) -> None:
        """Find the mixtures of the methods that are compared with for one objective and budget."""
        wanted = ["--objective", self.objective(name)]
        for method in ("regmix", "data-mixing"):  # their laws know one scale
            out = self.found(method, name, tokens)
            fit("optimize", self.law(method), "--tokens", f"{self.probe:g}", *wanted, "--out", out)
        at, table = [], self.sweep("ddo") / "runs.parquet"
        for scale in (self.probe / 2, self.probe):
            out = self.found("ddo", name, scale)
            base = ["--base", f"{tokens_label(scale)}/base", "--accept-noise"]
            refused = 2  # by a domain that the objective does not gain from
            fit("ddo", table, *base, *wanted, "--floor", FLOOR, "--out", out, allowed=(0, refused))
            if not out.exists():
                return
            at += ["--at", f"{scale:g}={out}"]
        shutil.copy(out, self.found("ddo-kept", name, tokens))
        options = ["--floor", FLOOR, "--out", self.found("autoscale", name, tokens)]
        fit("autoscale", *at, "--tokens", f"{tokens:g}", *options)

    def expected(self, name: str, tokens: float) -> dict[str, list[float]]:
        """Return the gain of the decided mixture over every one by hand: mean, and ends of the 90 % interval."""
        model = lawfile.load(self.law("decided")).with_unique(Corpus(self.corpus).num_tokens())
        belief = Belief((Goal(model, Objective.read(self.objective(name), tuple(model.targets)), tokens),))

        def of(mixture: Mapping[str, float]) -> np.ndarray:
            return np.array([mixture[domain] for domain in model.domains])

        chosen = of(WeightsFile.read(self.found("decided", name, tokens)).weights)
        found = {}
        for other, mixture in self.by_hand(name):
            gains = belief.gains(chosen[None], of(mixture))
            found[other] = [float(gains.mean()), *ends_of_90(gains)[:, 0].tolist()]
        return found

    # -- comparison -----------------------------------------------------------------------------------------------

    def by_hand(self, objective: str) -> Iterator[tuple[str, DomainWeights]]:
        """Yield the mixtures nobody searched for."""
        corpus = Corpus(self.corpus)
        yield "uniform", DomainWeights.uniform(corpus.domains)
        yield "proportional", DomainWeights.normalised(corpus.num_tokens())
        yield "llama", DomainWeights(LLAMA)
        if near := NEAREST.get(objective):
            far = [name for name in corpus.domains if name not in near]
            yield "nearest", DomainWeights({name: 1 / len(near) if name in near else 0.0 for name in corpus.domains})
            half = dict.fromkeys(near, 0.5 / len(near)) | dict.fromkeys(far, 0.5 / len(far))
            yield "half-nearest", DomainWeights(half)

    def mixtures(self, objective: str, tokens: float) -> Iterator[tuple[str, DomainWeights]]:
        """Yield every mixture that is compared for an objective."""
        yield from self.by_hand(objective)
        for method in self.methods:
            if self.found(method, objective, tokens).exists():
                yield method, WeightsFile.read(self.found(method, objective, tokens)).weights

    def designs(self, tokens: float) -> dict[tuple[str, str], str]:
        """Return the name of a target's runs by objective and method, and write their weights; equal ones once."""
        names: dict[str, str] = {}
        found = {}
        for objective in self.objectives:
            for method, weights in self.mixtures(objective, tokens):
                name = method if method in FIXED else f"{method}-{objective}"
                text = json.dumps({domain: round(w, 6) for domain, w in sorted(weights.items())})
                name = names.setdefault(text, name)
                found[objective, method] = name
                write_json(self.found("target", name, tokens), weights.as_dict())
        return found

    def compare(self) -> None:
        """Train every mixture at every budget."""
        for tokens in self.budgets:
            designs = self.designs(tokens)
            mixtures = []
            for name in dict.fromkeys(designs.values()):
                mixtures += ["--mixture", f"{name}={self.found('target', name, tokens)}"]
            seeds = ["--seeds", SEEDS, "--first-seed", FIRST_SEED, "--tokens", f"{tokens:g}"]
            sweep = f"target-{tokens_label(tokens)}"
            write_json(self.machine(tokens), describe("torch", "deepspeed"))
            self.plan(sweep, *mixtures, *seeds, windows=48, evaluations=6)
            self.train(sweep)

    def machine(self, tokens: float) -> Path:
        """Return the file that says where the runs of a budget were trained."""
        return self.folder / f"machine-{tokens_label(tokens)}.json"

    def tables(self) -> None:
        """Print and keep what has come out."""
        for tokens in self.budgets:
            if (self.sweep(f"target-{tokens_label(tokens)}") / "plan.json").exists():
                self.tabulate(tokens)

    def tabulate(self, tokens: float) -> None:
        """Print and keep what has come out at a budget."""
        designs = self.designs(tokens)
        predictions = json.loads(self.predictions(tokens).read_text())
        label = tokens_label(tokens)
        found = {}
        for objective in self.objectives:
            of_method = {method: name for (wanted, method), name in designs.items() if wanted == objective}
            sweep = self.sweep(f"target-{label}")
            each = compared(sweep, self.objective(objective), of_method, predictions[objective])
            found[objective] = each
            print(f"\n{objective}, {label} tokens\n\n{markdown(each)}", flush=True)
        OUT.mkdir(parents=True, exist_ok=True)
        result = {"tokens": tokens, "objectives": found, "machine": json.loads(self.machine(tokens).read_text())}
        write_json(OUT / f"target-{label}.json", result)
        drawn = {name: text for name, text in DRAWN.items() if name in found}
        curves = {name: read_curves(self.sweep(f"target-{label}"), self.objective(name)) for name in drawn}
        if drawn:
            draw(OUT / f"target-{label}.png", drawn, found, curves)
        self.keep()

    def keep(self) -> None:
        """Copy what others need to look closer: run tables and predictions."""
        OUT.mkdir(parents=True, exist_ok=True)
        for sweep in self.folder.glob("*/runs.parquet"):
            shutil.copy(sweep, OUT / f"{sweep.parent.name}.parquet")
        for path in [*self.folder.glob("objectives/*.json"), *self.folder.glob("predictions-*.json")]:
            shutil.copy(path, OUT / path.name)


def run(*command: Any, allowed: tuple[int, ...] = (0,), quiet: bool = False) -> str:
    """Run a command of the project, which is printed; return what it printed if it is to be quiet."""
    print("$ python " + shlex.join(map(str, command)), flush=True)
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, cwd=ROOT, check=False, stdout=subprocess.PIPE if quiet else None, text=True)
    if done.returncode not in allowed:
        raise SystemExit(done.returncode)
    return done.stdout or ""


def fit(*arguments: Any, allowed: tuple[int, ...] = (0,), quiet: bool = False) -> str:
    """Run tools/fit_mixture.py."""
    return run("tools/fit_mixture.py", *arguments, allowed=allowed, quiet=quiet)


def choice_of(names: tuple[str, ...]) -> Any:
    """Return the parser of some of these names, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if odd := set(chosen) - set(names):
            raise argparse.ArgumentTypeError(f"{odd.pop()!r} is none of {', '.join(names)}")
        return chosen

    return parse


def numbers(text: str) -> tuple[float, ...]:
    """Parse positive numbers, separated by commas."""
    return tuple(cli.positive(part) for part in text.split(","))


def main() -> None:
    """Run the protocol, or what is left of it."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("raw", type=Path, help="folder with NAME.jsonl.gz, one a domain")
    parser.add_argument("eval", type=Path, help="folder with the documents of tasks")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="over benchmarks/configs/mixtures.yaml")
    parser.add_argument("--folder", type=Path, default=Path("runs/proof"), help="where everything is kept")
    parser.add_argument("--budgets", type=numbers, default=BUDGETS, help="tokens of targets (default: 5e6,8e6)")
    parser.add_argument("--workers", type=cli.positive_int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--steps", type=choice_of(STEPS), default=STEPS, help=f"which of {','.join(STEPS)}")
    parser.add_argument("--objectives", type=choice_of(OBJECTIVES), default=OBJECTIVES, help="which are compared")
    parser.add_argument("--methods", type=choice_of(METHODS), default=METHODS, help="which are compared")
    a = parser.parse_intermixed_args()
    folder = Path(os.path.relpath(ROOT / a.folder, ROOT))  # from where the commands are run
    proof = Proof(folder, a.budgets, a.workers, tuple(a.overrides), a.objectives, a.methods)
    prepare(a.raw.resolve(), a.eval.resolve(), (ROOT / folder).resolve(), VOCABULARY)
    proof.write_objectives()
    for step in STEPS:
        if step in a.steps:
            getattr(proof, step)()


if __name__ == "__main__":
    cli.run(main)

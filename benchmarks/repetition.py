r"""Do probes that repeat a small domain as the target run will find the target's best weight? Two domains of real text.

    python benchmarks/repetition.py raw/            c4.jsonl.gz and stackexchange.jsonl.gz there; about half an hour on
                                                    one core; stop it at will, the same command goes on; writes
                                                    benchmarks/results/repetition.json

Protocol
  1. A corpus of two domains: c4 without a tenth of its documents, and so little of stackexchange that a target run with
     even weights reads it REPEATS times or more. Targets are held-out documents of both; the objective is the mean of
     their losses.
  2. A base run on c4 alone, from which all others start: a model that knows nothing yet spends as many steps as these
     runs have on the frequencies of tokens, whatever the mixture.
  3. Runs over a grid of weights, three seeds each: probes at an eighth of the target's tokens, drawn from all windows
     (sweep.py plan) and from an eighth of them (--match-repetition), and target runs.
  4. The best weight by a smooth curve through the probes, by the law exposure, and by one of repetition, against the
     best of the curve through the target runs, and what the difference costs there.

Everything is trained by launch/sweep.py, whose commands are printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import gzip
import json
import random
import shlex
import subprocess
from collections.abc import Iterable
from typing import Any

import numpy as np

from autoscale_ds.files import write_json
from autoscale_ds.laws.model import LossModel
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import Objective, RunTable
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.search.solver import Goal, minimum
from benchmarks._machine import describe, write_result

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = [
    *("--config", "benchmarks/configs/repetition.yaml"),
    *("--deepspeed_config", "benchmarks/configs/repetition_ds.json"),
]
SMALL, LARGE = "stackexchange", "c4"
REPETITION = "exposure-repetition"
TARGETS = (f"{SMALL}-held-out", f"{LARGE}-held-out")
WEIGHTS = (0.1, 0.25, 0.4, 0.6, 0.85)
TARGET_TOKENS = 256_000
SHORTER = 8
BASE_TOKENS = 2 * TARGET_TOKENS
# Of no run of a sweep: those read the text of c4 in other orders.
BASE_SEED = 1000
REPEATS = 8
SEEDS = 3
VOCABULARY = 512
# Bytes a token of stackexchange with that vocabulary; the result says how often the text was repeated.
BYTES_PER_TOKEN = 1.9


def main() -> None:
    """Prepare, train and compare."""
    arguments = parse_arguments()
    tokens = arguments.target_tokens
    corpus = make_corpus(arguments.raw, arguments.folder, tokens)
    base = train_base(arguments.folder, corpus)
    for name, (budget, options) in sweeps(tokens).items():
        train(arguments.folder / name, corpus, budget, [*options, f"start_from={base}"])
    result = {**compare(arguments.folder, tokens), "machine": describe("torch", "deepspeed")}
    print(f"written: {write_result('repetition', result)}")


def sweeps(tokens: int) -> dict[str, tuple[float, list[object]]]:
    """Return the sweeps by name: tokens of a run, and further options of launch/sweep.py plan."""
    probe = tokens / SHORTER
    return {"unmatched": (probe, []), "matched": (probe, ["--match-repetition", tokens]), "target": (tokens, [])}


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help=f"folder with {LARGE}.jsonl.gz and {SMALL}.jsonl.gz")
    parser.add_argument("--folder", type=Path, default=Path("runs/repetition"), help="where everything is kept")
    parser.add_argument(
        "--target-tokens", type=int, default=TARGET_TOKENS, help=f"tokens of a target run (default: {TARGET_TOKENS:,})"
    )
    return parser.parse_args()


# -- 1: corpus ----------------------------------------------------------------------------------------------------


def make_corpus(raw: Path, folder: Path, tokens: int) -> Path:
    """Write the domains and targets as text, tokenise them, and return the corpus; nothing where it is there."""
    corpus = folder / "corpus"
    if (corpus / "corpus.json").exists():
        return corpus
    small_bytes = int(tokens / 2 / REPEATS * BYTES_PER_TOKEN)
    split(raw / f"{SMALL}.jsonl.gz", folder / "text", SMALL, small_bytes)
    split(raw / f"{LARGE}.jsonl.gz", folder / "text", LARGE, None)
    options = ["--output", corpus, "--train-tokenizer", VOCABULARY, "--validation-fraction", 0.02, "--workers", 1]
    for name in (SMALL, LARGE):
        options += ["--domain", f"{name}={folder / 'text' / name}.jsonl"]
        options += ["--target", f"{name}-held-out={folder / 'text' / name}-held-out.jsonl"]
    command("tools/preprocess_domains.py", *options)
    return corpus


def split(source: Path, folder: Path, name: str, most_bytes: int | None) -> None:
    """Write a tenth of the documents as held-out text and the others, up to so many bytes, as the domain."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        documents = [json.loads(line)["text"] for line in file]
    random.Random(0).shuffle(documents)
    cut = len(documents) // 10
    write_documents(folder / f"{name}-held-out.jsonl", documents[:cut])
    write_documents(folder / f"{name}.jsonl", up_to(documents[cut:], most_bytes))


def up_to(documents: Iterable[str], most_bytes: int | None) -> Iterable[str]:
    """Yield documents until so many bytes are reached, the last one cut short; all of them for None."""
    left = most_bytes
    for document in documents:
        if left is None:
            yield document
        elif left > 0:
            yield document.encode()[:left].decode(errors="ignore")
            left -= len(document.encode())


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """Write one JSON object a document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")


# -- 2, 3: runs ------------------------------------------------------------------------------------------------------


def train_base(folder: Path, corpus: Path) -> Path:
    """Train the base run, or what is missing of it, and return its folder."""
    run, weights = folder / "base", folder / "base.json"
    write_json(weights, {SMALL: 0.0, LARGE: 1.0})
    changes = {"run": run, "data.corpus": corpus, "mixture.weights": weights, "seed": BASE_SEED}
    changes |= {"budget_tokens": BASE_TOKENS, "schedule.warmup_tokens": BASE_TOKENS // 20}
    command("launch/train.py", "--quiet", *CONFIGS, *(f"{key}={value}" for key, value in changes.items()))
    return run


def train(sweep: Path, corpus: Path, tokens: float, options: list[object]) -> None:
    """Train the runs of one sweep that are missing, and collect them all."""
    weights = sweep.parent / "weights"
    weights.mkdir(exist_ok=True)
    mixtures = []
    for weight in WEIGHTS:
        write_json(weights / f"{weight:g}.json", {SMALL: weight, LARGE: 1 - weight})
        mixtures += ["--mixture", f"w{weight:g}={weights / f'{weight:g}.json'}"]
    shared = ["--corpus", corpus, "--tokens", tokens, "--seeds", SEEDS, "--evaluations", 1]
    command("launch/sweep.py", "plan", sweep, *CONFIGS, *shared, *mixtures, *options)
    command("launch/sweep.py", "work", sweep)
    command("launch/sweep.py", "collect", sweep)


# -- 4: comparison ------------------------------------------------------------------------------------------------


def compare(folder: Path, tokens: int) -> dict[str, Any]:
    """Return the losses of all runs, the best weight by every way to find it, and what it costs at the target."""
    tables = {name: read(folder / name) for name in sweeps(tokens)}
    curves = {name: Curve(table) for name, table in tables.items()}
    unique = unique_tokens(tables["target"])
    ways = {f"curve through {name} probes": curves[name].best for name in ("unmatched", "matched")}
    for name in ("unmatched", "matched"):
        ways[f"exposure, {name} probes"] = best_weight(fit_law(tables[name], "exposure"), tokens / SHORTER)
    every_probe = read(folder / "unmatched", folder / "matched")
    for name, probes in (("unmatched probes", tables["unmatched"]), ("all probes", every_probe)):
        ways[f"{REPETITION}, {name}"] = best_weight(fit_law(probes, REPETITION).with_unique(unique), tokens)
    target = curves["target"]
    ways["curve through target runs"] = target.best
    for name, weight in ways.items():
        low, high = target.cost_interval(weight)
        print(f"{name:<42} {weight:.3f} of {SMALL}, costs {target.cost(weight):.4f} nats ({low:.4f} to {high:.4f})")
    return {
        "domains": [SMALL, LARGE],
        "objective": f"mean of the losses of {' and '.join(TARGETS)}, nats a token",
        "target_tokens": tokens,
        "probe_tokens": tokens / SHORTER,
        "seeds": SEEDS,
        "runs": {name: by_weight(table) for name, table in tables.items()},
        "best_weight": {
            name: {"weight": weight, "cost": target.cost(weight), "cost_90": target.cost_interval(weight)}
            for name, weight in ways.items()
        },
    }


class Curve:
    """A cubic through the mean losses of a sweep, over the weight of the small domain, and draws of it."""

    def __init__(self, table: RunTable) -> None:
        weights, losses = table.weights[:, 0], table.losses.mean(1)
        self._grid = np.linspace(weights.min(), weights.max(), 1001)
        fitted, covariance = np.polyfit(weights, losses, 3, cov=True)
        drawn = np.random.default_rng(0).multivariate_normal(fitted, covariance, 1000)
        self._coefficients = [fitted, *drawn]

    @property
    def best(self) -> float:
        """The weight of the lowest loss within the grid."""
        return float(self._grid[np.argmin(np.polyval(self._coefficients[0], self._grid))])

    def cost(self, weight: float) -> float:
        """Return how much more the loss is than at the best weight."""
        return self._costs(weight)[0]

    def cost_interval(self, weight: float) -> tuple[float, float]:
        """Return the 90 % interval of the cost, over curves that fit the runs about as well."""
        low, high = np.quantile(self._costs(weight)[1:], [0.05, 0.95])
        return float(low), float(high)

    def _costs(self, weight: float) -> list[float]:
        return [float(np.polyval(c, weight) - np.polyval(c, self._grid).min()) for c in self._coefficients]


def read(*sweep_folders: Path) -> RunTable:
    """Return the runs of sweeps with the held-out targets, the small domain first."""
    table = RunTable.read([folder / "runs.parquet" for folder in sweep_folders])
    return table.with_domains((SMALL, LARGE)).with_targets(TARGETS)


def unique_tokens(table: RunTable) -> dict[str, float]:
    """Return the tokens of text that the runs of a sweep drew from."""
    assert table.unique is not None, "a sweep writes them"
    return dict(zip(table.domains, table.unique[0].tolist(), strict=True))


def best_weight(law: LossModel, tokens: float) -> float:
    """Return the weight of the small domain at a law's optimum, within the grid of weights."""
    goal = Goal(law, Objective.of_kind("mean-loss", tuple(law.targets)), tokens)
    return float(minimum(goal, Bounds.of(law.domains, min(WEIGHTS), {SMALL: max(WEIGHTS)}))[SMALL])


def by_weight(table: RunTable) -> list[dict[str, Any]]:
    """Return mean and spread over seeds at every weight, and how often the small domain was read over."""
    rows = []
    for weight in np.unique(table.weights[:, 0]):
        part = table.take(table.weights[:, 0] == weight)
        mean = part.losses.mean(1)
        rows.append(
            {
                "weight": float(weight),
                "times_read": float(weight * part.tokens[0] / unique_tokens(part)[SMALL]),
                "loss": dict(zip(TARGETS, part.losses.mean(0).tolist(), strict=True)),
                "mean_loss": float(mean.mean()),
                "standard_error": float(mean.std(ddof=1) / np.sqrt(len(mean))),
            }
        )
    return rows


def command(script: str, *arguments: object) -> None:
    """Run a command of the project, printed first; end the benchmark when it fails."""
    words = [script, *map(str, arguments)]
    print("+", shlex.join(words), flush=True)
    if subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode:
        raise SystemExit(f"{script} failed")


if __name__ == "__main__":
    main()

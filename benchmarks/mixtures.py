r"""Does a mixture found at small scales win at larger ones? DDO, AutoScale and a fitted law on real text.

    python tools/preprocess_domains.py --output corpora/seven --train-tokenizer 1024 --validation-fraction 0.02 \
        --deduplicate all --domain arxiv=... --domain books=...      (the seven domains of RedPajama)
    python benchmarks/mixtures.py corpora/seven             about 3 hours on 2 cores; stop it at will, the same
                                                            command goes on; prints its tables, keeps them under
                                                            benchmarks/results/mixtures/
    python benchmarks/mixtures.py corpora/seven --with-kept-weights   no probe runs (90 of those minutes): the weights
                                                            kept there, compared at the scales not yet compared

Protocol
  1. Probe runs at two scales: uniform with 5 seeds, each domain's tokens times 1/3 and 3 with 2 seeds each, and
     interior mixtures. Runs of one seed share initial weights and the order of every domain.
  2. Noise first: the effect of every perturbation beside its standard error, and the smallest difference the comparison
     below can detect. A scale whose effects do not stand out of the noise is not fitted.
  3. DDO at both scales, AutoScale through the two optima, the optimum of the law that predicts held-out runs best.
  4. At larger scales, with seeds the probes have not had and three times their validation windows: uniform,
     proportional, LLaMA's weights, DDO's last weights kept, AutoScale's, the law's. Same model, tokens and schedule,
     3 seeds, paired by seed.

Everything is done by the commands of launch/ and tools/, which are printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import json
import shlex
import shutil
import subprocess
from typing import Any

import numpy as np
from scipy import stats

from autoscale_ds.corpus import Corpus
from autoscale_ds.files import write_json
from autoscale_ds.mixture import DomainWeights, Objective, RunTable
from autoscale_ds.mixture.repeats import averaged, effects, is_clear, noise
from autoscale_ds.report.compare import speed_up, tokens_to_reach
from autoscale_ds.search.ddo import perturbations
from autoscale_ds.sweep.plan import SweepPlan, run_folder, tokens_label
from autoscale_ds.training.metrics import read_metrics
from benchmarks._machine import RESULTS, describe

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path("benchmarks/configs")
OBJECTIVE = "mean-loss"
FLOOR = 0.02
PROBE_SEEDS, BASE_SEEDS, TARGET_SEEDS, FIRST_TARGET_SEED = 2, 5, 3, 100
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
MIXTURES = ("uniform", "proportional", "llama", "ddo-kept", "autoscale", "law")


class Proof:
    """The protocol on one corpus, in one folder."""

    def __init__(self, corpus: Path, folder: Path, workers: int, scales: list[float], targets: list[float]) -> None:
        self.corpus, self.folder, self.workers = corpus, folder, workers
        self.scales, self.targets = scales, targets
        self.probes = folder / "probes"

    # -- 1: probe runs ------------------------------------------------------------------------------------------

    def run_probes(self) -> RunTable:
        """Train the probe runs that are missing and return the table of all."""
        common = ["--target-tokens", self.targets[-1], "--evaluations", 1, *self.configuration()]
        tokens = ",".join(f"{scale:g}" for scale in self.scales)
        seeds = ["--seeds", PROBE_SEEDS, "--base-seeds", BASE_SEEDS]
        self.sweep("plan", self.probes, "--kind", "ddo", "--tokens", tokens, *seeds, *common)
        interior = ["--kind", "dirichlet", "--runs", 9, "--floor", FLOOR]
        self.sweep("plan", self.probes, "--tokens", tokens, *interior, *common)
        return self.train(self.probes)

    # -- 2: noise -----------------------------------------------------------------------------------------------

    def signal_to_noise(self, table: RunTable) -> dict[str, Any]:
        """Return every perturbation's effect beside its noise, and what the comparison can detect."""
        objective = Objective.of_kind(OBJECTIVE, table.targets)
        found = {}
        for scale in self.scales:
            base = f"{tokens_label(scale)}/base"
            means = averaged(table)
            designs = [means.runs[row] for row, _, _ in perturbations(means, base)]
            here = effects(table, base, objective, designs)
            seeds = [i for i, run in enumerate(table.runs) if run.startswith(f"{base}@")]
            spread, _ = noise(table.take(seeds))
            found[tokens_label(scale)] = {
                "base_losses": objective.of_table(table.take(seeds)).tolist(),
                "noise_by_domain": dict(zip(table.targets, spread.tolist(), strict=True)),
                "noise_of_mean_loss": float(np.std(objective.of_table(table.take(seeds)), ddof=1)),
                "noise_of_a_paired_difference": here[0].standard_error * float(np.sqrt(here[0].seeds)),
                "effects": {e.design: [e.difference, e.standard_error, e.ratio] for e in here},
                "clear": is_clear(here),
            }
        return {"scales": found, "detectable": self.detectable(found)}

    def detectable(self, found: dict[str, Any]) -> dict[str, float]:
        """Return the difference in mean loss that the comparison finds four times in five, at 5 % two-sided.

        From the paired noise of the largest probe scale, with the degrees of freedom that all pairs of the comparison
        share when their noise is taken as equal.
        """
        sd = found[tokens_label(self.scales[-1])]["noise_of_a_paired_difference"]
        freedom = (len(MIXTURES) - 1) * (TARGET_SEEDS - 1)
        times = stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)
        return {"paired_sd": sd, "difference": float(times * sd / np.sqrt(TARGET_SEEDS))}

    # -- 3: weights ---------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Find every mixture to compare; weights files in the proof's folder."""
        runs = self.probes / "runs.parquet"
        at = []
        for scale in self.scales:
            out = self.folder / f"ddo-{tokens_label(scale)}.json"
            options = ["--base", f"{tokens_label(scale)}/base", "--objective", OBJECTIVE, "--floor", FLOOR]
            self.fit_mixture("ddo", runs, *options, "--out", out)
            at += ["--at", f"{scale:g}={out}"]
        law = self.folder / "law.json"
        self.fit_mixture("fit", runs, "--law", "auto", "--out", law)
        write_json(self.folder / "llama.json", LLAMA)
        shutil.copy(self.folder / f"ddo-{tokens_label(self.scales[-1])}.json", self.folder / "ddo-kept.json")
        for tokens in self.targets:
            label = tokens_label(tokens)
            path = ["--floor", FLOOR, "--tokens", f"{tokens:g}", "--save-path", self.folder / "autoscale.json"]
            self.fit_mixture("autoscale", *at, *path, "--out", self.folder / f"autoscale-{label}.json")
            options = ["--tokens", f"{tokens:g}", "--floor", FLOOR, "--objective", OBJECTIVE]
            self.fit_mixture("optimize", law, *options, "--out", self.folder / f"law-{label}.json")

    def weights_at(self, tokens: float) -> dict[str, str]:
        """Return what to give --mixture for each method at a budget."""
        label = tokens_label(tokens)
        files = {"llama": "llama", "ddo-kept": "ddo-kept", "autoscale": f"autoscale-{label}", "law": f"law-{label}"}
        named = {"uniform": "uniform", "proportional": "proportional"}
        return named | {name: f"{name}={self.folder / stem}.json" for name, stem in files.items()}

    # -- 4: comparison ------------------------------------------------------------------------------------------

    def target(self, tokens: float) -> Path:
        """Return the sweep of the comparison at a scale."""
        return self.folder / f"target-{tokens_label(tokens)}"

    def compare(self, tokens: float) -> dict[str, Any]:
        """Train every mixture at a larger scale and return the comparison."""
        mixtures = [part for text in self.weights_at(tokens).values() for part in ("--mixture", text)]
        seeds = ["--seeds", TARGET_SEEDS, "--first-seed", FIRST_TARGET_SEED]
        common = ["--evaluations", 10, *self.configuration("evaluation.windows_per_domain=192")]
        self.sweep("plan", self.target(tokens), "--tokens", f"{tokens:g}", *mixtures, *seeds, *common)
        self.train(self.target(tokens))
        return self.comparison(tokens)

    def comparison(self, tokens: float) -> dict[str, Any]:
        """Return figures of each mixture at one scale, differences and speed-ups paired by seed with uniform."""
        curves = self.curves(tokens)
        ends = {name: {seed: points[-1] for seed, points in seeds.items()} for name, seeds in curves.items()}
        base = ends["uniform"]
        goal = {seed: point["mean_perplexity"] for seed, point in base.items()}
        reached = {name: _reached(seeds, goal) for name, seeds in curves.items()}
        differences = {
            name: [point["loss"] - base[seed]["loss"] for seed, point in by_seed.items()]
            for name, by_seed in ends.items()
            if name != "uniform"
        }
        pooled = float(np.sqrt(np.mean([np.var(each, ddof=1) for each in differences.values()])))
        freedom = sum(len(each) - 1 for each in differences.values())
        found = {}
        for name, by_seed in ends.items():
            points = list(by_seed.values())
            loss = [point["loss"] for point in points]
            speed = speed_up(reached["uniform"], reached[name])
            found[name] = {
                "weights": self.final_weights(name, tokens),
                "loss": [float(np.mean(loss)), float(np.std(loss, ddof=1))],
                "mean_perplexity": _mean_sd([point["mean_perplexity"] for point in points]),
                "perplexity": {d: _mean_sd([p["perplexity"][d] for p in points]) for d in points[0]["perplexity"]},
                "difference": float(np.mean(differences[name])) if name != "uniform" else 0.0,
                "speed_up": [speed.ratio, speed.low, speed.high],
            }
        half = float(stats.t.ppf(0.95, freedom) * pooled / np.sqrt(TARGET_SEEDS))
        return {"tokens": tokens, "mixtures": found, "paired_sd": pooled, "difference_half_width_90": half}

    def curves(self, tokens: float) -> dict[str, dict[int, list[dict[str, Any]]]]:
        """Return the validation records of each mixture and seed at one scale."""
        curves: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in MIXTURES}
        for run in SweepPlan.read(self.target(tokens)).runs:
            records = read_metrics(run_folder(self.target(tokens), run) / "metrics.jsonl", "validation")
            curves[run.design.split("/")[1]][run.seed] = records
        return curves

    def final_weights(self, name: str, tokens: float) -> dict[str, float]:
        """Return the weights a mixture had at one scale."""
        runs = SweepPlan.read(self.target(tokens)).runs
        return next(r.weights for r in runs if r.design == f"{tokens_label(tokens)}/{name}").as_dict()

    # -- commands -----------------------------------------------------------------------------------------------

    def configuration(self, *more: str) -> list[Any]:
        """Return the arguments that name the configuration."""
        files = ["--config", CONFIGS / "mixtures.yaml", "--deepspeed_config", CONFIGS / "mixtures_ds.json"]
        return [*files, f"data.corpus={self.corpus}", *more]

    def train(self, sweep: Path) -> RunTable:
        """Work on a sweep until it is done and return its table."""
        self.sweep("work", sweep, "--workers", self.workers)
        self.sweep("collect", sweep)
        return RunTable.read(sweep / "runs.parquet")

    def sweep(self, *arguments: Any) -> None:
        """Run launch/sweep.py."""
        _run("launch/sweep.py", *arguments)

    def fit_mixture(self, *arguments: Any) -> None:
        """Run tools/fit_mixture.py."""
        _run("tools/fit_mixture.py", *arguments)


def _run(*command: Any) -> None:
    print("$ python " + shlex.join(map(str, command)), flush=True)
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True)


def _mean_sd(values: list[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values, ddof=1))]


def _reached(seeds: dict[int, list[dict[str, Any]]], goal: dict[int, float]) -> dict[int, float | None]:
    """Return the tokens at which each seed's mean perplexity reached its goal."""
    return {
        seed: tokens_to_reach([r["tokens"] for r in records], [r["mean_perplexity"] for r in records], goal[seed])
        for seed, records in seeds.items()
    }


def noise_table(found: dict[str, Any]) -> str:
    """Return the effects and noise of each scale as text."""
    lines = []
    for label, scale in found["scales"].items():
        lines.append(
            f"\n{label} tokens: mean loss over seeds of uniform {np.mean(scale['base_losses']):.4f}, "
            f"sd {scale['noise_of_mean_loss']:.4f}; sd of a paired difference "
            f"{scale['noise_of_a_paired_difference']:.4f}; clear of noise: {scale['clear']}"
        )
        lines += [
            f"  {name:28} {difference:+.4f} +- {error:.4f}   {ratio:5.1f}"
            for name, (difference, error, ratio) in scale["effects"].items()
        ]
    lines.append(f"\na difference of {found['detectable']['difference']:.4f} nats is found four times in five")
    return "\n".join(lines)


def markdown(found: dict[str, Any], label: str) -> str:
    """Return the table of one scale for benchmarks/README.md."""
    lines = [
        f"| {label} tokens | mean loss | against uniform | mean perplexity | speed-up to uniform's perplexity |",
        "|---|---|---|---|---|",
    ]
    half = found["difference_half_width_90"]
    for name, row in found["mixtures"].items():
        ratio, low, high = row["speed_up"]
        speed = "not reached by every seed" if ratio is None else f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        against = "" if name == "uniform" else f"{row['difference']:+.4f} ± {half:.4f}"
        loss, spread = row["loss"]
        perplexity, deviation = row["mean_perplexity"]
        lines.append(
            f"| {name} | {loss:.4f} ± {spread:.4f} | {against} | {perplexity:.2f} ± {deviation:.2f} | {speed} |"
        )
    return "\n".join(lines)


def keep(proof: Proof, result: dict[str, Any]) -> None:
    """Copy what others need to look closer: figures, weights, run tables."""
    out = RESULTS / "mixtures"
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "mixtures.json", result)
    for table in proof.folder.glob("*/runs.parquet"):
        shutil.copy(table, out / f"{table.parent.name}.parquet")
    for path in proof.folder.glob("*.json"):
        shutil.copy(path, out / path.name)
    print(f"kept in {out}")


def take_kept(proof: Proof) -> dict[str, Any]:
    """Put the weights found earlier in the proof's folder and return the earlier result."""
    proof.folder.mkdir(parents=True, exist_ok=True)
    for path in (RESULTS / "mixtures").glob("*.json"):
        if path.name != "mixtures.json":
            shutil.copy(path, proof.folder / path.name)
    result: dict[str, Any] = json.loads((RESULTS / "mixtures" / "mixtures.json").read_text())
    return result


def draw_probes(proof: Proof) -> None:
    """Draw the report of the probe runs; keep the figures that matter."""
    report = proof.folder / "report" / "probes"
    _run("tools/report.py", proof.probes, "--out", report)
    for name in ("effects", "optimal_weights"):
        shutil.copy(report / f"{name}.png", RESULTS / "mixtures" / f"probes-{name}.png")


def draw(proof: Proof, tokens: float) -> None:
    """Draw the report of the comparison at a scale; keep the figures that matter."""
    by_mixture: dict[str, list[str]] = {name: [] for name in MIXTURES}
    for run in SweepPlan.read(proof.target(tokens)).runs:
        by_mixture[run.design.split("/")[1]].append(str(run_folder(proof.target(tokens), run)))
    labels = [part for name, runs in by_mixture.items() for part in ("--label", f"{name}={','.join(runs)}")]
    report = proof.folder / "report" / proof.target(tokens).name
    _run("tools/report.py", *labels, "--out", report)
    for path in report.glob("compare_*.png"):
        shutil.copy(path, RESULTS / "mixtures" / f"{proof.target(tokens).name}-{path.name}")


def main() -> None:
    """Run the protocol, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/mixtures"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scales", default="8e5,1.6e6", help="probe budgets, tokens (default: 8e5,1.6e6)")
    parser.add_argument("--targets", default="3.2e6,6.4e6", help="budgets compared (default: 3.2e6,6.4e6)")
    parser.add_argument("--with-kept-weights", action="store_true", help="go on from benchmarks/results/mixtures/")
    a = parser.parse_args()
    scales, targets = ([float(part) for part in text.split(",")] for text in (a.scales, a.targets))
    DomainWeights(LLAMA).check_domains(Corpus(a.corpus).domains)
    proof = Proof(a.corpus, a.folder, a.workers, scales, targets)
    if a.with_kept_weights:
        result = take_kept(proof)
    else:
        table = proof.run_probes()
        result = {"noise": proof.signal_to_noise(table), "comparison": {}}
        keep(proof, result)
        proof.fit()
        draw_probes(proof)
    result["machine"] = describe("torch", "deepspeed")
    print(noise_table(result["noise"]), flush=True)
    for tokens in targets:
        label = tokens_label(tokens)
        if label not in result["comparison"]:
            result["comparison"][label] = proof.compare(tokens)
            keep(proof, result)
            draw(proof, tokens)
        print(markdown(result["comparison"][label], label), flush=True)


if __name__ == "__main__":
    main()

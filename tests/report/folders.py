"""Run folders with real files, written by the package's own writers, and losses from a known curve."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoscale_ds import config as configuration
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.stream.journal import Event, Journal
from autoscale_ds.stream.spec import DomainText, SpecChange
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.metrics import MetricsWriter

STEP_TOKENS = 1000
SEVEN = ["arxiv", "books", "c4", "common_crawl", "github", "stackexchange", "wikipedia"]


def weights_of(names, favourite=None, share=0.4):
    """Uniform weights, or one domain with a share and the others equal."""
    if favourite is None:
        return DomainWeights.uniform(list(names))
    rest = (1 - share) / (len(names) - 1)
    return DomainWeights({name: share if name == favourite else rest for name in names})


def loss_at(tokens, domain_index, shift=0.0):
    """A power law in tokens, each domain on its own level: the closed form the tests compare with."""
    return 1.5 + 0.15 * domain_index + shift + 30 * (tokens + 20_000) ** -0.25


def write_run(
    folder: Path,
    names=("books", "code", "web"),
    *,
    steps=200,
    done=None,
    swaps=(),
    seed=0,
    shift=0.0,
    corpus="corpus-that-moved",
    log_every=10,
    evaluate_every=20,
    exhausted: Mapping[str, int] | None = None,
    overrides=(),
    tokenizer=None,
    bytes_per_token=None,
    validation_texts=None,
):
    """Write a run of ``steps`` steps of 1,000 tokens that has come to ``done``; swaps are (step, weights, reason)."""
    done = steps if done is None else done
    (folder / "mixture").mkdir(parents=True)
    raw = {
        "run": str(folder),
        "budget_tokens": steps * STEP_TOKENS,
        "seed": seed,
        "data": {"corpus": str(corpus), "sequence_length": 100, "global_batch": 10},
        "model": {"preset": "micro"},
    }
    for key, value in overrides:
        *parents, last = key.split(".")
        below = raw
        for parent in parents:
            below = below.setdefault(parent, {})
        below[last] = value
    (folder / "config.yaml").write_text(configuration.to_yaml(configuration.build(RunConfig, raw)))
    events = [Event(0, 0, weights_of(names), "config", "mixture.weights: uniform", "2026-01-01T00:00:00+00:00", 0)]
    for version, (step, weights, reason) in enumerate(swaps, 1):
        time = f"2026-01-01T{version:02d}:00:00+00:00"
        events.append(Event(version, step, weights, "user", reason, time, step * STEP_TOKENS, f"p{version}"))
    if tokenizer is not None or validation_texts is not None:
        texts = {name: DomainText(50, "text", digest) for name, digest in (validation_texts or {}).items()}
        events[0] = replace(events[0], stream=SpecChange(tokenizer=tokenizer, domains=texts))
    journal = Journal(folder / "mixture" / "journal.jsonl")
    for event in events:
        journal.append(event)
    writer = MetricsWriter(folder / "metrics.jsonl", 0, None)
    for record in _records(names, events, done, shift, seed, log_every, evaluate_every, exhausted or {}):
        if bytes_per_token is not None and record["kind"] == "validation":
            losses = record["domain_loss"]
            record["bits_per_byte"] = {n: x / math.log(2) / bytes_per_token for n, x in losses.items()}
        writer.write(record)
    writer.close()
    return folder


def _records(names, events, done, shift, seed, log_every, evaluate_every, exhausted):
    rng = np.random.default_rng(seed)
    for step in range(done + 1):
        tokens = step * STEP_TOKENS
        losses = {name: loss_at(tokens, i, shift) for i, name in enumerate(names)}
        if step and step % log_every == 0:
            asked = dict([e for e in events if e.effective_step < step][-1].weights)
            asked = {name: 0.0 if step > exhausted.get(name, math.inf) else w for name, w in asked.items()}
            counts = rng.multinomial(log_every * 10, np.array(list(asked.values())) / sum(asked.values()))
            realised = {name: int(count) / counts.sum() for name, count in zip(names, counts, strict=True)}
            own = {n: x + 0.05 * rng.normal() for n, x in losses.items() if realised[n]}
            yield {"kind": "train", "step": step, "tokens": tokens, "loss": sum(own.values()) / len(own),
                   "domain_loss": own, "realised": realised, "weights": asked, "learning_rate": 1e-3,
                   "tokens_per_second": 5000.0 + step, "mfu": None}  # fmt: skip
        if evaluate_every and step % evaluate_every == 0:
            perplexity = {name: math.exp(loss) for name, loss in losses.items()}
            yield {"kind": "validation", "step": step, "tokens": tokens, "loss": sum(losses.values()) / len(losses),
                   "mean_perplexity": sum(perplexity.values()) / len(names), "domain_loss": losses,
                   "perplexity": perplexity, "bits_per_byte": {}}  # fmt: skip

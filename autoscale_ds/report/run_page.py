"""The sections of the page about one run."""

from __future__ import annotations

from autoscale_ds.corpus.identity import few
from autoscale_ds.report import page, run_figures
from autoscale_ds.report.page import Html
from autoscale_ds.report.reading import Run
from autoscale_ds.report.style import Image, compact, counted
from autoscale_ds.stream.journal import Event
from autoscale_ds.training.record_kinds import KINDS, numbers

Sections = list[tuple[str, Html]]
# Changes of weight spelled out for a swap: the largest.
MOST_CHANGES = 4


def sections(run: Run) -> tuple[Sections, list[Image]]:
    """Return the sections about a run, and its figures."""
    images = run_figures.figures(run)
    by_name = {image.name: page.figure(image) for image in images}
    tokens = [by_name[name] for name in ("tokens", "epochs") if name in by_name]
    if run.windows is None:
        tokens.append(page.note(f"Epochs are left out, because the corpus cannot be read: {run.no_epochs}"))
    losses = [by_name[name] for name in ("validation_loss", "validation_perplexity") if name in by_name]
    losses += map(page.note, _what_does_not_compare(run))
    targets = [by_name["targets"], _target_table(run)] if "targets" in by_name else []
    training = by_name.get("training_loss", page.note("No training step has been logged yet."))
    return [
        page.section("Run", summary(run)),
        page.section("Loss and perplexity", *losses, _validation_table(run), training),
        *([page.section("Targets", *targets)] if targets else []),
        *([page.section("Task scores", by_name["scores"], _score_table(run))] if "scores" in by_name else []),
        page.section("Weights and swaps", *([by_name["weights"]] if "weights" in by_name else []), swap_table(run)),
        page.section("Tokens and epochs", *tokens, _domain_table(run)),
        *_other_evaluations(run),
    ], images


def _what_does_not_compare(run: Run) -> list[str]:
    """Return notes of why losses at different tokens are not of the same text."""
    if not run.validation:
        return ["No validation has been recorded yet."]
    notes = []
    other = sorted(name for name, digests in run.validation_texts.items() if len(digests) > 1)
    if other:
        notes.append(f"The validation text of {few(other)} changed on the way: losses before and after do not compare.")
    domains = [set(record["domain_loss"]) for record in run.validation]
    passing = sorted(set.union(*domains) - set.intersection(*domains))
    if passing:
        notes.append(f"Means are over the domains of the moment; not every validation has {few(passing)}.")
    return notes


def summary(run: Run) -> Html:
    """Return model, data, budget and progress of the run."""
    config, last, score = run.config, run.last("train"), run.last("validation")
    budget = run.budget
    share = run.tokens / budget.tokens
    return page.facts(
        {
            "state": state(run),
            "model": model_name(run),
            "tokens": f"{compact(run.tokens)} of {compact(budget.tokens)} ({share:.1%}), "
            f"step {run.step:,} of {budget.total_steps:,}",
            "batch": f"{config.data.global_batch:,} sequences x {config.data.sequence_length:,} tokens = "
            f"{config.tokens_per_step:,} tokens a step",
            "corpus": config.data.corpus,
            "domains": f"{len(run.domains)}"
            + (f", {counted(len(run.swaps), 'swap')} of their weights" if run.swaps else ""),
            "validation": _score(score) if score else None,
            "speed": _speed(run),
            "learning rate": last.get("learning_rate"),
            "seed": config.seed,
        }
    )


def state(run: Run) -> str:
    """Return in words whether the run is done, and how old its newest record is."""
    if run.finished:
        return "finished"
    if run.age_seconds is None:
        return "nothing recorded yet"
    return f"not finished; the newest record is {_duration(run.age_seconds)} old"


def model_name(run: Run) -> str:
    """Return the model's preset or shape, and its size where known."""
    model = run.config.model
    shape = [f"{value} {key}" for key in ("layers", "heads", "width") if (value := getattr(model, key)) is not None]
    name = ", ".join([*([model.preset] if model.preset else []), *shape])
    return name + (f" ({run.parameters:,} parameters)" if run.parameters else "")


def swap_table(run: Run) -> Html:
    """Return every set of weights with step, tokens, source and reason."""
    if not run.events:
        return page.note("The journal of weights is empty: the run has not started.")
    rows = []
    for before, event in zip([None, *run.in_order], run.in_order, strict=False):
        change = _changes(before, event) if before else "start"
        tokens = run.budget.tokens_at(event.effective_step)
        time = event.time[:16].replace("T", " ")
        rows.append([event.version, event.effective_step, compact(tokens), event.source, event.reason, change, time])
    header = ["swap", "from step", "tokens", "source", "reason", "largest changes", "accepted (UTC)"]
    return page.table(
        header,
        rows,
        caption="Weights of the run (shares of training tokens) by version, 0 is its start",
        text_columns=(3, 4, 5),
    )


def _changes(before: Event, after: Event) -> str:
    names = sorted(set(before.weights) | set(after.weights))
    pairs = {name: (before.weights.get(name, 0.0), after.weights.get(name, 0.0)) for name in names}
    moved = sorted((n for n in names if pairs[n][0] != pairs[n][1]), key=lambda n: -abs(pairs[n][1] - pairs[n][0]))
    parts = [f"{name} {pairs[name][0]:.3g} → {pairs[name][1]:.3g}" for name in moved[:MOST_CHANGES]]
    more = [f"{len(moved) - MOST_CHANGES} more"] if len(moved) > MOST_CHANGES else []
    return ", ".join([*parts, *more]) or "none"


def _validation_table(run: Run) -> Html:
    """Return first and last validation figures by domain."""
    if not run.validation:
        return Html("")
    first, last = run.validation[0], run.validation[-1]
    keys = ("domain_loss", "perplexity")
    rows = [
        [name, *(record.get(key, {}).get(name) for key in keys for record in (first, last)), _bits(last, name)]
        for name in sorted(last["domain_loss"])
    ]
    rows.append(["mean", first["loss"], last["loss"], first.get("mean_perplexity"), last.get("mean_perplexity"), None])
    header = ["domain", "first loss", "last loss", "first perplexity", "last perplexity", "last bits per byte"]
    where = (
        f"Validation at {compact(first['tokens'])} (first) and {compact(last['tokens'])} tokens (last); loss in nats"
    )
    return page.table(header, rows, caption=where + " per token")


def _target_table(run: Run) -> Html:
    """Return first and last figures by target."""
    first, last = run.records["targets"][0], run.records["targets"][-1]
    keys = ("target_loss", "bits_per_byte")
    rows = [
        [name, *(record[key].get(name) for key in keys for record in (first, last)), last["perplexity"].get(name)]
        for name in sorted(last["target_loss"])
    ]
    header = ["target", "first loss", "last loss", "first bits per byte", "last bits per byte", "last perplexity"]
    where = f"Targets at {compact(first['tokens'])} (first) and {compact(last['tokens'])} tokens (last)"
    return page.table(header, rows, caption=f"{where}; loss in nats per token")


def _score_table(run: Run) -> Html:
    """Return first, best and last score by task."""
    first, last = run.records["scores"][0], run.records["scores"][-1]
    rows = []
    for name in sorted(last["score"]):
        x, y = run.curve("scores", "score", name)
        best = f"{y.max():.4f} at {compact(float(x[y.argmax()]))}" if len(y) else None
        error = last["standard_error"].get(name)
        rows.append(
            [name, first["score"].get(name), best, last["score"][name], error, _bits(run.last("targets"), name)]
        )
    header = ["task", "first", "best", "last", "standard error", "last bits per byte"]
    where = f"Scores at {compact(first['tokens'])} (first) and {compact(last['tokens'])} tokens (last)"
    caption = f"{where}; bits per byte where a target has the task's name"
    return page.table(header, rows, caption=caption, text_columns=(0, 2))


def _other_evaluations(run: Run) -> Sections:
    """Return a section with first and last figures of the evaluations that no other section shows; none without any."""
    kinds = sorted(set(run.records) - set(KINDS))
    rows = []
    for kind in kinds:
        first, last = (numbers(run.records[kind][at]) for at in (0, -1))
        rows += [
            [kind, name, first.get(name), value, compact(run.last(kind)["tokens"])] for name, value in last.items()
        ]
    if not rows:
        return []
    header = ["evaluation", "figure", "first", "last", "tokens (last)"]
    table = page.table(header, rows, caption="Figures of other evaluations", text_columns=(0, 1))
    return [page.section("Evaluations", table)]


def _bits(record: object, name: str) -> float | None:
    return record.get("bits_per_byte", {}).get(name) if isinstance(record, dict) else None


def _domain_table(run: Run) -> Html:
    """Return tokens, epochs and weights by domain."""
    _, tokens = run.consumed
    asked = run.events[-1].weights if run.events else {}
    rows = []
    for name in sorted(run.domains, key=lambda n: (-tokens[n][-1], n)):
        used = float(tokens[name][-1])
        epochs = run.epochs(name, used)
        share = used / run.train[-1]["tokens"] if run.train else None
        rows.append([name, compact(used), share, asked.get(name), None if epochs is None else float(epochs)])
    header = ["domain", "tokens", "share of tokens", "newest weight", "epochs"]
    return page.table(header, rows, caption="What each domain has given so far, the largest first")


def _score(record: object) -> str | None:
    if not isinstance(record, dict):
        return None
    loss, perplexity = record.get("loss"), record.get("mean_perplexity")
    known = [f"mean loss {loss:.4f} nats per token"] if loss is not None else []
    known += [f"mean perplexity {perplexity:.4g}"] if perplexity is not None else []
    return ", ".join(known) + f" at {compact(record['tokens'])} tokens"


def _speed(run: Run) -> str | None:
    rates = sorted(r["tokens_per_second"] for r in run.train if r.get("tokens_per_second") is not None)
    if not rates:
        return None
    mfu = run.last("train").get("mfu")
    return f"{rates[len(rates) // 2]:,.0f} tokens a second (median)" + (f", MFU {mfu:.1%}" if mfu is not None else "")


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"

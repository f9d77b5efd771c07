"""The sections of the page about a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.report import page, sweep_figures
from autoscale_ds.report.mixture_text import SELECTION
from autoscale_ds.report.page import Html
from autoscale_ds.report.style import Image, compact, counted
from autoscale_ds.report.sweep_analysis import PathFit, ScaleFit, fit_path, fit_scale, floor_of
from autoscale_ds.report.sweep_law import LawFit, fit_law, rank_stability
from autoscale_ds.report.sweep_reading import Design, Sweep
from autoscale_ds.search.design import FLOPS_PER_PARAMETER

Sections = list[tuple[str, Html]]


def sections(sweep: Sweep) -> tuple[Sections, list[Image]]:
    """Return the sections about a sweep or run table, and its figures."""
    fits = [fit for scale in sweep.scales if (fit := fit_scale(sweep, scale)) is not None]
    path = fit_path(fits, floor_of(sweep.domains))
    uniform = DomainWeights.uniform(list(sweep.domains))
    base = DomainWeights(dict(zip(sweep.domains, fits[-1].base.weights, strict=True))) if fits else uniform
    law = fit_law(sweep, base)
    effects, drawn_effects = _effects(fits)
    optima, drawn_optima = _optima(sweep, fits, path, law)
    compared, drawn_laws = _laws(law)
    ranks, drawn_ranks = _ranks(sweep)
    return [
        page.section("Verdict", *_verdict(sweep, law, path)),
        page.section("Search and its cost", _summary(sweep), _cost(sweep), *map(page.note, sweep.notes)),
        page.section("Effects against noise", *effects),
        page.section("Optimal weights against scale", *optima),
        page.section("Laws", *compared),
        page.section("Does the ranking of mixtures hold?", *ranks),
    ], [*drawn_effects, *drawn_optima, *drawn_laws, *drawn_ranks]


def _verdict(sweep: Sweep, law: LawFit, path: PathFit) -> list[Html]:
    """Return what to train, what it gains, and what the search cost."""
    end, found = sweep.target or sweep.scales[-1], law.decision
    if found is None:
        return [page.note(f"Nothing can be decided: {law.undecided}.")]
    spent = math.fsum(design.tokens * len(design.rows) for design in sweep.designs)
    share = f", {spent / end.tokens:.2g} times those of one run there" if end.tokens else ""
    saved = f" It needs {found.tokens_saved[0] / end.tokens:.0%} fewer tokens." if found.tokens_saved else ""
    said = f"At {end.name()}, against the sweep's base: {found.sentence}.{saved}"
    cost = f"The search took {compact(spent)} tokens{share}."
    predicted = path.predict(end.tokens)
    published: Mapping[str, float] = predicted[0] if predicted else {}
    rows = [
        [name, found.weights[name], found.against[name], weight, _range(found.within_noise[name]), published.get(name)]
        for name, weight in found.best.items()
    ]
    header = ["domain", "to train", "base", "smallest expected loss", "within the noise of a run", "AutoScale's path"]
    caption = (
        "Weights (shares of training tokens). The mean loss over targets is minimised; the verdict is to change when a "
        "gain has probability .9 and is expected to be larger than the noise of one run"
    )
    return [page.paragraph(f"{said} {cost}"), page.table(header, rows, caption=caption, text_columns=(0, 4))]


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _summary(sweep: Sweep) -> Html:
    done = sum(len(design.rows) for design in sweep.designs)
    target = sweep.target
    return page.facts(
        {
            "runs": f"{done:,}" + (f" of {sweep.planned:,} planned" if sweep.planned is not None else ""),
            "designs": f"{len(sweep.designs):,} mixtures at {len(sweep.scales)} scales",
            "domains": ", ".join(sweep.domains) if len(sweep.domains) <= 12 else f"{len(sweep.domains)}",
            "targets": ", ".join(sweep.targets) if len(sweep.targets) <= 12 else f"{len(sweep.targets)}",
            "made for": target.name(with_parameters=True) if target else None,
        }
    )


def _cost(sweep: Sweep) -> Html:
    """Return tokens and FLOPs by scale, and their share of the target run's."""
    parts = [(scale.name(with_parameters=True), sweep.at(scale)) for scale in sweep.scales]
    rows = [_cost_row(sweep, name, designs) for name, designs in [*parts, ("all", sweep.designs)]]
    header = ["scale", "runs", "tokens", "FLOPs", "share of target's tokens", "share of target's FLOPs"]
    return page.table(header, rows, caption="Search cost: what the runs above have used, all seeds together")


def _cost_row(sweep: Sweep, name: str, designs: Sequence[Design]) -> list[object]:
    tokens = math.fsum(design.tokens * len(design.rows) for design in designs)
    flops = math.fsum(design.flops for design in designs)
    runs = sum(len(design.rows) for design in designs)
    return [name, runs, compact(tokens), _flops(flops), *_shares(sweep, tokens, flops)]


def _shares(sweep: Sweep, tokens: float, flops: float) -> list[str | None]:
    """Return shares of the target run; its FLOPs are 6 N D."""
    if sweep.target is None:
        return [None, None]
    whole = FLOPS_PER_PARAMETER * sweep.target.parameters * sweep.target.tokens
    share = flops / whole if whole else math.nan
    return [_percent(tokens / sweep.target.tokens), _percent(share)]


def _percent(share: float) -> str | None:
    return f"{100 * share:.3g} %" if math.isfinite(share) else None


def _flops(value: float) -> str | None:
    return f"{value:.3g}" if math.isfinite(value) else None


def _effects(fits: Sequence[ScaleFit]) -> tuple[list[Html], list[Image]]:
    """Return effects and curves by scale."""
    if not any(fit.effects for fit in fits):
        return [page.note("No run changes the tokens of one domain only, so there are no effects to show.")], []
    images = [sweep_figures.effects(fits), sweep_figures.curves(fits)]
    tables = [_effects_table(fit) for fit in fits if fit.effects]
    notes = [page.note(f"At {fit.scale.name(with_parameters=True)}: {fit.note}") for fit in fits if fit.note]
    return [page.figure(images[0]), *tables, page.figure(images[1]), *notes], images


def _effects_table(fit: ScaleFit) -> Html:
    noise = "unknown: the base has one seed" if fit.noise is None else f"{fit.noise:.3g} nats"
    caption = (
        f"{fit.scale.name(with_parameters=True)}: base run {fit.base.values.mean():.4f} nats per token, mean of "
        f"{counted(len(fit.base.rows), 'seed')}; noise between base runs (one standard deviation) {noise}"
    )
    rows = [[e.domain, f"{e.factor:.3g}×", f"{e.change:+.4f}", _half(e.half), e.ratio, e.count] for e in fit.effects]
    header = [
        "domain",
        "tokens",
        "change of mean loss (nats)",
        "90 % interval",
        "signal / noise (standard errors)",
        "seeds",
    ]
    return page.table(header, rows, caption=caption)


def _half(half: float | None) -> str | None:
    return None if half is None else f"± {half:.2g}"


def _optima(sweep: Sweep, fits: Sequence[ScaleFit], path: PathFit, law: LawFit) -> tuple[list[Html], list[Image]]:
    """Return the figure and table of optimal weights."""
    notes = [page.note(f"No AutoScale path: {path.note}")] if path.note else []
    if not law.optima and not any(fit.optimum for fit in fits):
        return [page.note("Neither DDO runs nor a law give an optimum here."), *notes], []
    image = sweep_figures.optima(sweep, fits, path, law)
    columns = _weight_columns(sweep, fits, path, law)
    rows = [[name, *(column.get(name) for column in columns.values())] for name in sweep.domains]
    floor = f"no weight is let below {floor_of(sweep.domains):.3g}, a tenth of the uniform share"
    caption = (
        "Weights (shares of training tokens) that minimise the mean loss over targets, 90 % intervals in brackets; "
        f"{floor}. AutoScale is the published path; on public runs of up to 410M parameters keeping the last optimum "
        "was better in most cases, and fit_mixture.py autoscale --decide moves only where a law shows a gain. "
        "fit_mixture.py ddo minimises the mean perplexity unless told --objective mean-loss"
    )
    warnings = [page.note(f"The law warns: {text}") for text in law.warnings]
    return [page.figure(image), page.table(["domain", *columns], rows, caption=caption), *notes, *warnings], [image]


def _weight_columns(sweep: Sweep, fits: Sequence[ScaleFit], path: PathFit, law: LawFit) -> dict[str, dict[str, str]]:
    """Return the columns of the table of weights: base and DDO by scale, then everything at the target."""
    columns: dict[str, dict[str, str]] = {}
    if fits:
        columns["base"] = {n: f"{w:.4f}" for n, w in zip(sweep.domains, fits[0].base.weights, strict=True)}
    for fit in fits:
        if fit.optimum is not None:
            columns[f"DDO at {fit.scale.name()}"] = {n: _with(w, fit.intervals.get(n)) for n, w in fit.optimum.items()}
    end = sweep.target or sweep.scales[-1]
    if predicted := path.predict(end.tokens):
        weights, ranges = predicted
        columns[f"AutoScale at {end.name()}"] = {n: _with(w, ranges.get(n)) for n, w in weights.items()}
    if sweep.autoscale is not None:
        where = f" at {compact(sweep.autoscale.tokens)} tokens" if sweep.autoscale.tokens else ""
        file = sweep.autoscale
        columns[f"autoscale.json{where}"] = {n: _with(w, file.intervals.get(n)) for n, w in file.weights.items()}
    if end in law.optima:
        best = law.optima[end]
        columns[f"law at {end.name()}"] = {n: _with(w, best.intervals.get(n)) for n, w in best.weights.items()}
    return columns


def _with(weight: float, ends: tuple[float, float] | None) -> str:
    return f"{weight:.4f}" if ends is None else f"{weight:.4f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def _laws(law: LawFit) -> tuple[list[Html], list[Image]]:
    """Return the comparison of laws on held-out runs."""
    if law.model is None:
        return [page.note(f"No law: {law.origin}.")], []
    said = page.paragraph(f"The law is {law.model.law} ({law.origin}).")
    compared: list[dict[str, Any]] = [dict(row) for row in law.model.selection if row.get("error") is not None]
    if not compared:
        return [said, page.note("It was named, not chosen: there is no comparison on held-out runs.")], []
    columns = [key for key in SELECTION if any(row.get(key) is not None for row in compared)]
    rows = [[row["law"], *(row.get(key) for key in columns)] for row in compared]
    caption = "Laws and baselines by their error on held-out runs, over the spread of the losses; mae in nats per token"
    names = ["law", *(" ".join(SELECTION[key].split()) for key in columns)]
    image = sweep_figures.laws({row["law"]: float(row["error"]) for row in compared})
    skipped = [f"{row['law']}: {row['skipped']}" for row in law.model.selection if "skipped" in row]
    notes = [page.note("Not compared: " + "; ".join(skipped))] if skipped else []
    return [said, page.figure(image), page.table(names, rows, caption=caption), *notes], [image]


def _ranks(sweep: Sweep) -> tuple[list[Html], list[Image]]:
    """Return the rank correlation of mixtures between scales."""
    ranks, reason = rank_stability(sweep)
    image = sweep_figures.ranks(sweep)
    figure = [page.figure(image)] if image else []
    if ranks is None:
        return [*figure, page.note(f"Not known: {reason}.")], [image] if image else []
    rows = [
        [_scale_name(p["from"]), _scale_name(p["to"]), p["mixtures"], p["mean"], p["same_best"], p["regret"]]
        for p in ranks["pairs"]
    ]
    header = ["from", "to", "shared mixtures", "rank correlation", "same best", "regret (nats)"]
    caption = (
        "Spearman correlation of losses between scales, mean over targets; share of targets whose best mixture is the "
        "same; loss of keeping the smaller scale's best"
    )
    table = page.table(header, rows, caption=caption, text_columns=(0, 1))
    return [*figure, table, page.paragraph(ranks["advice"].capitalize() + ".")], [image] if image else []


def _scale_name(scale: dict[str, Any]) -> str:
    size = f", {compact(scale['parameters'])} parameters" if scale["parameters"] else ""
    return f"{compact(scale['tokens'])} tokens{size}"

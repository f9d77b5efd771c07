"""The sections of the page about several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from autoscale_ds.report import group_figures, page, run_figures, run_page, style
from autoscale_ds.report.common import BITS_PER_BYTE, PERPLEXITY, Measure, on_common_ground
from autoscale_ds.report.compare import Interval, SpeedUp, geometric
from autoscale_ds.report.groups import Group, Race, race
from autoscale_ds.report.page import Html
from autoscale_ds.report.style import Image, compact

Sections = list[tuple[str, Html]]
# Domains in the figure of final losses; the table has all.
MOST_DOMAINS = 20


def sections(groups: Sequence[Group], target: float | None = None) -> tuple[Sections, list[Image]]:
    """Return the sections that compare groups of runs, and their figures.

    Parameters
    ----------
    target : float, optional
        Mean perplexity to reach (bits per byte across tokenizers); the final one of the first group by default.
    """
    everyone = groups
    groups, notes, measure = on_common_ground(groups)
    looks = style.looks([group.label for group in everyone], sort=False)
    outcome = race(groups, target, measure.key) if groups else None
    domains = _domains(groups)
    images: list[Image] = []
    if domains:
        aim = outcome.target if outcome else None
        images += [group_figures.curves(groups, looks, "loss", measure, aim if measure is BITS_PER_BYTE else None)]
        if measure is PERPLEXITY:
            images += [group_figures.curves(groups, looks, "mean_perplexity", measure, aim)]
        left = max(len(domains) - MOST_DOMAINS, 0)
        images += [group_figures.finals(groups, looks, domains[:MOST_DOMAINS], left, measure)]
    reaching = [group_figures.reach(outcome, looks, measure)] if outcome else []
    weights = [run_figures.weights(g.runs[0], f"weights_{i}") for i, g in enumerate(groups) if g.runs[0].train]
    nothing = [] if domains else [page.note("No validation has been recorded yet: there is nothing to compare.")]
    titled = [part for group in groups for part in _weights_of(group, groups, weights)]
    return [
        page.section("Runs", _runs_table(everyone), *map(page.note, notes)),
        page.section("Loss and perplexity side by side", *nothing, *map(page.figure, images[:-1])),
        page.section("Tokens to a target", *map(page.figure, reaching), _race_table(groups, outcome, measure)),
        page.section(
            "Final figures by domain", *map(page.figure, images[-1:]), *_final_tables(groups, domains, measure)
        ),
        page.section("Weights", *titled),
    ], [*images, *reaching, *weights]


def _runs_table(groups: Sequence[Group]) -> Html:
    rows = [
        [group.label, run.config.seed, run_page.model_name(run), compact(run.tokens), len(run.swaps),
         run_page.state(run), str(run.path)]
        for group in groups for run in group.runs
    ]  # fmt: skip
    return page.table(["group", "seed", "model", "tokens", "swaps", "state", "folder"], rows, text_columns=(0, 2, 5, 6))


def _race_table(groups: Sequence[Group], outcome: Race | None, measure: Measure) -> Html:
    """Return tokens to the target by group, and the speed-up over the first with its interval."""
    if outcome is None:
        return page.note("The first group has no validation yet, and so no target; give one with --target.")
    rows = [_race_row(group, outcome) for group in groups]
    caption = (
        f"Training tokens to a {measure.words} of {outcome.target:.4g}, geometric mean over seeds, and how "
        f"many times fewer than {groups[0].label} needs; 90 % intervals over seeds"
    )
    header = ["group", "reached by", "tokens", "90 % low", "90 % high", "speed-up", "90 % low", "90 % high", "seeds"]
    return page.table(header, rows, caption=caption, text_columns=(0, 1, 8))


def _race_row(group: Group, outcome: Race) -> list[object]:
    reached = outcome.reached[group.label]
    known = [tokens for tokens in reached.values() if tokens is not None]
    says = f"{len(known)} of {len(reached)} seeds"
    return [
        group.label,
        says,
        *_tokens_cells(known, len(reached)),
        *_speed_up_cells(outcome.speed_ups.get(group.label)),
    ]


def _tokens_cells(known: Sequence[float], seeds: int) -> list[str | None]:
    """Return mean and interval of the tokens, which are known where every seed reached the target."""
    if len(known) < seeds:
        return ["not reached", None, None]
    if min(known) <= 0:
        return ["before training", None, None]
    mean = geometric(known)
    return [compact(mean.mean), *(None if end is None else compact(end) for end in (mean.low, mean.high))]


def _speed_up_cells(ratio: SpeedUp | None) -> list[object]:
    if ratio is None:
        return ["1 (reference)", None, None, ""]
    pairs = f"{ratio.count} pair{'' if ratio.count == 1 else 's'}" if ratio.paired else "not paired"
    ends = [None if end is None else f"{end:.3g}×" for end in (ratio.ratio, ratio.low, ratio.high)]
    return [*ends, pairs]


def _final_tables(groups: Sequence[Group], domains: Sequence[str], measure: Measure) -> list[Html]:
    """Return final loss and perplexity by domain and group, with half the width of the interval over seeds."""
    if not domains:
        return []
    where = ", ".join(f"{group.label} at {compact(group.end)}" for group in groups)
    tables = []
    figures = [("domain_loss", "loss", f"loss ({measure.unit})")]
    if measure is PERPLEXITY:
        figures.append(("perplexity", "mean_perplexity", "perplexity"))
    for figure, mean, unit in figures:
        rows = [[name, *(_plus_minus(group.final(figure, name)) for group in groups)] for name in domains]
        rows.append(["mean", *(_plus_minus(group.final(mean)) for group in groups)])
        caption = f"Final validation {unit}, mean over seeds ± half of its 90 % interval; tokens: {where}"
        tables.append(page.table(["domain", *(group.label for group in groups)], rows, caption=caption))
    return tables


def _plus_minus(value: Interval | None) -> str | None:
    if value is None:
        return None
    return f"{value.mean:.4g}" + ("" if value.high is None else f" ± {value.high - value.mean:.2g}")


def _domains(groups: Sequence[Group]) -> list[str]:
    """Return the domains validated, the highest loss of the first group first."""
    names = {name for group in groups for run in group.runs for r in run.validation[-1:] for name in r["domain_loss"]}
    loss = {name: final.mean for name in names if (final := groups[0].final("domain_loss", name)) is not None}
    return sorted(names, key=lambda name: (-loss.get(name, 0.0), name))


def _weights_of(group: Group, groups: Sequence[Group], images: Sequence[Image]) -> list[Html]:
    """Return the weights of a group's first seed, figure and swaps."""
    name = f"weights_{list(groups).index(group)}"
    seed = f" (seed {group.runs[0].config.seed})" if len(group.runs) > 1 else ""
    drawn = [page.figure(image) for image in images if image.name == name]
    return [page.heading(group.label + seed), *drawn, run_page.swap_table(group.runs[0])]

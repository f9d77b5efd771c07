"""The figures of one run: losses, weights with their swaps, tokens and epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_ds.mixture.arrays import Array
from autoscale_ds.report import style
from autoscale_ds.report.reading import Run, shown
from autoscale_ds.report.style import Image, Look

# More points than this cannot be told apart in a line.
MOST_POINTS = 150
# Swaps spelled out under the figure; the table has them all.
MOST_NOTES = 8
MOST_LINES_OF_SWAPS = 40
_REST = Look("0.5", "-.", "")


def figures(run: Run) -> list[Image]:
    """Return every figure the run's records allow, in the order of the page."""
    images: list[Image] = []
    if run.validation:
        images += [_validation(run, "domain_loss"), _validation(run, "perplexity")]
    if run.records.get("targets"):
        images.append(_targets(run))
    if run.records.get("scores"):
        images.append(_scores(run))
    if run.train:
        images += [_training_loss(run), weights(run), *_consumption(run)]
    return images


def drawn(run: Run) -> tuple[dict[str, Look], list[str]]:
    """Return the domains that get a line of their own and how it looks, and those that do not."""
    tokens = {name: values[-1] for name, values in run.consumed[1].items()}
    names, rest = shown(run.domains, tokens, style.MOST_LINES)
    return style.looks(names), rest


def _validation(run: Run, figure: str) -> Image:
    """Draw a validation figure by domain over tokens."""
    domains, rest = drawn(run)
    what = {"domain_loss": "loss", "perplexity": "perplexity"}[figure]
    canvas, axes = style.canvas()
    handles: dict[str, Any] = {}
    mean = run.curve("validation", "loss" if figure == "domain_loss" else "mean_perplexity")
    (handles["mean over domains"],) = axes.plot(*mean, color=style.MEAN, linewidth=5, **_alone(mean[0]))
    for name, look in domains.items():
        x, y = run.curve("validation", figure, name)
        if len(x):
            (handles[name],) = axes.plot(x, y, **look.line(marker=look.marker, markersize=4, linewidth=1.3))
    axes.set_ylabel("validation " + (f"{what} (nats per token)" if what == "loss" else f"{what} (log scale)"))
    if what == "perplexity":
        axes.set_yscale("log")
        style.plain_ticks(axes.yaxis, log=True)
    _finish(run, canvas, axes, handles)
    text = f"Validation {what} of each domain" + (" in nats per token" if what == "loss" else "") + " over "
    return style.image(canvas, f"validation_{what}", text + f"training tokens.{_about(rest)}{_swap_note(run)}")


def _targets(run: Run) -> Image:
    """Draw bits per byte of every target over tokens; losses where the size of a target's text is not known."""
    last = run.last("targets")
    figure = "bits_per_byte" if set(last["target_loss"]) == set(last["bits_per_byte"]) else "target_loss"
    unit = "bits per byte" if figure == "bits_per_byte" else "nats per token"
    canvas, axes, handles, rest = _lines(run, "targets", figure, sorted(last["target_loss"]))
    axes.set_ylabel(f"loss of targets ({unit})")
    _finish(run, canvas, axes, handles)
    text = f"Loss of each target, text that is never trained on, in {unit}, over training tokens."
    return style.image(canvas, "targets", text + rest + _swap_note(run))


def _scores(run: Run) -> Image:
    """Draw the score of every downstream task over tokens, with its standard error."""
    canvas, axes, handles, rest = _lines(run, "scores", "score", sorted(run.last("scores")["score"]))
    for name, line in handles.items():
        (x, y), (at, error) = run.curve("scores", "score", name), run.curve("scores", "standard_error", name)
        if len(at) == len(x):
            axes.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_ylabel("score")
    _finish(run, canvas, axes, handles)
    text = "Score of each downstream task over training tokens; the bands are one standard error over its items."
    return style.image(canvas, "scores", text + rest + _swap_note(run))


def _lines(run: Run, kind: str, figure: str, names: list[str]) -> tuple[Any, Any, dict[str, Any], str]:
    """Draw a figure of a kind of record, a line for each name; also say which names are left out."""
    drawn_names, rest = names[: style.MOST_LINES], names[style.MOST_LINES :]
    canvas, axes = style.canvas()
    handles: dict[str, Any] = {}
    for name, look in style.looks(drawn_names).items():
        x, y = run.curve(kind, figure, name)
        if len(x):
            (handles[name],) = axes.plot(x, y, **look.line(marker=look.marker, markersize=4, linewidth=1.3))
    return canvas, axes, handles, f" The table has {len(rest)} more." if rest else ""


def _training_loss(run: Run) -> Image:
    """Draw the training loss by domain over tokens."""
    domains, rest = drawn(run)
    canvas, axes = style.canvas()
    handles: dict[str, Any] = {}
    mean = _thinned(*run.curve("train", "loss"))
    (handles["all tokens"],) = axes.plot(*mean, color=style.MEAN, linewidth=5, **_alone(mean[0]))
    for name, look in domains.items():
        x, y = _thinned(*run.curve("train", "domain_loss", name))
        if len(x):
            (handles[name],) = axes.plot(x, y, **look.line(linewidth=1.2, **_marks(look, x)))
    axes.set_ylabel("training loss (nats per token)")
    _finish(run, canvas, axes, handles)
    thin = ", averaged over neighbouring log lines" if len(run.train) > MOST_POINTS else ""
    caption = f"Training loss of each domain's own tokens in nats per token{thin}, over training tokens."
    return style.image(canvas, "training_loss", caption + _about(rest) + _swap_note(run))


def weights(run: Run, name: str = "weights") -> Image:
    """Draw weights asked (journal) and realised (log lines) over tokens, with every swap."""
    domains, rest = drawn(run)
    notes = _notes(run)
    canvas, axes = style.canvas(height=style.HEIGHT + 0.22 * len(notes))
    handles: dict[str, Any] = {}
    for domain, look in domains.items():
        asked = _asked(run, [domain])
        axes.plot(*asked, color=look.colour, alpha=0.3, linewidth=6, drawstyle="steps-post", solid_capstyle="butt")
        x, y = _from_zero(*_thinned(*run.curve("train", "realised", domain)))
        style_of_line = look.line(linewidth=1.4, drawstyle="steps-pre", **_marks(look, x))
        (handles[domain],) = axes.plot(x, y, **style_of_line)
    if rest:
        x, y = _from_zero(*_thinned(*_summed(run, "realised", rest)))
        (handles[f"{len(rest)} others together"],) = axes.plot(x, y, **_REST.line(linewidth=1.4, drawstyle="steps-pre"))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("weight (share of tokens)")
    _finish(run, canvas, axes, handles)
    if notes:
        canvas.supxlabel("\n".join(notes), fontsize=9, ha="left", x=0.02)
    caption = (
        "Share of each domain over training tokens: asked by the journal (wide and pale) and realised between log "
        f"lines (thin).{_about(rest)}{_swap_note(run)}{_exhausted(run)}"
    )
    return style.image(canvas, name, caption)


def _consumption(run: Run) -> list[Image]:
    """Draw cumulative tokens, and epochs where the corpus is known."""
    x, tokens = run.consumed
    images = [_cumulative(run, "tokens", x, tokens)]
    epochs = {name: run.epochs(name, values) for name, values in tokens.items()}
    known = {name: values for name, values in epochs.items() if values is not None}
    return images + ([_cumulative(run, "epochs", x, known)] if known else [])


def _cumulative(run: Run, what: str, x: Array, values: Mapping[str, Array]) -> Image:
    domains, rest = drawn(run)
    canvas, axes = style.canvas()
    handles: dict[str, Any] = {}
    for name, look in domains.items():
        if name in values:
            (handles[name],) = axes.plot(x, values[name], **look.line(linewidth=1.5, **_marks(look, x)))
    if rest and what == "tokens":
        total = sum(values[name] for name in rest)
        (handles[f"{len(rest)} others together"],) = axes.plot(x, total, **_REST.line(linewidth=1.5))
    axes.set_ylim(bottom=0)
    if what == "tokens":
        style.token_axis(axes, "tokens of the domain", which="y")
    else:
        axes.set_ylabel("epochs of the domain")
        axes.axhline(1, color="0.6", linewidth=0.9)
    _finish(run, canvas, axes, handles)
    caption = {
        "tokens": "Tokens taken from each domain so far, over training tokens.",
        "epochs": "How often each domain has been read through, over training tokens; the grey line is one epoch.",
    }[what]
    return style.image(canvas, what, caption + _about(rest) + _swap_note(run))


def _finish(run: Run, canvas: Any, axes: Any, handles: Mapping[str, Any]) -> None:
    """Label the token axis, mark the swaps, put the legend beside the data."""
    end = max(run.tokens, 1)
    axes.set_xlim(-0.01 * end, 1.01 * end)
    style.token_axis(axes)
    _mark_swaps(run, axes, end)
    style.legend(canvas, handles)


def _mark_swaps(run: Run, axes: Any, end: float) -> None:
    """Draw a line a swap, or only a tick at the top where many would hide the data, and number them."""
    places = {event.version: float(run.budget.tokens_at(event.effective_step)) for event in run.swaps}
    past = {version: place for version, place in places.items() if place <= end}
    bottom = 0.0 if len(past) <= MOST_LINES_OF_SWAPS else 0.95
    for place in past.values():
        axes.axvline(place, ymin=bottom, color="0.35", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for centre, text in _swap_labels(past, end):
        axes.annotate(
            text, (centre, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=9, color="0.25",
        )  # fmt: skip


def _swap_labels(places: Mapping[int, float], end: float) -> list[tuple[float, str]]:
    """Return where the versions of swaps stand; numbers that would be printed over each other become one range."""
    groups: list[list[int]] = []
    for number, place in places.items():
        if groups and place - places[groups[-1][-1]] < 0.06 * end:
            groups[-1].append(number)
        else:
            groups.append([number])
    spans = [(group[0], group[-1]) for group in groups]
    return [((places[a] + places[b]) / 2, f"{a}" if a == b else f"{a}–{b}") for a, b in spans]


def _notes(run: Run) -> list[str]:
    """Return one line a swap, for readers of the figure alone."""
    lines = [
        style.label(
            f"swap {event.version}: step {event.effective_step:,}, {event.source}: {event.reason or 'no reason given'}",
            120,
        )
        for event in run.swaps
    ]
    more = len(lines) - MOST_NOTES
    return [*lines[:MOST_NOTES], f"… and {more} more"] if more > 0 else lines


def _asked(run: Run, domains: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return the steps of the weights asked by the journal, up to the newest step on record."""
    end = float(max(run.tokens, 1))
    events = [event for event in run.events if run.budget.tokens_at(event.effective_step) <= end]
    values = [sum(event.weights.get(name, 0.0) for name in domains) for event in events]
    places = [float(run.budget.tokens_at(event.effective_step)) for event in events]
    return [*places, end], [*values, *values[-1:]] if values else [0.0]


def _summed(run: Run, figure: str, domains: Sequence[str]) -> tuple[Array, Array]:
    x = np.array([record["tokens"] for record in run.train], float)
    return x, np.array([sum(record[figure].get(name, 0.0) for name in domains) for record in run.train])


def _thinned(x: Array, y: Array) -> tuple[Array, Array]:
    """Return at most MOST_POINTS points: means over neighbours, at the end of what they cover as log lines are."""
    if len(x) <= MOST_POINTS:
        return x, y
    size = -(-len(x) // MOST_POINTS)
    starts = np.arange(0, len(x), size)
    ends = np.minimum(starts + size, len(x))
    return x[ends - 1], np.add.reduceat(y, starts) / (ends - starts)


def _from_zero(x: Array, y: Array) -> tuple[Array, Array]:
    """Return the line with the beginning of its first log interval."""
    return (np.append(0.0, x), np.append(y[:1], y)) if len(x) else (x, y)


def _marks(look: Look, x: Array) -> dict[str, Any]:
    """Return about eight markers along a line, for readers without colour."""
    every = max(len(x) // 8, 1)
    offset = (ord(look.marker[0]) % 4) * every // 4 if look.marker and every > 1 else 0
    return {"marker": look.marker or "None", "markersize": 4, "markevery": (offset, every)}


def _alone(x: Array) -> dict[str, Any]:
    """Return a marker for a line of a single point, which would not be seen."""
    return {"marker": "o"} if len(x) == 1 else {}


def _about(rest: Sequence[str]) -> str:
    return f" The {style.MOST_LINES - 1} domains with the most tokens; the tables have all." if rest else ""


def _swap_note(run: Run) -> str:
    return " Dashed lines are swaps of the weights, numbered as in the table of swaps." if run.swaps else ""


def _exhausted(run: Run) -> str:
    """Say which domains have run out: asked for, and at weight zero on the newest log line."""
    if not run.events:
        return ""
    past = [e for e in run.events if e.effective_step < max(run.step, 1)] or run.events[:1]
    now = run.last("train").get("weights", {})
    gone = [name for name, weight in past[-1].weights.items() if weight > 0 and now.get(name, 1.0) == 0]
    return f" Run out and at zero now: {', '.join(gone)}." if gone else ""

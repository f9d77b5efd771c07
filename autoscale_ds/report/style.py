"""The style of figures: colours that colour-blind readers can tell apart, ticks like "20M", legends beside the data."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscale_ds.errors import ReportError

# Okabe and Ito, "Color Universal Design" (2008), without its yellow, which is hardly seen on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MEAN = "0.72"
# More lines than this in one figure cannot be told apart; the others are drawn as one.
MOST_LINES = 10
WIDTH, HEIGHT, DPI = 9.0, 4.2, 140
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Image:
    """One figure, drawn.

    Attributes
    ----------
    name : str
        File name without suffix.
    png : bytes
        The picture, encoded.
    caption : str
        What one sees, units included.
    """

    name: str
    png: bytes
    caption: str

    @property
    def data_uri(self) -> str:
        """Return the image for use inside a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Look:
    """Colour, dash and marker of one line; all three differ, for readers without colour."""

    colour: str
    dash: str
    marker: str

    def line(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of ``Axes.plot``."""
        return {"color": self.colour, "linestyle": self.dash, **more}


def looks(names: Sequence[str], *, sort: bool = True) -> dict[str, Look]:
    """Return a look for each name; by alphabet, so that a domain looks the same in every figure of a page."""
    ordered = sorted(names) if sort else list(names)
    count = len(COLOURS)
    return {
        name: Look(COLOURS[i % count], DASHES[i // count % len(DASHES)], MARKERS[i % count])
        for i, name in enumerate(ordered)
    }


def compact(value: float | None, digits: int = 3) -> str:
    """Return a count in short form: 1.5B, 20M, 300k, 12; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    for unit, letter in _UNITS:
        # 999,950 and more would be rounded to "1000k".
        if abs(value) >= unit * (1 - 0.5 * 10**-digits):
            return f"{value / unit:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def counted(count: int, what: str) -> str:
    """Return a number with its noun: ``1 seed``, ``5 seeds``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def label(text: str, longest: int = 60) -> str:
    """Return text from a file as Matplotlib shows it literally: one line, no mathematics, not hidden by a "_"."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    line = line if len(line) <= longest else line[: longest - 1] + "…"
    return line.replace("$", r"\$")


def require(what: str = "a report") -> None:
    """Raise ReportError, naming what needs it, unless Matplotlib is installed; called before the work, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ReportError(
            f"{what} needs matplotlib, which is not installed: pip install 'autoscale_ds[plots]'"
        ) from None


def canvas(rows: int = 1, columns: int = 1, *, height: float = HEIGHT, width: float = WIDTH) -> tuple[Any, Any]:
    """Return a figure and its axes, an array unless there is one."""
    require()
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns)
    for one in [axes] if rows * columns == 1 else axes.flat:
        one.grid(True, color="0.9", linewidth=0.8)
        one.set_axisbelow(True)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return figure, axes


def token_axis(axes: Any, text: str = "training tokens", *, log: bool = False, which: str = "x") -> None:
    """Label an axis that counts tokens, ticks like "20M"."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)
    plain_ticks(axis, log=log)


def plain_ticks(axis: Any, *, log: bool = False) -> None:
    """Write ticks as plain numbers; on a logarithmic axis at 1, 2 and 5 when it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value, 4)))
    if not log:
        axis.set_major_locator(MaxNLocator(8))
        return
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 9.0
    if decades < 0.7:
        axis.set_major_locator(MaxNLocator(6))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3.5 else (1,)))
    axis.set_minor_formatter(NullFormatter())


def legend(target: Any, handles: Mapping[str, Any], *, title: str | None = None, columns: int = 1) -> None:
    """Put a legend to the right of the data, never over it."""
    # A leading "_" would hide the entry.
    texts = [" " + label(name, 32) if name.startswith("_") else label(name, 32) for name in handles]
    options = {"loc": "outside right upper"} if hasattr(target, "savefig") else {"loc": "best"}
    target.legend(list(handles.values()), texts, title=title, frameon=False, fontsize=9, ncols=columns, **options)


def image(figure: Any, name: str, caption: str) -> Image:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts the font lacks are shown as boxes; the tables spell them out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return Image(name, buffer.getvalue(), caption)

"""One HTML page without a network: text escaped, figures embedded, light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NewType

from autoscale_ds.errors import ReportError
from autoscale_ds.files import write_atomic
from autoscale_ds.report.style import Image

# Text that has been escaped; only the functions here make it.
Html = NewType("Html", str)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c636b; --page: #fbfbfa; --card: #ffffff; --line: #dfe2e6;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #a4abb3; --page: #16181b; --card: #1f2226;
  --line: #363b41; --accent: #6cb6e6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p { margin: .5rem 0; max-width: 48rem; }
.soft, figcaption, caption { color: var(--soft); }
nav { margin: 1rem 0 0; font-size: .95rem; }
nav a { color: var(--accent); margin-right: 1.1rem; text-decoration: none; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0 1.5rem; }
figure img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: .5rem; }
figcaption { font-size: .92rem; margin-top: .45rem; max-width: 48rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
.tall { max-height: 32rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; font-size: .92rem; }
th, td { padding: .28rem .8rem .28rem 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
th.text, td.text { text-align: left; } td.text { white-space: normal; min-width: 6rem; overflow-wrap: anywhere; }
.note { border-left: 3px solid var(--accent); padding: .1rem .9rem; margin: 1rem 0; color: var(--soft); }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
"""


def text(value: Any) -> Html:
    """Return a value as escaped text: numbers with four digits, a dash for None."""
    return Html(escape(_spell(value)))


def paragraph(value: str) -> Html:
    """Return a paragraph."""
    return Html(f"<p>{escape(value)}</p>")


def note(value: str) -> Html:
    """Return a remark set apart: what is missing and why."""
    return Html(f'<p class="note">{escape(value)}</p>')


def heading(value: str) -> Html:
    """Return a heading inside a section."""
    return Html(f"<h3>{escape(value)}</h3>")


def facts(pairs: Mapping[str, Any]) -> Html:
    """Return names and values as a list; None values are left out."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{text(v)}</dd>" for k, v in pairs.items() if v is not None)
    return Html(f"<dl>{items}</dl>")


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", text_columns: Sequence[int] = (0,)
) -> Html:
    """Return a table; columns of words to the left, of numbers to the right. Long ones scroll."""
    kinds = [' class="text"' if i in text_columns else "" for i in range(len(header))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(header, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    tall = " tall" if len(rows) > 24 else ""
    return Html(
        f'<div class="wide{tall}"><table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
    )


def figure(image: Image) -> Html:
    """Return a figure with its caption."""
    caption = escape(image.caption)
    return Html(
        f'<figure id="{escape(image.name)}"><img src="{image.data_uri}" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def section(title: str, *parts: Html) -> tuple[str, Html]:
    """Return a titled section of the page."""
    return title, Html("\n".join(parts))


def page(title: str, subtitle: str, sections: Sequence[tuple[str, Html]], footer: str) -> str:
    """Return the whole document."""
    links = " ".join(f'<a href="#s{i}">{escape(name)}</a>' for i, (name, _) in enumerate(sections))
    body = "\n".join(f'<h2 id="s{i}">{escape(name)}</h2>\n{parts}' for i, (name, parts) in enumerate(sections))
    navigation = f"<nav>{links}</nav>" if len(sections) > 2 else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<p class="soft">{escape(subtitle)}</p>\n{navigation}\n{body}\n'
        f"<footer>{escape(footer)}</footer>\n</main>\n</body>\n</html>\n"
    )


def write(folder: str | Path, html: str, images: Sequence[Image]) -> Path:
    """Write every figure and index.html into a folder, and return the page's path.

    Raises
    ------
    ReportError
        When the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for image in images:
            write_atomic(folder / f"{image.name}.png", image.png)
        write_atomic(folder / "index.html", html.encode("utf-8", "replace"))
    except OSError as error:
        raise ReportError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another --out"
        ) from None
    return folder / "index.html"


def _spell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

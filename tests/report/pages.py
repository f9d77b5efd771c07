"""Looking into a page as a browser would."""

import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
from forked import run_forked

pytest.importorskip("matplotlib")
REPOSITORY = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """Tags, image sources, visible text and table rows of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.rows, self.words = [], [], [], []
        self._hidden, self._in_cell = 0, False
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        self._hidden += tag == "style"

    def handle_endtag(self, tag):
        self._hidden -= tag == "style"
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)
            if self._in_cell:
                self.rows[-1][-1] += data

    def row(self, first):
        """The first row whose first cell is this text."""
        return next(row for row in self.rows if row and row[0] == first)

    def check(self):
        """Assert what holds of every page: complete in itself, and nothing in it runs."""
        assert self.images, "a page without a figure"
        assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in self.images)
        assert not {"script", "link", "iframe", "object"} & set(self.tags)
        assert "http:" not in self.source
        assert "https:" not in self.source
        return self


def png_size(path):
    """Width and height in pixels, from the file's own header."""
    data = Path(path).read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def run_tool(*arguments):
    """Run tools/report.py as a user does."""
    return run_forked([str(REPOSITORY / "tools" / "report.py"), *map(str, arguments)])

"""The site that `make docs` builds: without a warning, and read without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.documents import PAGES, ROOT


class Fetched(HTMLParser):
    """What a page's tags fetch from elsewhere when it is opened; links to follow do not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            fetched = name in ("src", "srcset", "data", "poster") or (name, tag) == ("href", "link")
            if fetched and re.match(r"(?:[a-z]+:)?//", value or ""):
                self.found.append(f"<{tag} {name}={value}>")


def fetched_by_style(text: str) -> list[str]:
    """The addresses elsewhere that a style sheet fetches."""
    return re.findall(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^\"')]+)", text)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ('<link href="https://a.example/b.css"><script src="//a.example/c.js"></script>', 2),
        ('<img src="https://a.example/b.png"><iframe src="http://a.example"></iframe>', 2),
        ('<a href="https://a.example">there</a><script src="c.js"></script><img src="b.png">', 0),
    ],
)
def test_what_is_fetched_is_found(text: str, n: int) -> None:
    assert len(Fetched(text).found) == n


def test_what_a_style_fetches_is_found() -> None:
    assert fetched_by_style("@import 'https://a.example/b'; a{b:url(//c.example/d)}") == [
        "https://a.example/b",
        "//c.example/d",
    ]
    assert fetched_by_style("a{b:url(data:image/png)} /* https://a.example */") == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed; `make docs` does that")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {document.path.with_suffix(".html").name for document in PAGES} <= pages.keys()
    for name, text in pages.items():
        assert Fetched(text).found == [], name
    for path in tmp_path.rglob("*.css"):
        assert fetched_by_style(path.read_text(encoding="utf-8")) == [], path
    assert "find_edges" in pages["python.html"]
    assert "<blockquote>" not in pages["python.html"], "an example that is no block of code"
    assert (tmp_path / "search" / "search_index.js").is_file()

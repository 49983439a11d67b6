"""A trace's page, Markdown, notebook card and terminal: what they say, and any token in them."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from sae_graphs.cli.trace_table import print_trace, print_traces
from sae_graphs.tracing.reading import read
from sae_graphs.tracing.records import Trace
from sae_graphs.tracing.report import trace_files
from sae_graphs.tracing.sentences import findings, handover_words, in_short, question
from tests.support.traced_cases import traces
from tests.support.traces import hostile, nothing, planted


@pytest.fixture(scope="module")
def shown() -> dict[str, bytes]:
    return trace_files(hostile(), ("html", "md"))


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)


def test_a_page_holds_all_and_runs_nothing(shown: dict[str, bytes]) -> None:
    page = shown["trace.html"].decode()
    tags = Tags(page).names
    assert "script" not in tags and "img" not in tags and "image" not in tags
    assert tags.count("svg") == 2 and tags.count("details") == 4
    assert "http" not in re.sub(r'(xmlns(:\w+)?|http-equiv)="[^"]*"|http-equiv', "", page)
    text = html.unescape(re.sub("<[^>]+>", "", page))
    assert "Early site: restoring the state at" in text
    assert "$x_1$" in text


def test_markdown_keeps_tokens_from_being_marks(shown: dict[str, bytes]) -> None:
    told = shown["trace.md"].decode()
    assert "<script>" not in told and "\\$x\\_1\\$" in told
    assert "](trace.svg)" in told and {"trace.svg", "trace-lines.svg"} <= shown.keys()


@pytest.mark.slow
def test_the_same_trace_gives_the_same_page(shown: dict[str, bytes]) -> None:
    assert trace_files(hostile(), ("html",))["trace.html"] == shown["trace.html"]


def test_what_was_asked_and_found() -> None:
    trace = planted(3)
    reading = read(trace)
    asked = question(trace)
    assert '" Eiffel Tower"' in asked and '" Paris"' in asked and "10 runs" in asked
    told = list(findings(trace, reading))
    assert told[0].startswith('Handover: " in" overtakes " Tower" in block 3 (layer 3.5, ')
    assert re.match(
        r'Early site: restoring the state at " Tower" \*, layers 0 to 3, brings back up to '
        r"\d+ % of what was lost \(\+[\d.]+ nats, [\d.]+ to [\d.]+\)\.",
        told[1],
    )
    assert told[2].startswith('Late site: restoring the state at " in" (read), layers 4 to 7')
    assert in_short(reading) == "4 sites · handover in block 3"


def test_nothing_is_said_of_chance() -> None:
    (told,) = findings(nothing(0, noise=0.5), read(nothing(0, noise=0.5)))
    assert told.startswith("No site stands out")
    (told,) = findings(planted(runs=1), read(planted(runs=1)))
    assert told.startswith("No site is claimed: one run")
    assert handover_words(planted(runs=1), read(planted(runs=1))) is None


@pytest.mark.slow
def test_a_notebook_shows_a_trace() -> None:
    card = hostile()._repr_html_()
    tags = Tags(card).names
    assert tags.count("svg") == 1 and "table" in tags and "script" not in tags


def printed(trace: Trace, width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        print_trace(console, [trace], seconds=1.0)
    return captured.get()


def test_the_terminal_tells_sites_and_the_handover() -> None:
    told = printed(planted(3))
    assert "The E*iff*el* Tower* is in" in told.replace("\xa0", " ")
    assert '" Paris": clean 88.1 %, corrupted 2.' in told
    assert "Handover:" in told and "State" in told and "block 3" in told
    assert "[bold red]" in printed(hostile()).replace("\xa0", " ")
    assert "No site stands out" in " ".join(printed(nothing(0, noise=0.5)).split())


def test_the_terminal_tells_many_prompts() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        print_traces(console, traces(n=6), seconds=1.0)
    told = " ".join(captured.get().split())
    assert "12 prompts traced" in told and "cached: left out 1 another next token" in told
    assert "semantic: left out 1 failed" in told and "overtakes" in told

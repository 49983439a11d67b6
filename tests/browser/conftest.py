"""A real browser, where the machine has one; every page is watched for errors and requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.render.pictures import html

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIEWPORT = {"width": 1440, "height": 900}
OWN = ("file:", "blob:", "data:", "about:")

Opened = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium: that of `CHROMIUM`, or one on the path."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no browser found: install Chromium, or say where one is with CHROMIUM=")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield chromium
        chromium.close()


class Watched:
    """A page, and what went wrong on it: errors, dialogs, requests to other places than its own."""

    def __init__(self, page: Any, own: tuple[str, ...]) -> None:
        self.page = page
        self._own = own
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self._heard = {
            "pageerror": lambda error: self.wrong.append(f"error: {error}"),
            "dialog": lambda dialog: self.wrong.append(f"dialog: {dialog.message}"),
            "console": self._console,
            "request": self._request,
        }
        for event, hear in self._heard.items():
            page.on(event, hear)

    def left(self) -> None:
        """The page is made ready for whoever comes next, who hears for himself."""
        for event, hear in self._heard.items():
            self.page.remove_listener(event, hear)
        self.page.unroute_all()
        self.page.emulate_media(media="null", color_scheme="null")
        self.page.mouse.move(0, 0)
        self.page.goto("about:blank")

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self._own):
            self.asked.append(request.url)


@pytest.fixture(scope="session")
def usual_page(browser: Any) -> Any:
    """One page for all who want nothing of it but to be a page: another costs 0.3 seconds."""
    return browser.new_context(viewport=VIEWPORT).new_page()


@pytest.fixture
def watch(browser: Any, usual_page: Any) -> Iterator[Callable[..., Watched]]:
    """Empty pages, each checked at the end: no error, no dialog, no request."""
    pages: list[Watched] = []
    contexts = []

    def new(own: tuple[str, ...] = OWN, **options: Any) -> Watched:
        page = usual_page
        if options or pages:
            contexts.append(browser.new_context(**{"viewport": VIEWPORT, **options}))
            page = contexts[-1].new_page()
        pages.append(Watched(page, own))
        return pages[-1]

    yield new
    found = [(page.wrong, page.asked) for page in pages]
    for watched in pages:
        if watched.page is usual_page:
            watched.left()
    for context in contexts:
        context.close()
    assert found == [([], [])] * len(pages)


@pytest.fixture
def opened(watch: Callable[..., Watched], tmp_path: Path) -> Opened:
    """The explorer of a graph, opened from a file; `address` is what follows the file's name."""

    def opening(
        graph: CausalGraph, *, address: str = "", page: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        file = tmp_path / "graph.html"
        file.write_text(html(graph, **(page or {})), encoding="utf-8")
        found = watch(**options).page
        found.goto(file.as_uri() + address)
        found.wait_for_selector("html.ready")
        return found

    return opening

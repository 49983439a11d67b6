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
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self._own):
            self.asked.append(request.url)


@pytest.fixture
def watch(browser: Any) -> Iterator[Callable[..., Watched]]:
    """New pages, each checked at the end: no error, no dialog, no request."""
    pages: list[Watched] = []
    contexts = []

    def new(own: tuple[str, ...] = OWN, **options: Any) -> Watched:
        options.setdefault("viewport", {"width": 1440, "height": 900})
        context = browser.new_context(**options)
        contexts.append(context)
        watched = Watched(context.new_page(), own)
        pages.append(watched)
        return watched

    yield new
    found = [(page.wrong, page.asked) for page in pages]
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

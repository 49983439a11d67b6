"""What all pages of the gallery have in common: their frame, their policy, how they say things."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from sae_graphs.graph.records import RunRecord
from sae_graphs.render.document.shell import allowed
from sae_graphs.render.explorer.page import FOLDER as EXPLORER
from sae_graphs.render.palette import ROOT
from sae_graphs.text import ELLIPSIS, in_page, shortened, token, visible

FOLDER = Path(__file__).parent
TOKENS_BEFORE, TOKENS_AFTER = 36, 6  # of the read token: a longer prompt is cut
TOKEN_LENGTH = 40
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Page(NamedTuple):
    """A page, and what it may do."""

    html: str
    policy: str


def page(title: str, body: str, *, styles: Sequence[str] = (), script: str | None = None) -> Page:
    """A page with the style sheets and the script of these names; no other script may run.

    `body` is HTML, `title` any text. Data for the script may stand in the body, as JSON.
    """
    code = _script(script) if script else ""
    sheets = "".join(map(sheet, styles or ("skeleton",)))
    html = "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" type="image/svg+xml" href="/favicon.ico">',
            f"<title>{shown(title)}</title>",
            f"<style>{ROOT}{sheets}</style></head><body>",
            body,
            f"<script>{code}</script>" if code else "",
            "</body></html>\n",
        ]
    )
    scripts = allowed(code) if code else "'none'"
    return Page(
        html,
        f"default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; script-src {scripts}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    )


def problem_page(heading: str, words: str) -> Page:
    """A page that says what is wrong, and leads back."""
    return page(
        heading,
        f'<main class="problem"><h1>{shown(heading)}</h1><p>{shown(words)}</p>'
        '<p><a href="/">← all runs</a></p></main>',
    )


@cache
def _script(name: str) -> str:
    return f'(() => {{\n"use strict";\n{_read(f"{name}.js")}\n}})();'


@cache
def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def sheet(name: str) -> str:
    """A style sheet; that of drawings is the explorer's, so that boxes look the same everywhere."""
    file = f"{name}.css"
    return (EXPLORER / file).read_text(encoding="utf-8") if name == "explorer" else _read(file)


# -- words and addresses ---------------------------------------------------------------------------


def shown(text: str) -> str:
    """Any text as HTML, everything in it readable."""
    return in_page(visible(text, space=" "))


def quoted_name(name: str) -> str:
    """A run's name as a part of an address; it need not be Unicode, as folders' names need not."""
    return quote(name, safe="", errors="surrogateescape")


def run_address(name: str, file: str = "") -> str:
    """Where a run's explorer is, or one of its files."""
    return f"/run/{quoted_name(name)}/{file}"


def compare_address(left: str, right: str, *, summed: bool = False) -> str:
    """Where two runs stand side by side."""
    at = f"/compare?a={quoted_name(left)}&b={quoted_name(right)}"
    return at + ("&sum=1" if summed else "")


def prompt_html(run: RunRecord) -> str:
    """The prompt's tokens, the one that was read marked; a long prompt cut around it."""
    read = run.read_position
    first = max(read - TOKENS_BEFORE, 0)
    last = min(read + TOKENS_AFTER + 1, len(run.tokens))
    parts = [f'<span class="cut">{ELLIPSIS}</span>'] if first else []
    for position in range(first, last):
        text = in_page(shortened(token(run.tokens[position]), TOKEN_LENGTH))
        if position == read:
            parts.append(f'<mark title="read here">{text}</mark>')
        else:
            parts.append(f"<span>{text}</span>")
    parts += [f'<span class="cut">{ELLIPSIS}</span>'] if last < len(run.tokens) else []
    return f'<code class="prompt">{"<wbr>".join(parts)}</code>'

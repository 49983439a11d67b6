"""What all pages of the gallery have in common: their frame, their policy, how they say things."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote

from sae_graphs.render.document.shell import POLICY, allowed, script_of, shell
from sae_graphs.render.document.templates import macros
from sae_graphs.render.explorer.page import FOLDER as EXPLORER
from sae_graphs.text import ELLIPSIS, shortened, token, visible

if TYPE_CHECKING:
    from markupsafe import Markup

FOLDER = Path(__file__).parent
PARTS = "gallery/parts.html.j2"
TOKENS_BEFORE, TOKENS_AFTER = 36, 6  # of the read token: a longer prompt is cut
TOKEN_LENGTH = 40
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


READ_ONLY = f"{POLICY}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_BODY = re.compile(r"<body\b[^>]*>")


class Page(NamedTuple):
    """A page, and what it may do."""

    html: str
    policy: str


def page(
    title: str, body: Markup, *, styles: Sequence[str] = (), script: str | None = None
) -> Page:
    """A page with the style sheets and the script of these names; no other script may run.

    `title` is any text. Data for the script may stand in the body, as JSON.
    """
    code = _script(script) if script else ""
    html = shell(
        visible(title, space=" "),
        body,
        style="".join(map(sheet, styles or ("skeleton",))),
        code=code,
        icon="/favicon.ico",
    )
    scripts = allowed(code) if code else "'none'"
    return Page(
        html,
        f"{POLICY}; img-src 'self'; script-src {scripts}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    )


def with_bar(html: str, bar: str) -> str:
    """A page that was made elsewhere, under the gallery's bar."""
    found = _BODY.search(html)
    assert found is not None, "what is shown is a page with a body"
    return f"{html[: found.end()]}{bar}{html[found.end() :]}"


def problem_page(heading: str, words: str) -> Page:
    """A page that says what is wrong, and leads back."""
    return page(heading, macros(PARTS).problem(heading, words))


@cache
def _script(name: str) -> str:
    return script_of([FOLDER / f"{name}.js"])


@cache
def sheet(name: str) -> str:
    """A style sheet; that of drawings is the explorer's, so that boxes look the same everywhere."""
    file = f"{name}.css"
    return ((EXPLORER if name == "explorer" else FOLDER) / file).read_text(encoding="utf-8")


# -- words and addresses ---------------------------------------------------------------------------


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


class Word(NamedTuple):
    """A token of a prompt; `is_cut` stands for those that are left out."""

    text: str
    is_read: bool = False
    is_cut: bool = False


class Prompted(Protocol):
    """Whatever has a prompt, as tokens, one of which is read."""

    @property
    def tokens(self) -> Sequence[str]:
        """The tokens."""
        ...

    @property
    def read_position(self) -> int:
        """Which of them is read."""
        ...


def prompt_html(run: Prompted) -> Markup:
    """The prompt's tokens, the one that was read marked; a long prompt cut around it."""
    read = run.read_position
    first = max(read - TOKENS_BEFORE, 0)
    last = min(read + TOKENS_AFTER + 1, len(run.tokens))
    cut = Word(ELLIPSIS, is_cut=True)
    words = [cut] if first else []
    for position in range(first, last):
        text = shortened(token(run.tokens[position]), TOKEN_LENGTH)
        words.append(Word(text, is_read=position == read))
    words += [cut] if last < len(run.tokens) else []
    found: Markup = macros(PARTS).prompt(words)
    return found

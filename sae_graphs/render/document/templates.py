"""HTML from templates: one environment for all pages, in which every text is escaped.

A template is a file `*.html.j2` beside the code that fills it, named here by its path within the
package. What is ours and not a text (an `<svg>`, a style, a script) is handed in as `ours(...)`;
anything else is escaped where it is written, and a name that is not given is an error.

Pages are long, so templates drop their own line breaks: `-%}`, `{%-`, and `{{- "" }}` before a line
that goes on where the last one ended.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_graphs.text import in_page, shortened, token, visible
from sae_graphs.words import counted, percent, plain, probability_words, signed

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

PACKAGE = Path(__file__).resolve().parents[2]


def filled(name: str, **values: Any) -> Markup:
    """The template of this name, such as `gallery/cards.html.j2`, with no line break at its end."""
    return ours(_environment().get_template(name).render(values).rstrip("\n"))


def macros(name: str) -> Any:
    """The macros of a template: each is called with its values, and returns HTML."""
    return _environment().get_template(name).module


def ours(html: str) -> Markup:
    """HTML, CSS or a script of this project, which stands in a page as it is; never a text."""
    from markupsafe import Markup  # when a page is made, not when the commands are listed

    return Markup(html)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "visible": lambda text: visible(text, space=" "),
        "short": lambda text, limit: shortened(visible(text, space=" "), limit),
        "token": token,
        "short_token": lambda text, limit: shortened(token(text), limit),
        "signed": signed,
        "plain": plain,
        "percent": percent,
        "probability": probability_words,
        "counted": counted,
    }
    return found


def _escaped(value: Any) -> Any:
    """Text as `in_page` escapes it, so that a page has one spelling of a quotation mark."""
    return value if hasattr(value, "__html__") else ours(in_page(str(value)))

"""What Neuronpedia says of a feature, in the words of boxes, tooltips, pages and tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from unicodedata import east_asian_width

from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Node
from sae_graphs.render.picture.markup import cell, font, in_label, row
from sae_graphs.render.style import FAINT, INK, SANS
from sae_graphs.text import ELLIPSIS, HARD_SPACE, shortened, token, visible
from sae_graphs.words import plain, signed

SIZE = 9  # points
LINES = 2  # of a box at most
_SPARE = 1  # column that a whole line may take beyond its letters, as Graphviz measures it
UNITS = 0.602  # of the type's size: the width in which a line's room is counted
_TIP_WIDTH, _TIP_TOKENS = 90, 6
_WIDTHS = {  # at least those of the bundled sans serif, hinted, in columns of `UNITS`
    **dict.fromkeys("ijlIJ'|.,:;/" + HARD_SPACE, 0.56),
    **dict.fromkeys("frt!()[]-\\", 0.7),
    **dict.fromkeys("aceksvxyz_", 0.98),
    **dict.fromkeys("#&+<=>^w~", 1.4),
    **dict.fromkeys("mMW@%" + ELLIPSIS, 1.67),
}

_NOT_FOUND = {"missing": "no such feature", "unavailable": "unavailable"}
NO_WORDS = "no explanation"


def is_explained(graph: CausalGraph) -> bool:
    """Whether Neuronpedia was asked about any feature of the graph."""
    return any(node.page is not None for node in graph.nodes)


def page_words(page: FeaturePage | None) -> str:
    """The explanation, or why there is none; nothing where Neuronpedia was not asked. As it came:
    whoever shows it makes it visible."""
    if page is None:
        return ""
    return page.explanation or _NOT_FOUND.get(page.status, NO_WORDS)


def explanation_lines(graph: CausalGraph, room: float) -> int:
    """How many lines every box of a graph has for what Neuronpedia says: what the longest needs,
    two at most; none where it was not asked."""
    if not is_explained(graph):
        return 0
    return max(len(broken(_box_words(node), room - _SPARE, LINES)) for node in graph.nodes)


def explanation_row(node: Node, room: int, lines: int = 1) -> str:
    """Lines of a box: as much of the explanation as fits into `room` columns of its type.

    Faint where there is none; empty, but as high, where Neuronpedia was not asked.
    """
    colour = INK if node.explanation is not None else FAINT
    shown = broken(_box_words(node), room - _SPARE, lines)
    shown += [HARD_SPACE] * (lines - len(shown))
    written = "".join(f'{in_label(line)}<BR ALIGN="LEFT"/>' for line in shown)
    return row(cell(font(written, size=SIZE, colour=colour, face=SANS), align="LEFT"))


def _box_words(node: Node) -> str:
    known = node.explanation is not None
    told = page_words(node.page)
    return visible(told if known or not told else f"Neuronpedia: {told}")


def broken(shown: str, room: float, lines: int) -> list[str]:
    """Visible text in at most so many lines of `room` columns, at least one; broken between words,
    within one that is longer than a line; only the last line is cut as `fitted` cuts."""
    found: list[str] = []
    rest = shown
    while len(found) < lines - 1 and sum(map(_width, rest)) > room:
        kept = len(_start(rest, room))
        if rest[kept] != HARD_SPACE and HARD_SPACE in rest[1:kept]:
            kept = rest.rindex(HARD_SPACE, 0, kept)
        kept = max(kept, 1)
        found.append(rest[:kept].rstrip(HARD_SPACE) or HARD_SPACE)
        rest = rest[kept:].lstrip(HARD_SPACE)
    return [*found, fitted(rest, room) or HARD_SPACE]


def fitted(shown: str, room: float) -> str:
    """Visible text cut to `room` columns of proportional type, an ellipsis in place of the rest."""
    if sum(map(_width, shown)) <= room:
        return shown
    return _start(shown, room - _width(ELLIPSIS)).rstrip(HARD_SPACE) + ELLIPSIS


def _start(shown: str, room: float) -> str:
    """As much of a text as fits."""
    kept = 0
    for character in shown:
        room -= _width(character)
        if room < 0:
            break
        kept += 1
    return shown[:kept]


def _width(character: str) -> float:
    """At least what a character takes, in columns of `UNITS`; for one of another font, a guess."""
    if character in _WIDTHS:
        return _WIDTHS[character]
    if east_asian_width(character) in "WF":
        return 1.75
    if not character.isascii():
        return 1.67
    return 1.4 if character.isupper() else 1.12


def page_lines(node: Node) -> list[str]:
    """What a tooltip says of a feature's page, every token visible; nothing where it was not
    asked for."""
    page = node.page
    if page is None:
        return []
    text = visible(page_words(page), space=" ")
    lines = textwrap.wrap(f"Neuronpedia: {text}", _TIP_WIDTH, subsequent_indent="  ")
    facts = page_facts(page)
    lines += [f"  {facts}"] if facts else []
    for what, logits in (("top", page.top_logits), ("bottom", page.bottom_logits)):
        if logits:
            lines.append(f"  {what} logits: {logit_tokens(logits)}")
    return lines


def page_facts(page: FeaturePage) -> str:
    """How often the feature is active there, and how much at most."""
    facts = []
    if page.density is not None:
        facts.append(f"active on {density_words(page.density)} of tokens")
    if page.max_activation is not None:
        facts.append(f"at most {plain(page.max_activation)}")
    return ", ".join(facts)


def density_words(density: float) -> str:
    """A fraction of tokens as per cent, two significant digits however small.

    >>> density_words(0.00013), density_words(0.25)
    ('0.013%', '25%')
    """
    return f"{plain(100 * density, 2)}%"


def logit_tokens(logits: Iterable[LogitToken], limit: int = _TIP_TOKENS) -> str:
    """The first tokens and their weights, in a line."""
    items = list(logits)[:limit]
    return "  ".join(
        f"{shortened(token(item.token), 16)} {signed(item.weight, 2)}" for item in items
    )

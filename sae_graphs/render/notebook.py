"""How graphs, features, reports and comparisons show themselves in a notebook.

What is a table is plain HTML in the notebook's own style; the explorer is a frame of its own, which
can reach nothing of the notebook. All text is made visible and escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.names import LOWERS_WORDS, RAISES_WORDS, largest_activation, split_by_sign
from sae_graphs.text import in_page, token, visible, web_address
from sae_graphs.words import percent, plain, signed

if TYPE_CHECKING:
    from sae_graphs.effects.agreement import MethodComparison
    from sae_graphs.graph.records import Context, Node, TokenEffect

HEIGHT = 720  # CSS pixels of an explorer's frame
# What a frame may do. Not `allow-same-origin`: the page cannot touch the notebook around it.
MAY = "allow-scripts allow-forms allow-downloads allow-popups allow-popups-to-escape-sandbox"
SHADE = "rgba(90, 169, 248, {:.2f})"
_LEFT = "style='text-align:left'"


@dataclass(frozen=True)
class Explorer:
    """An explorer's page, shown in a frame; `page` is a whole HTML file."""

    page: str
    height: int = HEIGHT

    def __post_init__(self) -> None:
        if type(self.height) is not int or self.height < 100:
            raise SaeGraphsError(
                f"height is {self.height!r}; expected whole pixels, 100 or more, such as {HEIGHT}"
            )

    def __repr__(self) -> str:
        return f"Explorer({len(self.page):,} characters, {self.height} pixels high)"

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" sandbox="{MAY}" style="width:100%;'
            f'height:{self.height}px;border:1px solid #cbd5e1;border-radius:8px"></iframe>'
        )


# -- a feature -------------------------------------------------------------------------------------


def node_html(node: Node) -> str:
    """A feature as a card: its name, meaning, contexts, and the tokens that it moves."""
    name = in_page(str(node.feature))
    if node.feature.is_output:
        text = in_page(token(node.token or ""))
        return f"<div><b>{name}</b> <code>{text}</code> logit {plain(node.activation)}</div>"
    address = web_address(node.neuronpedia)
    if address:
        name = f'<a href="{in_page(address)}" target="_blank" rel="noreferrer">{name}</a>'
    lines = [f"<b>{name}</b> active {plain(node.activation)}, in Graph {node.component}"]
    if node.explanation:
        lines.append(shown(node.explanation))
    largest = largest_activation(node)
    lines += [_context(context, largest) for context in node.contexts]
    lines += _effects(node)
    return "".join(f"<div>{line}</div>" for line in lines)


def _context(context: Context, largest: float) -> str:
    """A text, shaded by activation."""
    spans = []
    for text, value in zip(context.tokens, context.activations, strict=True):
        share = abs(value) / largest if largest else 0.0
        colour = f' style="background:{SHADE.format(share)}"' if share else ""
        spans.append(f"<span{colour}>{in_page(visible(text))}</span>")
    return f"<code>{''.join(spans)}</code>"


def _effects(node: Node) -> list[str]:
    """The tokens that ablating the feature moves, a line for each direction."""
    both = zip((LOWERS_WORDS, RAISES_WORDS), split_by_sign(node), strict=True)
    return [f"{words} (nats): {'&ensp;'.join(map(_moved, told))}" for words, told in both if told]


def _moved(effect: TokenEffect) -> str:
    return f"<code>{in_page(token(effect.token))}</code> {signed(effect.effect_nats, 2)}"


# -- tables ----------------------------------------------------------------------------------------


def comparison_html(found: MethodComparison) -> str:
    """How far estimates are from exact effects, by layer pair and method."""
    k = next(iter(found.overall.values())).k
    head = ("layers", "by", "correlation", f"same {k}", "wrong sign", "unseen", "verdict")
    pairs = [(f"{pair.source} → {pair.target}", pair.methods) for pair in found.pairs]
    rows = [
        (
            layers,
            method,
            "" if figures.rank_correlation is None else f"{figures.rank_correlation:.2f}",
            "" if figures.overlap is None else percent(figures.overlap),
            percent(figures.wrong_sign),
            percent(figures.unseen),
            figures.verdict,
        )
        for layers, methods in [*pairs, ("all", found.overall)]
        for method, figures in methods.items()
    ]
    return table_html(head, rows, "Estimates beside exact effects")


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    named = "".join(f"<th {_LEFT}>{in_page(name)}</th>" for name in head)
    body = "".join(
        f"<tr>{''.join(f'<td {_LEFT}>{shown(value)}</td>' for value in row)}</tr>" for row in rows
    )
    return f"<table><caption>{in_page(caption)}</caption><tr>{named}</tr>{body}</table>"


def shown(text: str) -> str:
    return in_page(visible(text, space=" "))

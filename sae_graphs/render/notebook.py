"""How graphs, features, reports and comparisons show themselves in a notebook.

What is a table is plain HTML in the notebook's own style; the explorer is a frame of its own, which
can reach nothing of the notebook. All text is made visible and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import ANSWER_LAYER, OUTPUT_LAYER, TOKEN_LAYER
from sae_graphs.graph.names import (
    LOWERS_WORDS,
    RAISES_WORDS,
    largest_activation,
    split_by_sign,
    standing_words,
)
from sae_graphs.render.document.templates import macros
from sae_graphs.text import visible, web_address

if TYPE_CHECKING:
    from markupsafe import Markup

    from sae_graphs.graph.records import Context, Node

HEIGHT = 720  # CSS pixels of an explorer's frame
# What a frame may do. Not `allow-same-origin`: the page cannot touch the notebook around it.
MAY = "allow-scripts allow-forms allow-downloads allow-popups allow-popups-to-escape-sandbox"
SHADE = "rgba(90, 169, 248, {:.2f})"
_PARTS = "render/notebook.html.j2"
# What the number of a node that is no feature is; a token of the prompt has none.
_NUMBERS = {OUTPUT_LAYER: "logit", ANSWER_LAYER: "score", TOKEN_LAYER: ""}


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
        return str(macros(_PARTS).frame(self.page, MAY, self.height))


@dataclass(frozen=True)
class Picture:
    """An `<svg>` element, which a notebook shows; `str` is its text."""

    svg: str

    def __repr__(self) -> str:
        return f"Picture({len(self.svg):,} characters of SVG)"

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg


def node_html(node: Node) -> str:
    """A feature as a card: its name, meaning, contexts, and the tokens that it moves."""
    draw = macros(_PARTS)
    if not node.feature.is_feature:
        return str(draw.output(node, _NUMBERS[node.feature.layer]))
    largest = largest_activation(node)
    contexts = [_shaded(context, largest) for context in node.contexts]
    both = zip((LOWERS_WORDS, RAISES_WORDS), split_by_sign(node), strict=True)
    effects = [(words, told) for words, told in both if told]
    does = standing_words(node)
    return str(draw.card(node, web_address(node.neuronpedia), contexts, effects, does))


def _shaded(context: Context, largest: float) -> list[tuple[str, str]]:
    """A text's tokens, each with a colour where it is active."""
    found = []
    for text, value in zip(context.tokens, context.activations, strict=True):
        share = abs(value) / largest if largest else 0.0
        found.append((visible(text), SHADE.format(share) if share else ""))
    return found


class Tabled(Protocol):
    """A record that is shown as one table: its head, and rows of as many texts."""

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The head and the rows."""
        ...


def comparison_html(found: Tabled) -> str:
    """How far estimates are from exact effects, by layer pair and method."""
    head, rows = found.table()
    return str(table_html("Estimates beside exact effects", head, rows))


def table_html(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table of texts in the notebook's own style."""
    found: Markup = macros(_PARTS).table(caption, head, rows)
    return found


class Ablated(Protocol):
    """What `ablate` found, as far as it is shown."""

    prompt: str
    warnings: Sequence[str]
    changes: Sequence[object]

    @property
    def score_words(self) -> str:
        """What became of the answer's score, in one line."""
        ...

    def table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The head and the rows."""
        ...


def ablation_html(found: Ablated) -> str:
    """The next tokens before and after features were set, and what became of the answer."""
    head, rows = found.table()
    caption = visible(f"{found.prompt}: {', '.join(map(str, found.changes))}", space=" ")
    lines = [found.score_words, *(f"notice: {warning}" for warning in found.warnings)]
    return str(macros(_PARTS).told(table_html(caption, head, rows), lines))

"""A box of the explorer as HTML: name, meaning, where it is active, what ablating it does.

Made here, not by the script: a page shows its graph where scripts are off, and on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.meaning import meaning_of
from sae_graphs.graph.names import (
    does_words,
    largest_activation,
    number_words,
    output_words,
    split_by_sign,
    standing_words,
    token_at,
)
from sae_graphs.graph.records import Node, RunRecord, TokenEffect
from sae_graphs.render.document.templates import macros
from sae_graphs.render.picture.explained import is_explained, page_words
from sae_graphs.render.picture.strips import strip
from sae_graphs.text import columns, shortened, token
from sae_graphs.words import plain, probability_words, signed

if TYPE_CHECKING:
    from markupsafe import Markup

LINE, HEADING, PADDING = 17.0, 23.0, 12.0
CHARACTER = 6.62  # CSS pixels: the width of one in a line
MAX_TOKENS = 3
# Up to so many boxes: characters in a line of each, and contexts that each shows.
SIZES = ((40, 33, 3), (80, 33, 2), (200, 24, 1), (10**9, 18, 1))

_BOXES = "render/explorer/boxes.html.j2"


@dataclass(frozen=True)
class Shape:
    """What all boxes of a page have in common: characters in a line, and the lines they show."""

    columns: int
    contexts: int
    explained: bool
    prompt: bool
    largest: float = 0.0  # |effect on the answer| of any box

    @classmethod
    def of(cls, graph: CausalGraph) -> Shape:
        """More for a graph that is read, less for a map of many boxes."""
        wide, contexts = next(
            (columns, contexts) for most, columns, contexts in SIZES if len(graph) <= most
        )
        explained = is_explained(graph)
        mapped = contexts == 1
        largest = max((abs(node.effect_on_answer or 0.0) for node in graph.nodes), default=0.0)
        shown = 0 if mapped and explained else contexts
        return cls(wide, shown, explained, not mapped, largest)

    @property
    def width(self) -> float:
        """Of a box, in CSS pixels."""
        return round(self.columns * CHARACTER + 18)


def box_lines(node: Node, run: RunRecord, shape: Shape) -> list[Markup]:
    """The lines below the heading as HTML, each of one height."""
    draw = macros(_BOXES)
    if node.feature.is_output:
        return _output_lines(node, run)
    if node.feature.is_token:
        return [draw.line(f"token {node.feature.position}", is_faint=True)]
    lines: list[Markup] = []
    tells = node.effect_on_answer is not None
    if node.effect_on_answer is not None:
        share = abs(node.effect_on_answer) / shape.largest if shape.largest else 0.0
        lines.append(draw.does(does_words(node), share))
    elif shape.explained:
        lines.append(draw.means(page_words(node.page), not node.explanation))
    largest = largest_activation(node)
    if shape.prompt and node.activations:
        pieces = strip(
            run.tokens,
            node.activations,
            largest=largest,
            width=shape.columns,
            focus=node.feature.position,
        )
        lines.append(draw.strip(pieces, "prompt-strip"))
    for place, context in enumerate(node.contexts[: shape.contexts]):
        pieces = strip(context.tokens, context.activations, largest=largest, width=shape.columns)
        if pieces:
            lines.append(draw.strip(pieces, "first" if tells and not place else ""))
    for sign, effects in zip(("lowers", "raises"), split_by_sign(node), strict=True):
        lines += [draw.chips(sign, _changes(effects, shape))] if effects else []
    return lines


def box_height(lines: Sequence[Markup]) -> float:
    """The height of a box with so many lines."""
    return HEADING + LINE * len(lines) + PADDING


def heading(node: Node, run: RunRecord) -> Markup:
    """The box's first line: its name, the token it stands at, how active it is."""
    word = output_words(run.output(node.feature), 20) if node.feature.is_output else None
    if node.feature.is_token:
        word = shortened(token(node.token or ""), 20)
    state = f"active {plain(node.activation)}" if node.activation else "inactive"
    state = standing_words(node) or state
    here = token_at(run, node.feature)
    place = None if here is None else shortened(here, 10)
    meaning = None if node.effect_on_answer is None else meaning_of(node)
    found: Markup = macros(_BOXES).heading(word, node.feature, place, state, meaning)
    return found


def _output_lines(node: Node, run: RunRecord) -> list[Markup]:
    output = run.output(node.feature)
    here = token_at(run, node.feature)
    first = probability_words(output.probability)
    if here is not None and node.feature.position != run.read_position:
        first = f"after {shortened(here, 12)}"  # its probability there is not known
    draw = macros(_BOXES)
    words = f"{first} · {number_words(run, node.feature)} {plain(node.activation)}"
    return [draw.line(words), draw.line(node.feature, is_faint=True)]


def _changes(effects: Sequence[TokenEffect], shape: Shape) -> list[tuple[str, str]]:
    """As many tokens, and what happens to each, as a line has room for."""
    room = shape.columns - 7.0
    found: list[tuple[str, str]] = []
    for number, effect in enumerate(effects[:MAX_TOKENS]):
        name, change = shortened(token(effect.token), 12), signed(effect.effect_nats, 2)
        room -= columns(name) + 0.85 * len(change) + 2
        if number and room < 0:
            break
        found.append((name, change))
    return found

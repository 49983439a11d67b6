"""A box of the explorer as HTML: name, meaning, where it is active, what ablating it does.

Made here, not by the script: a page shows its graph where scripts are off, and on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.names import (
    largest_activation,
    logit_words,
    output_words,
    split_by_sign,
    token_at,
)
from sae_graphs.graph.records import Node, RunRecord, TokenEffect
from sae_graphs.render.picture.explained import is_explained, page_words
from sae_graphs.render.picture.strips import Piece, strip
from sae_graphs.text import columns, in_page, shortened, token, visible
from sae_graphs.words import plain, probability_words, signed

LINE, HEADING, PADDING = 17.0, 23.0, 12.0
CHARACTER = 6.62  # CSS pixels: the width of one in a line
MAX_TOKENS = 3
# Up to so many boxes: characters in a line of each, and contexts that each shows.
SIZES = ((40, 33, 3), (80, 33, 2), (200, 24, 1), (10**9, 18, 1))


@dataclass(frozen=True)
class Shape:
    """What all boxes of a page have in common: characters in a line, and the lines they show."""

    columns: int
    contexts: int
    explained: bool
    prompt: bool

    @classmethod
    def of(cls, graph: CausalGraph) -> Shape:
        """More for a graph that is read, less for a map of many boxes."""
        wide, contexts = next(
            (columns, contexts) for most, columns, contexts in SIZES if len(graph) <= most
        )
        explained = is_explained(graph)
        mapped = contexts == 1
        return cls(wide, 0 if mapped and explained else contexts, explained, not mapped)

    @property
    def width(self) -> float:
        """Of a box, in CSS pixels."""
        return round(self.columns * CHARACTER + 18)


def box_lines(node: Node, run: RunRecord, shape: Shape) -> list[str]:
    """The lines below the heading as HTML, each of one height."""
    if node.feature.is_output:
        return _output_lines(node, run)
    lines = []
    if shape.explained:
        words = visible(page_words(node.page), space=" ")
        faint = "" if node.explanation else " faint"
        lines.append(f'<div class="means{faint}">{in_page(words)}</div>')
    largest = largest_activation(node)
    if shape.prompt and node.activations:
        pieces = strip(
            run.tokens,
            node.activations,
            largest=largest,
            width=shape.columns,
            focus=node.feature.position,
        )
        lines.append(_strip(pieces, "prompt-strip"))
    for context in node.contexts[: shape.contexts]:
        pieces = strip(context.tokens, context.activations, largest=largest, width=shape.columns)
        if pieces:
            lines.append(_strip(pieces, ""))
    lowered, raised = split_by_sign(node)
    lines += [_chips("lowers", lowered, shape)] if lowered else []
    lines += [_chips("raises", raised, shape)] if raised else []
    return lines


def box_height(lines: Sequence[str]) -> float:
    """The height of a box with so many lines."""
    return HEADING + LINE * len(lines) + PADDING


def heading(node: Node, run: RunRecord) -> str:
    """The box's first line: its name, the token it stands at, how active it is."""
    if node.feature.is_output:
        text = in_page(output_words(run.output(node.feature), 20))
        return f'<div class="head"><b class="word">{text}</b></div>'
    state = f"active {plain(node.activation)}" if node.activation else "silent"
    here = token_at(run, node.feature)
    place = "" if here is None else f"<code>{in_page(shortened(here, 10))}</code>"
    return (
        f'<div class="head"><span class="mark"></span><b>{node.feature}</b>{place}'
        f'<span class="active">{state}</span></div>'
    )


def _output_lines(node: Node, run: RunRecord) -> list[str]:
    output = run.output(node.feature)
    here = token_at(run, node.feature)
    first = probability_words(output.probability)
    if here is not None and node.feature.position != run.read_position:
        first = f"after {shortened(here, 12)}"  # its probability there is not known
    number = f"{logit_words(output)} {plain(node.activation)}"
    words = [f'<div class="line">{in_page(f"{first} · {number}")}</div>']
    return [*words, f'<div class="line faint">{node.feature}</div>']


def _strip(pieces: Sequence[Piece], name: str) -> str:
    spans = "".join(
        f'<span class="s{piece.step}{" here" if piece.framed else ""}">{in_page(piece.text)}</span>'
        if piece.step or piece.framed
        else f"<span>{in_page(piece.text)}</span>"
        for piece in pieces
    )
    return (
        f'<div class="strip {name}">{spans}</div>' if name else f'<div class="strip">{spans}</div>'
    )


def _chips(sign: str, effects: Sequence[TokenEffect], shape: Shape) -> str:
    """What happens to tokens: `lowers` or `raises`, in words as well as in colour."""
    room = shape.columns - 7.0
    chips = []
    for number, effect in enumerate(effects[:MAX_TOKENS]):
        name, change = shortened(token(effect.token), 12), signed(effect.effect_nats, 2)
        room -= columns(name) + 0.85 * len(change) + 2
        if number and room < 0:
            break
        chips.append(f"<code class='{sign}'>{in_page(name)}</code><small>{change}</small>")
    return f'<div class="chips"><small class="{sign}">{sign}</small>{"".join(chips)}</div>'

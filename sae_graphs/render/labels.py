"""The box of a feature: its name, where it is active, what it means, what ablating it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sae_graphs.graph import BlockShare, Context, Node, RunRecord, TokenEffect
from sae_graphs.render.anatomy import shares_words
from sae_graphs.render.explained import explanation_row, page_lines
from sae_graphs.render.marks import CHECK
from sae_graphs.render.markup import at_own_size, cell, font, row, table, words
from sae_graphs.render.names import logit_words, name_of, output_words, token_at
from sae_graphs.render.strips import strip, strip_table
from sae_graphs.render.style import (
    BAND,
    FAINT,
    INK,
    LINE,
    MONO,
    RAISES,
    SOFT,
    WHITE,
    effect_colour,
    effect_tint,
)
from sae_graphs.render.text import (
    columns,
    counted,
    in_label,
    in_tooltip,
    percent,
    plain,
    shortened,
    signed,
    token,
    visible,
    web_address,
)

MAX_TOKENS = 3
MAX_TIP_TOKENS = 24
TOKEN_SIZE, NAME_SIZE, TEXT_SIZE, SMALL_SIZE = 20, 12, 9, 8.5
MARKED_FRAME = 3  # points: the frame of a feature on a supported path
MONO_ASPECT = 0.602  # a monospaced character's width by its size

LOWERS_WORDS = "ablating lowers"
RAISES_WORDS = "ablating raises"


@dataclass(frozen=True)
class BoxShape:
    """What every box of a picture has in common: characters in a line, contexts shown, and
    lines for what Neuronpedia says."""

    columns: int = 36
    contexts: int = 3
    explained: int = 0

    @property
    def points(self) -> int:
        """The width of a line in points."""
        return round(self.columns * TEXT_SIZE * MONO_ASPECT)


def box(node: Node, run: RunRecord, shape: BoxShape, *, marked: bool = False) -> str:
    """The HTML-like label of one feature, or of an output token; `marked` where supported."""
    if node.feature.is_output:
        return _output_box(node, run, shape)
    largest = _largest_activation(node)
    heading = _heading(node, run, shape, marked=marked)
    rows = [row(cell(heading, align="LEFT", width=shape.points))]
    if shape.explained:
        rows.append(explanation_row(node, shape.columns, shape.explained))
    if node.activations:
        line = strip(
            run.tokens,
            node.activations,
            largest=largest,
            width=shape.columns,
            focus=node.feature.position,
        )
        rows.append(_line(strip_table(line), bgcolor=BAND))
    for context in node.contexts[: shape.contexts]:
        line = strip(context.tokens, context.activations, largest=largest, width=shape.columns)
        if line:
            rows.append(_line(strip_table(line)))
    lowered, raised = split_by_sign(node)
    rows += [_tokens(LOWERS_WORDS, lowered, shape)] if lowered else []
    rows += [_tokens(RAISES_WORDS, raised, shape)] if raised else []
    return table(
        *rows,
        border=MARKED_FRAME if marked else 1,
        color=INK if marked else LINE,
        bgcolor=WHITE,
        style="ROUNDED",
        cellpadding=2,
        cellspacing=1,
    )


def split_by_sign(node: Node) -> tuple[tuple[TokenEffect, ...], tuple[TokenEffect, ...]]:
    """The tokens that ablating the feature lowers, and those it raises; strongest first."""
    effects = sorted((*node.promotes, *node.suppresses), key=lambda item: -abs(item.effect_nats))
    lowered = tuple(item for item in effects if item.effect_nats < 0)
    raised = tuple(item for item in effects if item.effect_nats > 0)
    return lowered, raised


def _largest_activation(node: Node) -> float:
    """What full blue stands for: the feature's largest |activation|, in its contexts and here.

    The first token is left out: it is the attention sink, where activations mean nothing.
    """
    values = [value for context in node.contexts for value in context.activations]
    values += node.activations[1:] or node.activations
    return max(map(abs, values), default=0.0)


def _output_box(node: Node, run: RunRecord, shape: BoxShape) -> str:
    """Where paths end: the token in large type on dark ground, with its clean numbers."""
    output = run.output(node.feature)
    size = TOKEN_SIZE if output.contrast is None else TOKEN_SIZE - 4
    room = int(shape.points / (size * MONO_ASPECT))
    text = output_words(output, room)
    here = token_at(run, node.feature)
    if here is None or node.feature.position == run.read_position:
        first = percent(output.probability)
    else:
        first = f"after {shortened(here, 12)}"  # its probability there is not known
    small = words(f"{first}  ", size=NAME_SIZE, colour=WHITE, bold=True)
    number = f"{logit_words(output)} {plain(node.activation)}"
    small += words(number, size=SMALL_SIZE, colour=LINE)
    rows = [
        cell(font(in_label(text), size=size, face=MONO, colour=WHITE, bold=True)),
        cell(small),
        cell(words(str(node.feature), size=SMALL_SIZE, colour=FAINT)),
    ]
    return table(
        *(row(each) for each in rows),
        border=1,
        color=INK,
        bgcolor=INK,
        style="ROUNDED",
        cellpadding=3,
        cellspacing=1,
    )


def _heading(node: Node, run: RunRecord, shape: BoxShape, *, marked: bool) -> str:
    mark = words(" ↗", size=10, colour=RAISES) if web_address(node.neuronpedia) else ""
    name = words(str(node.feature), size=NAME_SIZE, colour=INK, bold=True) + mark
    if marked:
        name = words(f"{CHECK} ", size=NAME_SIZE, colour=INK, bold=True) + name
    state = f"active {plain(node.activation)}" if node.activation else "silent"
    if (here := token_at(run, node.feature)) is not None:
        room = shape.columns - NAME_SIZE / TEXT_SIZE * len(str(node.feature)) - len(state) - 3
        text = in_label(f" {shortened(here, max(int(room), 5))}")
        name += font(text, size=TEXT_SIZE, face=MONO, colour=INK)
    active = words(state, size=SMALL_SIZE, colour=SOFT)
    return table(row(cell(name, align="LEFT"), cell(active, align="RIGHT")))


def _line(content: str, bgcolor: str | None = None) -> str:
    return row(
        cell(font(content, size=TEXT_SIZE, face=MONO, colour=INK), align="LEFT", bgcolor=bgcolor)
    )


def _tokens(label: str, effects: Sequence[TokenEffect], shape: BoxShape) -> str:
    """A row: what happens, then tokens on their colour with the change in nats."""
    colour = effect_colour(effects[0].effect_nats)
    cells = [cell(words(f"{label} ", size=SMALL_SIZE, colour=colour), align="LEFT")]
    room = shape.columns - 14.0
    for number, effect in enumerate(effects[:MAX_TOKENS]):
        name, change = shortened(token(effect.token), 12), signed(effect.effect_nats, 2)
        room -= columns(name) + 0.85 * len(change) + 1.5
        if number and room < 0:
            break
        chip = font(in_label(name), size=TEXT_SIZE, face=MONO, colour=INK)
        cells.append(cell(chip, bgcolor=effect_tint(effect.effect_nats)))
        cells.append(cell(words(f" {change}  ", size=SMALL_SIZE, colour=SOFT)))
    return row(cell(at_own_size(table(row(*cells))), align="LEFT"))


# -- tooltips --------------------------------------------------------------------------------------


def box_tooltip(node: Node, run: RunRecord) -> str:
    """What hovering over a box says: activation per prompt token, contexts, token effects."""
    if node.feature.is_output:
        return in_tooltip("\n".join(_output_lines(node, run)))
    here = token_at(run, node.feature)
    place = "the read token" if here is None else f"token {node.feature.position}, {here}"
    lines = [f"{node.feature}: activation {plain(node.activation)} at {place}"]
    lines += [f"{what} {shares_words(shares)}" for what, shares in provenance(node)]
    if node.page is not None:
        lines += ["", *page_lines(node)]
    if node.activations:
        lines += ["", "in this prompt:", *_prompt_lines(node, run)]
    if node.contexts:
        theirs = node.page is not None and node.page.gave_contexts
        lines += ["", "most active on (from Neuronpedia):" if theirs else "most active on:"]
        lines += [f"  {_context_line(context)}" for context in node.contexts]
    for label, effects in zip((LOWERS_WORDS, RAISES_WORDS), split_by_sign(node), strict=True):
        if effects:
            lines += ["", f"{label} (nats):"]
            lines += [f"  {token(item.token)}  {signed(item.effect_nats)}" for item in effects]
    if web_address(node.neuronpedia):
        lines += ["", "click for its page on Neuronpedia"]
    return in_tooltip("\n".join(lines))


def provenance(node: Node) -> tuple[tuple[str, tuple[BlockShare, ...]], ...]:
    """Which blocks wrote the feature, and which later ones scrub it; what is not known is left
    out."""
    known = ("written by", node.written_by), ("scrubbed by", node.scrubbed_by)
    return tuple((what, shares) for what, shares in known if shares)


def _output_lines(node: Node, run: RunRecord) -> list[str]:
    output = run.output(node.feature)
    lines = [f"output token {name_of(run, node.feature)}"]
    here = token_at(run, node.feature)
    if here is not None:
        lines.append(f"as what follows token {node.feature.position}, {here}")
    if here is None or node.feature.position == run.read_position:
        lines.append(f"clean probability {percent(output.probability)}")
    return [*lines, f"clean {logit_words(output)} {plain(node.activation)}"]


def _prompt_lines(node: Node, run: RunRecord) -> list[str]:
    """The prompt's tokens on which the feature is active; of many, the most active ones."""
    active = [position for position, value in enumerate(node.activations) if value]
    active.sort(key=lambda position: -abs(node.activations[position]))
    strongest = active[:MAX_TIP_TOKENS]
    lines = [
        f"  {token(run.tokens[position])}  {plain(node.activations[position])}"
        for position in sorted(strongest)
    ]
    left = len(active) - len(strongest)
    return [*lines, *([f"  and {counted(left, 'token')} less"] if left else [])] or ["  not active"]


def _context_line(context: Context) -> str:
    text = "".join(visible(item) for item in context.tokens)
    peak = max(context.activations, key=abs, default=0.0)
    return f"{shortened(text, 100)}  ({plain(peak)})"

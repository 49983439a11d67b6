"""A line of tokens, shaded by activation: the prompt, or a context, cut around its peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sae_graphs.render.markup import cell, row, table, to_the_left
from sae_graphs.render.style import shade, shade_step
from sae_graphs.render.text import ELLIPSIS, columns, in_label, visible

BEFORE_PEAK = (
    0.6  # of the room around the peak: what comes before it explains more than what follows
)


@dataclass(frozen=True)
class Piece:
    """Visible text drawn on one shade; `step` 0 is white."""

    text: str
    step: int


def strip(
    tokens: Sequence[str], activations: Sequence[float], *, largest: float, width: int
) -> tuple[Piece, ...]:
    """At most `width` columns of the tokens around the most active one.

    Shades are activation / `largest`. An ellipsis marks each end that is cut.
    """
    shown = [visible(token) for token in tokens]
    steps = [shade_step(activation, largest) for activation in activations]
    if not shown:
        return ()
    peak = max(range(len(shown)), key=lambda i: (activations[i], i))
    first, last = _window([columns(text) for text in shown], peak, width)
    pieces = [Piece(shown[i], steps[i]) for i in range(first, last + 1)]
    if first > 0:
        pieces.insert(0, Piece(ELLIPSIS, 0))
    if last < len(shown) - 1:
        pieces.append(Piece(ELLIPSIS, 0))
    if first == last:
        pieces = [Piece(_fitted(piece.text, width), piece.step) for piece in pieces]
    return _merged(pieces)


def _window(widths: Sequence[int], peak: int, width: int) -> tuple[int, int]:
    """The first and last token of the line: whole tokens, room shared out around the peak."""
    room = width - 2 - widths[peak]  # an ellipsis at either end
    before, after = sum(widths[:peak]), sum(widths[peak + 1 :])
    left = max(min(before, int(room * BEFORE_PEAK)), room - after)
    first = last = peak
    used = 0
    while first > 0 and used + widths[first - 1] <= left:
        first -= 1
        used += widths[first]
    while last < len(widths) - 1 and used + widths[last + 1] <= room:
        last += 1
        used += widths[last]
    return first, last


def _fitted(text: str, width: int) -> str:
    return text if columns(text) <= width else text[: max(width // 2, 1)] + ELLIPSIS


def _merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Neighbours on white become one piece; shaded tokens keep their own."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and piece.step == 0 and merged[-1].step == 0:
            merged[-1] = Piece(merged[-1].text + piece.text, 0)
        else:
            merged.append(piece)
    return tuple(merged)


def strip_table(pieces: Sequence[Piece]) -> str:
    """The line as an HTML-like table, one cell a piece."""
    cells = [
        cell(in_label(piece.text), bgcolor=shade(piece.step) if piece.step else None)
        for piece in pieces
        if piece.text
    ]
    return to_the_left(table(row(*cells))) if cells else ""

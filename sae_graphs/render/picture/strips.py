"""A line of tokens, shaded by activation: the prompt, or a context, cut around its peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from unicodedata import bidirectional

from sae_graphs.render.picture.markup import at_own_size, cell, in_label, row, table
from sae_graphs.render.style import INK, shade, shade_step
from sae_graphs.text import ELLIPSIS, visible, window


@dataclass(frozen=True)
class Piece:
    """Visible text drawn on one shade; `step` 0 is white. The token of interest has a frame."""

    text: str
    step: int
    framed: bool = False


def strip(
    tokens: Sequence[str],
    activations: Sequence[float],
    *,
    largest: float,
    width: int,
    focus: int | None = None,
) -> tuple[Piece, ...]:
    """At most `width` columns of the tokens around `focus`, by default the most active one.

    Shades are |activation| / `largest`. An ellipsis marks each end that is cut; `focus` is framed.
    """
    if not tokens:
        return ()
    shown = [visible(token) for token in tokens]
    steps = [shade_step(abs(activation), largest) for activation in activations]
    peak = (
        max(range(len(shown)), key=lambda i: (abs(activations[i]), i)) if focus is None else focus
    )
    text = "".join(shown)
    starts = [0, *accumulate(len(token) for token in shown)]
    first, last = window(text, starts[peak], starts[peak + 1], width)
    pieces = [
        Piece(text[max(start, first) : min(end, last)], step, framed=position == focus)
        for position, (start, end, step) in enumerate(zip(starts, starts[1:], steps, strict=False))
        if start < last and end > first
    ]
    if first > 0:
        pieces.insert(0, Piece(ELLIPSIS, 0))
    if last < len(text):
        pieces.append(Piece(ELLIPSIS, 0))
    return _merged(pieces)


def _merged(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Neighbours on white become one piece, unless one is written from right to left; shaded
    and framed tokens keep their own."""
    merged: list[Piece] = []
    for piece in pieces:
        white = bool(merged) and not (piece.step or merged[-1].step)
        if white and not (piece.framed or merged[-1].framed or _turns(merged[-1], piece)):
            merged[-1] = Piece(merged[-1].text + piece.text, 0)
        else:
            merged.append(piece)
    return tuple(merged)


def _turns(*pieces: Piece) -> bool:
    return any(bidirectional(c) in ("R", "AL", "AN") for piece in pieces for c in piece.text)


def strip_table(pieces: Sequence[Piece]) -> str:
    """The line as an HTML-like table, one cell a piece."""
    cells = [
        cell(
            in_label(piece.text),
            bgcolor=shade(piece.step) if piece.step else None,
            border=1 if piece.framed else None,
            color=INK if piece.framed else None,
        )
        for piece in pieces
        if piece.text
    ]
    return at_own_size(table(row(*cells))) if cells else ""

"""What a reader says of a graph, as rows of boxes, lines of tooltips, and below the picture."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from sae_graphs.graph.annotations import Annotations
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.render.picture.explained import broken
from sae_graphs.render.picture.markup import cell, font, in_label, row, table, wrapped
from sae_graphs.render.style import INK, NOTE, SANS, SOFT, WHITE
from sae_graphs.text import HARD_SPACE, visible

PIN = "★"
PENCIL = "✎"
LABEL_LINES = 2
NOTE_LINES = 2  # of a box; its tooltip has all of it
BOLD = 1.2  # a bold letter's width by a plain one's, at most
_SIZE = 9.0  # points
_TIP_WIDTH = 90
_CAPTION_COLUMNS = 150  # of a line at most; of a narrow picture half of it
_CAPTION_LETTER = 7.5  # points


@dataclass(frozen=True)
class Remarks:
    """What is said of one feature: empty where nothing is."""

    pinned: bool = False
    label: str | None = None
    note: str | None = None
    band: str | None = None  # the name of the group it is in


NO_REMARKS = Remarks()


def remarks_on(annotations: Annotations, feature: FeatureId) -> Remarks:
    """What is said of a feature that has a box of its own."""
    if not annotations:
        return NO_REMARKS
    group = annotations.group_of(feature)
    return Remarks(
        pinned=feature in annotations.pins,
        label=annotations.labels.get(feature) or None,
        note=annotations.notes.get(feature) or None,
        band=None if group is None else group.name,
    )


# -- rows of a box ---------------------------------------------------------------------------------


def band_row(name: str | None, room: float) -> str:
    """The group's name on a dark band across the top of a box; without a name a row as high."""
    shown = HARD_SPACE if name is None else broken(visible(name), room / BOLD - 1, 1)[0]
    text = font(in_label(shown), size=_SIZE, colour=WHITE, face=SANS, bold=True)
    return row(cell(text, align="LEFT", bgcolor=None if name is None else SOFT))


def label_row(label: str, room: float, lines: int) -> str:
    """A reader's own name for a feature, in bold, where its explanation would be."""
    shown = broken(visible(label), room / BOLD - 1, lines)
    shown += [HARD_SPACE] * (lines - len(shown))
    written = "".join(f'{in_label(line)}<BR ALIGN="LEFT"/>' for line in shown)
    return row(cell(font(written, size=_SIZE, colour=INK, face=SANS, bold=True), align="LEFT"))


def label_lines(label: str, room: float) -> int:
    """How many lines a label takes in a box."""
    return len(broken(visible(label), room / BOLD - 1, LABEL_LINES))


def note_lines(note: str | None, room: float) -> list[str]:
    """A note as the lines of a box; none where there is no note."""
    return [] if note is None else broken(visible(f"{PENCIL} {note}"), room - 1, NOTE_LINES)


def note_row(line: str | None) -> str:
    """One line of a note on its ground; without a line a row as high."""
    text = font(in_label(line or HARD_SPACE), size=_SIZE, colour=INK, face=SANS)
    return row(cell(text, align="LEFT", bgcolor=None if line is None else NOTE))


# -- tooltips --------------------------------------------------------------------------------------


def remark_lines(remarks: Remarks) -> list[str]:
    """All that is said of a feature, as lines of its tooltip."""
    told = [
        ("pinned", "" if remarks.pinned else None),
        ("label: ", remarks.label),
        ("group: ", remarks.band),
        ("note: ", remarks.note),
    ]
    lines = []
    for what, text in told:
        if text is not None:
            shown = f"{what}{visible(text, space=' ')}"
            lines += textwrap.wrap(shown, _TIP_WIDTH, subsequent_indent="  ")
    return lines


# -- below the picture -----------------------------------------------------------------------------


def below(annotations: Annotations, width: float) -> str:
    """The caption, as a paper's figure has it, and the note on the whole graph; empty without.

    `width` is that of the picture in points, of which the lines use most.
    """
    columns = max(min(int(width / _CAPTION_LETTER), _CAPTION_COLUMNS), _CAPTION_COLUMNS // 2)
    rows = []
    if annotations.caption:
        rows.append(wrapped(annotations.caption, columns, size=12, colour=INK))
    if annotations.note:
        rows.append(wrapped(f"{PENCIL} {annotations.note}", columns, size=10.5, colour=SOFT))
    if not rows:
        return ""
    return table(*(row(cell(each, align="LEFT")) for each in rows), cellpadding=4, cellspacing=2)
